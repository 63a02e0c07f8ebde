//! Golden traces: the messages of the register in each hazard of `report/hazards.md`, with the rule against
//! it left out and with the rule in force, and the messages of one write and of one read.
//!
//! The code of `src/protocol/` runs, and a script delivers its messages. A test fails when the text is
//! not that of the file in this folder. `UPDATE_TRACES=1 cargo test --test traces` rewrites the files.

mod cluster;
mod diagram;
mod shell;
mod wording;

use std::fs;
use std::path::PathBuf;

use cluster::{A, B, C, Cluster, M, N};
use simple_dynamo::protocol::Change;
use simple_dynamo::testing::rules::{self, Rule};

const EVERY_TRACE: &str = "\
The test tests/traces/main.rs makes this text with the code of src/protocol/, and fails when the code says
anything else. To rewrite it: UPDATE_TRACES=1 cargo test --test traces

A, B and C are the replicas of x, and A is its coordinator: the nodes 5562, 5556 and 5554 of the assignment.
M and N are the other two, 5558 and 5560. A line is a message. A ballot is (round, node, step). The version
C:1,M:2 has absorbed the write 1 that came through C, and the write 2 that came through M.
";

/// Fails unless the file holds just this text. Writes the file first if `UPDATE_TRACES` is set.
fn expect(file: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let path = path.join(file);
    if std::env::var_os("UPDATE_TRACES").is_some() {
        fs::write(&path, text).expect("the trace is written");
    }
    let expected = fs::read_to_string(&path).expect("a trace in tests/traces");
    for (number, (line, expected)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(
            line,
            expected,
            "{file}:{}: if that is meant: UPDATE_TRACES=1 cargo test --test traces",
            number + 1
        );
    }
    assert_eq!(
        text.len(),
        expected.len(),
        "{file} is longer or shorter than the trace"
    );
}

/// The trace of a hazard: what happens without the rule, and with it. The line `harm` must be in the first
/// part and not in the second.
fn hazard(file: &str, title: &str, rule: Rule, harm: &str, script: fn() -> Vec<String>) {
    let trace = || wording::in_letters(&script().join("\n"));
    rules::leave_out(Some(rule));
    let without = trace();
    rules::leave_out(None);
    let with = trace();
    let text = format!(
        "{title}\n\n{EVERY_TRACE}\n\n\
         == Without the rule {rule:?} ==\n\n{without}\n\n\n\
         == With the rule {rule:?} ==\n\n{with}\n"
    );
    expect(file, &text);
    let has_harm = |trace: &str| trace.lines().any(|line| line == harm);
    assert!(has_harm(&without), "without {rule:?} no harm is done");
    assert!(!has_harm(&with), "with {rule:?} the harm is still done");
}

/// The trace of a request in which nothing goes wrong. A page of the report must show its diagram.
fn request(file: &str, page: &str, title: &str, columns: &[&str], lines: &[String]) {
    let diagram = diagram::draw(columns, &wording::in_letters(&lines.join("\n")));
    expect(file, &format!("{title}\n\n{EVERY_TRACE}\n{diagram}"));
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(page);
    let shown = fs::read_to_string(&path).expect("a page of the report");
    for line in diagram.lines().filter(|line| line.contains('|')) {
        let message = format!("{page} should show all of {file}: {line}");
        assert!(shown.contains(line), "{message}");
    }
}

fn put(value: &str) -> Option<Change> {
    Some(Change::Put(value.into()))
}

fn compare_and_set(expected: Option<&str>, value: &str) -> Option<Change> {
    let expected = expected.map(|version| wording::in_numbers(version).parse().expect("a version"));
    Some(Change::CompareAndSet {
        expected,
        value: value.into(),
    })
}

#[test]
fn the_trace_of_a_new_old_inversion_is_this_text() {
    hazard(
        "new-old-inversion.txt",
        "A new-old inversion: hazard 1 of report/hazards.md.",
        Rule::WriteBackOnRead,
        "N -> reader 2: VALUE C:1 0",
        || {
            let mut cluster = Cluster::holding("0");
            cluster.say("A write reaches one replica of three.");
            cluster.submit("client 1", M, put("1"));
            cluster.deliver_until("A -> A: accept");
            cluster.lose(A, B);
            cluster.lose(A, C);
            cluster.settle();
            cluster.stores();
            cluster.say("Reader 1 meets the write. C does not hear of the read.");
            cluster.submit("reader 1", M, None);
            cluster.deliver_until("A -> A: read");
            cluster.lose(A, C);
            cluster.settle();
            cluster.suspect(&[A], C);
            cluster.deliver_until_answered("reader 1");
            cluster.stores();
            cluster.say("A is cut off. Reader 2 comes after reader 1 has its answer.");
            cluster.pause(A);
            cluster.suspect(&[B, N], A);
            cluster.request("reader 2", N, None);
            cluster.stores();
            cluster.end()
        },
    );
}

#[test]
fn the_trace_of_a_double_apply_is_this_text() {
    hazard(
        "double-apply.txt",
        "A double apply: hazard 2 of report/hazards.md.",
        Rule::DotLookup,
        "N -> reader 2: VALUE C:1,M:1,N:1 1",
        || {
            let mut cluster = Cluster::holding("0");
            cluster.say("A has the write stored on A and C, and falls silent before it answers.");
            cluster.submit("client 1", M, put("1"));
            cluster.deliver_until("A -> A: accept");
            cluster.lose(A, B);
            cluster.deliver_until("A -> A: taken");
            cluster.pause(A);
            cluster.stores();
            cluster.say("Client 2 writes through B.");
            cluster.suspect(&[B, N], A);
            cluster.request("client 2", N, put("2"));
            cluster.stores();
            cluster.request("reader 1", N, None);
            cluster.say("M has waited for 100 ms, and sends the same write to B.");
            cluster.suspect(&[M], A);
            cluster.settle();
            cluster.stores();
            cluster.request("reader 2", N, None);
            cluster.end()
        },
    );
}

#[test]
fn the_trace_of_a_lost_update_is_this_text() {
    hazard(
        "lost-update.txt",
        "A lost update by two coordinators: hazard 3 of report/hazards.md.",
        Rule::PromiseKept,
        "M -> client 1: OK C:1,M:1",
        || {
            let mut cluster = Cluster::holding("old");
            cluster.say("A looks at the version, and is paused before its write arrives anywhere.");
            cluster.submit("client 1", M, compare_and_set(Some("C:1"), "a"));
            cluster.deliver_until("A -> A: accept");
            cluster.pause(A);
            cluster.stores();
            cluster.say("Client 2 replaces the same version, through B.");
            cluster.suspect(&[B, N], A);
            cluster.request("client 2", N, compare_and_set(Some("C:1"), "b"));
            cluster.stores();
            cluster.say("A goes on.");
            cluster.resume(A);
            cluster.settle();
            cluster.stores();
            cluster.request("reader 1", N, None);
            cluster.end()
        },
    );
}

#[test]
fn the_trace_of_a_refusal_that_came_true_is_this_text() {
    hazard(
        "refusal-come-true.txt",
        "A refusal that came true: hazard 4 of report/hazards.md.",
        Rule::RefusalsRecorded,
        "N -> reader 1: VALUE C:1,M:1,N:1 new",
        || {
            let mut cluster = Cluster::holding("old");
            cluster.say("The request of client 1 is held up on its way to A.");
            cluster.hold_up(M, A);
            cluster.submit("client 1", M, compare_and_set(None, "new"));
            cluster.say("M has waited for 100 ms, and sends the same request to B.");
            cluster.suspect(&[M, N], A);
            cluster.settle();
            cluster.stores();
            cluster.say("Client 2 deletes x, through B.");
            cluster.request("client 2", N, Some(Change::Delete));
            cluster.stores();
            cluster.say("The first copy arrives at A.");
            cluster.release(M, A);
            cluster.settle();
            cluster.stores();
            cluster.request("reader 1", N, None);
            cluster.end()
        },
    );
}

#[test]
fn the_trace_of_a_write_is_this_text() {
    let mut cluster = Cluster::holding("0");
    cluster.say("The first write since A has started: A remembers nothing of x, and prepares.");
    cluster.request("client", A, put("1"));
    cluster.stores();
    cluster.say("The next write: A remembers what was chosen last, and does not prepare.");
    cluster.request("client", A, put("2"));
    cluster.stores();
    request(
        "one-write.txt",
        "report/follow-a-write.md",
        "Two writes through the coordinator itself: see report/follow-a-write.md.",
        &["client", "A", "B", "C"],
        &cluster.end(),
    );
}

#[test]
fn the_trace_of_a_read_is_this_text() {
    let mut cluster = Cluster::holding("0");
    cluster.say("The client asks the coordinator.");
    cluster.request("client", A, None);
    cluster.say("The client asks another replica, which sends its vote along.");
    cluster.request("client", B, None);
    cluster.say("The client asks a node that does not hold the key.");
    cluster.request("client", M, None);
    request(
        "one-read.txt",
        "report/follow-a-read.md",
        "Three reads: see report/follow-a-read.md.",
        &["client", "M", "A", "B", "C"],
        &cluster.end(),
    );
}
