//! `dynamo bench`, `shell`, `status` and `nodes` beside a cluster that runs, as processes: what they
//! print, and how they end.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, Plan, THREE, dynamo, eventually};
use crate::support::process;

/// How a command ended, and what it printed.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        let text = |bytes| String::from_utf8(bytes).expect("it prints text");
        Ended {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

fn run(cluster: &Cluster, arguments: &[&str]) -> Ended {
    run_fed(cluster, arguments, "")
}

/// Runs a command with `input` to read.
fn run_fed(cluster: &Cluster, arguments: &[&str], input: &str) -> Ended {
    process::run(&mut dynamo(arguments, &cluster.file(THREE[0])), input).into()
}

impl Ended {
    /// Asserts that it succeeded and printed no error. Returns its output.
    fn well(&self) -> &str {
        assert_eq!(
            (self.code, self.err.as_str()),
            (Some(0), ""),
            "{}",
            self.out
        );
        &self.out
    }

    /// The only line that starts like this.
    fn line(&self, start: &str) -> &str {
        let lines: Vec<_> = self
            .out
            .lines()
            .filter(|line| line.starts_with(start))
            .collect();
        assert_eq!(lines.len(), 1, "{start:?} in {}", self.out);
        lines[0]
    }
}

/// The numbers of a line such as `reads  p50 1 us, p90 2 us, p99 3 us, p99.9 4 us`.
fn quantiles(line: &str) -> Vec<u64> {
    let (_, times) = line.split_once(' ').unwrap();
    let names = ["p50", "p90", "p99", "p99.9"];
    let parts: Vec<_> = times.trim().split(", ").collect();
    assert_eq!(parts.len(), names.len(), "{line}");
    let number = |(part, name): (&&str, &str)| {
        let number = part.strip_prefix(name)?.strip_suffix(" us")?.trim();
        number.parse().ok()
    };
    let numbers = parts.iter().zip(names).map(number);
    numbers
        .map(|number| number.unwrap_or_else(|| panic!("{line}")))
        .collect()
}

#[test]
fn bench_prints_the_throughput_and_how_long_reads_and_writes_took() {
    let cluster = Cluster::start(&THREE);
    let ended = run(&cluster, &["bench", "--secs", "1", "--keys", "200"]);
    ended.well();
    let count = ended
        .out
        .lines()
        .find(|line| line.contains(" requests in "));
    let words: Vec<_> = count.expect("the throughput").split(' ').collect();
    let (requests, per_second): (u64, u64) = (words[0].parse().unwrap(), words[5].parse().unwrap());
    assert!(requests > 0 && per_second > 0, "{}", ended.out);
    for kind in ["reads ", "writes "] {
        let times = quantiles(ended.line(kind));
        assert!(times.is_sorted() && times[0] > 0, "{times:?}");
    }
    ended.line("   1 s ");
}

#[test]
fn bench_puts_what_it_will_read_and_measures_no_read_that_finds_nothing() {
    let cluster = Cluster::start(&THREE);
    // There are more connections than keys, and then fewer.
    for (keys, connections, value) in [("20", "40", "0"), ("300", "2", "7")] {
        let options = ["bench", "--reads", "100", "--secs", "0.3", "--keys", keys];
        let more = ["--connections", connections, "--value", value, "--keep"];
        let ended = run(&cluster, &[&options[..], &more[..]].concat());
        ended.well();
        ended.line(&format!("put {keys} keys first, in "));
        ended.line("reads ");
        assert!(!ended.out.contains("found no such key"), "{}", ended.out);
        assert!(!ended.out.contains("writes "), "{}", ended.out);
        let pairs = cluster.list(5554, "GET *").unwrap();
        assert_eq!(pairs.len(), keys.parse::<usize>().unwrap());
        let written = "x".repeat(value.parse().unwrap());
        assert_eq!(cluster.get(5556, "bench:0"), Some(written));
    }
}

#[test]
fn bench_keeps_requests_in_flight_and_waits_for_the_reply_to_each() {
    let cluster = Cluster::start(&THREE);
    for value in ["100", "65536"] {
        let options = ["bench", "--secs", "0.3", "--keys", "50", "--value", value];
        let ended = run(&cluster, &[&options[..], &["--ahead", "16"]].concat());
        ended.well();
        for kind in ["reads ", "writes "] {
            assert!(quantiles(ended.line(kind)).is_sorted());
        }
        assert!(!ended.out.contains("before a reply came"), "{}", ended.out);
        assert!(!ended.out.contains("found no such key"), "{}", ended.out);
    }
    let options = ["bench", "--ahead", "16", "--value", "65537"];
    let ended = run(&cluster, &options);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("take fewer or shorter"), "{}", ended.err);
}

#[test]
fn bench_without_keep_leaves_no_key_behind() {
    let cluster = Cluster::start(&THREE);
    cluster.done(5554, "PUT other v");
    for (reads, keys) in [("50", "300"), ("0", "1000000000")] {
        let options = ["bench", "--secs", "0.3", "--reads", reads, "--keys", keys];
        let ended = run(&cluster, &options);
        ended.well();
        assert!(ended.line("deleted ").contains(" keys, in "));
        assert_eq!(cluster.list(5554, "GET *").unwrap().len(), 1, "{reads}");
    }
}

#[test]
fn bench_without_reads_puts_nothing_first_and_goes_on_past_a_node_that_is_down() {
    let cluster = Cluster::start(&THREE);
    cluster.kill(5556);
    let ended = run(&cluster, &["bench", "--reads", "0", "--secs", "0.3"]);
    ended.well();
    assert!(!ended.out.contains("first"), "{}", ended.out);
    quantiles(ended.line("writes "));
}

#[test]
fn bench_without_a_cluster_or_with_senseless_options_fails_and_says_why() {
    let cluster = Plan::of(&THREE).lay_out();
    let ended = run(&cluster, &["bench", "--secs", "0.1"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("is the cluster up?"), "{}", ended.err);
    let senseless = [
        ("--reads", "101", "101 is not in 0..=100"),
        ("--reads", "-1", "invalid digit"),
        ("--keys", "0", "0 is not in 1.."),
        ("--connections", "0", "0 is not in 1..=10000"),
        ("--connections", "10001", "10001 is not in 1..=10000"),
        ("--ahead", "65", "65 is not in 1..=64"),
        ("--value", "1048577", "1048577 is not in 0..=1048576"),
        ("--value", "many", "invalid digit"),
        ("--route", "far", "[possible values: any, coordinator]"),
        ("--secs", "-1", "seconds are a number from 0 to 86400"),
        ("--secs", "1e19", "seconds are a number from 0 to 86400"),
    ];
    for (option, value, complaint) in senseless {
        let ended = run(&cluster, &["bench", option, value]);
        assert_eq!(ended.code, Some(2), "{option} {value}");
        let named = format!("error: invalid value '{value}' for '{option} <");
        assert!(ended.err.starts_with(&named), "{}", ended.err);
        assert!(ended.err.contains(complaint), "{}", ended.err);
        assert_eq!(ended.out, "");
    }
    let ended = run(&cluster, &["bench", "--colour", "red"]);
    assert_eq!(ended.code, Some(2));
    let expected = "error: unexpected argument '--colour' found\n";
    assert!(ended.err.starts_with(expected), "{}", ended.err);
}

#[test]
fn shell_sends_what_it_is_fed_and_prints_every_reply_in_order() {
    let cluster = Cluster::start(&THREE);
    let requests = "PUT k v\n\nGET k\nGET @\nNONSENSE\n";
    let replies = "OK 5556:1\nVALUE 5556:1 v\nPAIR k 5556:1 v\nEND 1\n\
                   ERROR SYNTAX unknown command \"NONSENSE\"; HELP lists the commands\n";
    let ended = run_fed(&cluster, &["shell", "5556"], requests);
    assert_eq!(ended.well(), replies);
    // Without an id the shell talks to the first node. It does not send what follows a QUIT.
    let ended = run_fed(&cluster, &["shell"], "PUT k w\nquit\nPUT k x\n");
    assert_eq!(ended.well(), "OK 5554:1,5556:1\nBYE\n");
    assert_eq!(cluster.get(5558, "k").as_deref(), Some("w"));
}

#[test]
fn shell_with_no_node_to_talk_to_fails_and_says_which() {
    let cluster = Plan::of(&THREE).lay_out();
    let ended = run_fed(&cluster, &["shell", "5556"], "PING\n");
    assert_eq!(ended.code, Some(1));
    let address = cluster.address(5556);
    let expected = format!("dynamo: node 5556 at {address}: ");
    assert!(ended.err.starts_with(&expected), "{}", ended.err);
    assert!(ended.err.ends_with("; is it running?\n"), "{}", ended.err);
    let ended = run_fed(&cluster, &["shell", "5560"], "PING\n");
    assert_eq!(ended.code, Some(2));
    let expected = "error: node 5560 is not in the cluster; its nodes are ";
    assert!(ended.err.starts_with(expected), "{}", ended.err);
    for command in ["shell", "status", "node"] {
        let ended = run(&cluster, &[command, "first"]);
        assert_eq!(ended.code, Some(2), "{command}");
        assert!(ended.err.starts_with("error: invalid value 'first' for '"));
        let expected = ": an id is a number such as 5554\n";
        assert!(ended.err.contains(expected), "{}", ended.err);
    }
}

#[test]
fn shell_does_not_wait_for_a_paused_node_for_long() {
    let plan = Plan::of(&THREE).set("request_deadline_ms", 400);
    let cluster = plan.start();
    cluster.pause(5556);
    let ended = run_fed(&cluster, &["shell", "5556"], "PING\n");
    assert_eq!(ended.code, Some(1));
    let expected = "has not answered for 800ms; is it paused?\n";
    assert!(ended.err.ends_with(expected), "{}", ended.err);
}

#[test]
fn shell_waits_as_long_as_it_takes_until_all_is_deleted() {
    let plan = Plan::of(&THREE).set("request_deadline_ms", 1000);
    let cluster = plan.start();
    let (keys, sync) = (4000, Duration::from_millis(40));
    let puts: String = (0..keys).map(|key| format!("PUT key{key} v\n")).collect();
    let mut client = cluster.client(5554);
    client.send(puts.as_bytes()).unwrap();
    for _ in 0..keys {
        assert!(client.receive().unwrap().starts_with("OK "));
    }
    THREE.iter().for_each(|&id| cluster.slow_disk(id, sync));
    let begun = Instant::now();
    let ended = run_fed(&cluster, &["shell", "5556"], "DEL *\nGET *\n");
    assert_eq!(ended.well(), format!("OK {keys}\nEND 0\n"));
    let patience = Duration::from_secs(2);
    assert!(begun.elapsed() > patience, "the test is about longer waits");
}

#[test]
fn status_shows_a_killed_node_as_down_and_a_paused_one_as_silent_and_waits_in_vain_for_both() {
    let cluster = Cluster::start(&THREE);
    cluster.done(5554, "PUT k v");
    for id in THREE {
        // Two replicas acknowledge the write, and it may reach the third one later.
        eventually(&format!("{id} holds the key"), || {
            (cluster.stat(id, "keys")? == "1").then_some(())
        });
    }
    let all = run(&cluster, &["status", "--wait", "30"]);
    assert_eq!(all.well().lines().count(), 5);
    assert!(
        all.out.starts_with("3 of 3 up, every key has 3 copies\n"),
        "{}",
        all.out
    );
    all.line("node ");
    for id in THREE {
        let line = all.line(&format!("{id} "));
        assert!(
            line.contains(" up   ") && line.contains(" 1 keys, "),
            "{line}"
        );
    }
    cluster.kill(5556);
    let ended = run(&cluster, &["status"]);
    let verdict =
        "2 of 3 up, every key can be read and written; some have only 2 of 3 copies up to date\n";
    assert!(ended.well().starts_with(verdict), "{}", ended.out);
    cluster.pause(5558);
    let ended = run(&cluster, &["status"]);
    let verdict = "1 of 3 up, some keys can be neither read nor written: only 1 of their 3 replicas \
                   vote, and 2 must\n";
    assert!(ended.well().starts_with(verdict), "{}", ended.out);
    for (id, state) in [(5554, "up"), (5556, "down"), (5558, "silent")] {
        let line = ended.line(&format!("{id} "));
        let words: Vec<_> = line.split_whitespace().collect();
        let expected = [&id.to_string(), &cluster.address(id), state];
        assert_eq!(words[..3], expected, "{line}");
    }
    let waited = run(&cluster, &["status", "--wait", "0.1"]);
    assert_eq!(waited.code, Some(1));
    assert_eq!(
        waited.err,
        "dynamo: not all nodes are ready, and none has made progress for 0.1 s\n"
    );
    waited.line("5556 ");
    // Waiting for the node that is well succeeds.
    let one = run(&cluster, &["status", "--wait", "30", "5554"]);
    assert_eq!(one.well().lines().count(), 2);
}

#[test]
fn nodes_prints_a_line_for_each_node_whether_it_runs_or_not() {
    let cluster = Cluster::start(&THREE);
    cluster.kill(5556);
    let port = |address: String| address.rsplit(':').next().unwrap().to_owned();
    let lines = THREE.map(|id| {
        let (client, peer) = (port(cluster.address(id)), port(cluster.peer_address(id)));
        format!("{id} {client} {peer} 127.0.0.1\n")
    });
    assert_eq!(run(&cluster, &["nodes"]).well(), lines.concat());
    let ended = run(&cluster, &["nodes", "5554"]);
    assert_eq!(ended.code, Some(2));
    let expected = "error: unexpected argument '5554' found\n";
    assert!(ended.err.starts_with(expected), "{}", ended.err);
}
