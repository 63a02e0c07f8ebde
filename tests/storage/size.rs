//! How long a start takes with a million small keys, and how much memory they need.
//!
//! Too slow for every run. It prints what it measures:
//! `cargo test --release --test storage size -- --ignored --nocapture`

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::version::Dot;
use simple_dynamo::protocol::{Accepted, Ballot, State, VoteRequest};
use simple_dynamo::storage::disk::Folder;

use crate::support::witness::{NODE, Opened, open};

const KEYS: u64 = 1_000_000;
/// A start is a matter of seconds, on a slow machine too.
const LONGEST_START: Duration = Duration::from_secs(30);
/// How many requests wait for the disk at a time.
const WAITING: u64 = 1000;
const MOST_BYTES_PER_KEY: u64 = 1024;
/// Each step has a process of its own, because the memory of one would count for the next. These
/// variables pass the step and the folder to it.
const STEP: &str = "DYNAMO_TEST_STEP";
const FOLDER: &str = "DYNAMO_TEST_FOLDER";

#[test]
#[ignore = "takes half a minute: cargo test --release --test storage size -- --ignored --nocapture"]
fn a_million_small_keys_start_within_seconds_and_take_a_kilobyte_each_at_most() {
    if let (Ok(step), Some(folder)) = (std::env::var(STEP), std::env::var_os(FOLDER)) {
        return take(&step, Path::new(&folder));
    }
    let folder = std::env::temp_dir().join(format!("dynamo-million-{}", std::process::id()));
    let steps = [
        "fill",
        "start from the log",
        "take a snapshot",
        "start from the snapshot",
    ];
    let failed = steps
        .into_iter()
        .find(|step| !in_another_process(step, &folder));
    std::fs::remove_dir_all(&folder).expect("the first step makes the folder");
    assert_eq!(failed, None);
}

fn in_another_process(step: &str, folder: &Path) -> bool {
    let program = std::env::current_exe().expect("this test is a program");
    let mut child = Command::new(program);
    child.env(STEP, step).env(FOLDER, folder).args([
        "size::",
        "--ignored",
        "--nocapture",
        "--quiet",
    ]);
    child.status().expect("it has just run").success()
}

fn take(step: &str, folder: &Path) {
    let began = Instant::now();
    match step {
        "fill" => fill(folder),
        "take a snapshot" => take_a_snapshot(folder),
        _ => start(folder),
    }
    println!("{step}: {:.1?} in all", began.elapsed());
}

fn opened(path: &Path) -> Opened {
    let folder = Folder::open(path).expect("the folder is free");
    open(Arc::new(folder)).expect("the folder is whole")
}

fn fill(path: &Path) {
    let node = opened(path);
    for number in 1..=KEYS {
        let key: Key = format!("user:{number:07}").into();
        node.ask(&key, VoteRequest::Accept(small(number)));
        // From here on `WAITING` requests wait at a time, as with as many clients.
        if number > WAITING {
            node.next_report();
        }
    }
    for _ in 0..WAITING {
        node.next_report();
    }
    node.store.close();
}

fn small(number: u64) -> Accepted {
    let dot = Dot {
        origin: NodeId(5556),
        sequence: number,
    };
    let mut state = State {
        value: Some(format!("value {number}").into()),
        last: Some(dot),
        ..State::default()
    };
    state.clock.set(dot);
    Accepted {
        ballot: Ballot::first(1, NODE),
        state: Arc::new(state),
    }
}

fn take_a_snapshot(folder: &Path) {
    let node = opened(folder);
    node.store.snapshot().expect("the disk has space");
    node.store.close();
}

fn start(folder: &Path) {
    let (before, began) = (resident_bytes(), Instant::now());
    let node = opened(folder);
    let (took, used) = (began.elapsed(), resident_bytes().saturating_sub(before));
    assert_eq!(node.store.count() as u64, KEYS);
    let each = used / KEYS;
    let estimated = node.store.data_bytes() as u64 / KEYS;
    println!("open after {took:.1?}, {each} bytes of memory per key, estimated as {estimated}");
    assert!(took < LONGEST_START && each < MOST_BYTES_PER_KEY);
    // The bound of what a node may hold is compared with this estimate.
    assert!(each < estimated * 5 / 4, "more than is estimated");
    node.store.close();
}

/// This process's memory as Linux reports it, or 0 on other systems.
fn resident_bytes() -> u64 {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE
}
