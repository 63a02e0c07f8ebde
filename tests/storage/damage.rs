//! A torn frame at the end is cut off. Any other damage stops the start.

use simple_dynamo::bytes::Key;

use crate::support::faulty_disk::{Fault, FaultyDisk, Loss};
use crate::support::witness::{Opened, accept, open, prepare};

fn key() -> Key {
    "a key with spaces".into()
}

fn end(disk: &FaultyDisk, opened: &Opened) {
    opened.store.close();
    disk.lose_power(Loss::Everything);
}

/// A folder with one log of five votes, each in a frame of its own. Returns the log without the
/// zeros behind it, and where each frame starts, and the last ends. The first vote is of round 1,
/// the next of round 2, and so on.
fn log_of_votes() -> (FaultyDisk, Vec<u8>, Vec<usize>) {
    let disk = FaultyDisk::new(1);
    let opened = open(disk.power_on()).unwrap();
    let mut frames = Vec::new();
    for round in 1..6 {
        frames.push(written(&disk.content("log.000001")).len());
        let request = if round == 1 {
            accept(&key(), round)
        } else {
            prepare(round)
        };
        opened.vote(&key(), request);
    }
    end(&disk, &opened);
    let log = written(&disk.content("log.000001")).to_vec();
    frames.push(log.len());
    (disk, log, frames)
}

fn written(log: &[u8]) -> &[u8] {
    let end = log.iter().rposition(|byte| *byte != 0);
    &log[..end.map_or(0, |last| last + 1)]
}

/// Opens the folder and returns the round that is promised for the key.
fn promised(disk: &FaultyDisk) -> u64 {
    let opened = open(disk.power_on()).unwrap_or_else(|error| panic!("{error}"));
    let round = opened.store.promised(&key()).round;
    end(disk, &opened);
    round
}

/// Why the folder cannot be opened.
fn refusal(disk: &FaultyDisk, what: &str) -> String {
    match open(disk.power_on()) {
        Ok(_) => panic!("{what} was not noticed"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_log_cut_at_any_byte_opens_with_every_frame_before_the_cut() {
    let (written, log, frames) = log_of_votes();
    let behind = [0, 1, 26, 600];
    for cut in 0..=log.len() {
        let whole = frames[1..].iter().filter(|end| **end <= cut).count() as u64;
        for zeros in behind {
            let mut torn = log[..cut].to_vec();
            torn.resize(cut + zeros, 0);
            // A new disk each time: an old one keeps all that was ever on it.
            let disk = FaultyDisk::new(1);
            disk.put("identity.json", &written.content("identity.json"));
            disk.put("log.000001", &torn);
            let when = format!("cut at {cut}, {zeros} zeros behind");
            assert_eq!(promised(&disk), whole, "{when}");
            // The torn frame is gone for good, and a vote after it is found again.
            let opened = open(disk.power_on()).unwrap();
            assert_eq!(opened.store.promised(&key()).round, whole, "{when}");
            opened.vote(&key(), prepare(7));
            end(&disk, &opened);
            assert_eq!(promised(&disk), 7, "{when}");
        }
    }
}

#[test]
fn any_flipped_bit_of_the_log_stops_the_start_which_names_its_frame() {
    let (disk, log, frames) = log_of_votes();
    for place in 0..log.len() {
        let frame = frames.iter().rfind(|start| **start <= place).unwrap();
        for bit in 0..8 {
            let mut flipped = log.clone();
            flipped[place] ^= 1 << bit;
            flipped.resize(log.len() + 700, 0);
            disk.put("log.000001", &flipped);
            let text = refusal(&disk, &format!("bit {bit} of byte {place}"));
            let place_named = format!("log.000001: damaged frame at byte {frame}.");
            let helped = text.contains("--rebuild");
            assert!(
                text.contains(&place_named) && helped,
                "byte {place}: {text}"
            );
        }
    }
}

#[test]
fn any_flipped_bit_of_the_snapshot_stops_the_start() {
    let (disk, ..) = log_of_votes();
    let opened = open(disk.power_on()).unwrap();
    opened.store.snapshot().unwrap();
    end(&disk, &opened);
    let name = disk
        .names()
        .into_iter()
        .find(|name| name.starts_with("snapshot"))
        .unwrap();
    let snapshot = disk.content(&name);
    for place in 0..snapshot.len() {
        for bit in 0..8 {
            let mut flipped = snapshot.clone();
            flipped[place] ^= 1 << bit;
            disk.put(&name, &flipped);
            let text = refusal(&disk, &format!("bit {bit} of byte {place}"));
            let named = text.contains(&name) && text.contains("at byte ");
            assert!(named && text.contains("--rebuild"), "{text}");
        }
    }
    for cut in 0..snapshot.len() {
        disk.put(&name, &snapshot[..cut]);
        let text = refusal(&disk, &format!("the snapshot cut at {cut}"));
        assert!(text.contains(&name) && text.contains("--rebuild"), "{text}");
    }
}

#[test]
fn a_torn_log_is_damage_when_a_later_log_holds_votes() {
    let (disk, log, frames) = log_of_votes();
    let last = frames[4];
    let opened = open(disk.power_on()).unwrap();
    opened.vote(&key(), prepare(8));
    end(&disk, &opened);
    disk.put("log.000001", &log[..last + 40]);
    let text = refusal(&disk, "a tear in the middle");
    assert!(
        text.contains(&format!("log.000001: torn frame at byte {last}")),
        "{text}"
    );
}

/// A repair of the file system may cut a file off, also between two frames.
#[test]
fn a_log_that_lost_its_end_is_damage_when_a_later_log_holds_votes() {
    let (disk, log, frames) = log_of_votes();
    end(&disk, &open(disk.power_on()).unwrap());
    let opened = open(disk.power_on()).unwrap();
    opened.vote(&key(), prepare(8));
    // The disk has no space for the snapshot, which has already begun a log. The next vote goes to that log.
    disk.fail_at(4, Fault::NoSpace);
    assert!(opened.store.snapshot().is_err());
    disk.make_space();
    opened.vote(&key(), prepare(9));
    end(&disk, &opened);
    assert_eq!(promised(&disk), 9);
    let (idle, third) = (disk.content("log.000002"), disk.content("log.000003"));
    for (name, content, ends) in [
        ("log.000001", &log, &frames[..]),
        ("log.000002", &idle, &[0]),
        ("log.000003", &third, &[0]),
    ] {
        let whole = disk.content(name);
        for end in ends {
            disk.put(name, &content[..*end]);
            let text = refusal(&disk, &format!("that {name} ends at {end}"));
            assert!(
                text.contains(&format!("{name}: cut off at byte {end}")),
                "{text}"
            );
        }
        disk.put(name, &whole);
    }
    assert_eq!(promised(&disk), 9);
}

/// The first releases did not mark the end of a log.
#[test]
fn a_folder_of_an_earlier_release_opens_and_is_protected_from_then_on() {
    let (disk, log, frames) = log_of_votes();
    let mut identity: serde_json::Value =
        serde_json::from_slice(&disk.content("identity.json")).unwrap();
    let added = identity.as_object_mut().unwrap().remove("logs_end");
    assert_eq!(added, Some(true.into()));
    disk.put("identity.json", identity.to_string().as_bytes());
    disk.put("log.000001", &log[..frames[3]]);
    disk.put("log.000002", &log[frames[3]..]);
    assert_eq!(promised(&disk), 5);
    assert_eq!(promised(&disk), 5);
    disk.put("log.000001", &log[..frames[3]]);
    let text = refusal(&disk, "that the first log lost its end");
    let cut_off = format!("log.000001: cut off at byte {}", frames[3]);
    assert!(text.contains(&cut_off), "{text}");
}

/// A repair of the file system may take a whole file away.
#[test]
fn a_file_that_is_missing_stops_the_start() {
    let (disk, ..) = log_of_votes();
    for _ in 0..2 {
        let opened = open(disk.power_on()).unwrap();
        opened.vote(&key(), prepare(opened.store.promised(&key()).round + 1));
        end(&disk, &opened);
    }
    assert_eq!(
        disk.names(),
        ["identity.json", "log.000001", "log.000002", "log.000003"]
    );
    for missing in ["log.000001", "log.000002"] {
        refused_without(&disk, missing);
    }
    let opened = open(disk.power_on()).unwrap();
    opened.store.snapshot().unwrap();
    opened.vote(&key(), prepare(20));
    opened.store.close();
    disk.kill();
    assert_eq!(
        disk.names(),
        ["identity.json", "log.000005", "snapshot.000005"]
    );
    refused_without(&disk, "snapshot.000005");
    refused_without(&disk, "log.000005");
}

fn refused_without(disk: &FaultyDisk, name: &str) {
    let content = disk.content(name);
    disk.take(name);
    let text = refusal(disk, &format!("that {name} is missing"));
    let helped = text.contains("the file is missing") && text.contains("--rebuild");
    assert!(helped, "without {name}: {text}");
    disk.put(name, &content);
}
