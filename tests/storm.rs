//! The storm finds what is wrong: a bad history and its smallest piece, nodes with a bug, a node that ended by
//! itself, a time without service. It counts only faults that did something.

mod support;

#[path = "stress/storm/mod.rs"]
mod storm;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fastrand::Rng;
use storm::Storm;
use storm::availability::{longest_gaps, stretches, throughput};
use storm::disk::Stall;
use storm::fault::{Fault, Harm};
use storm::nemesis::{Event, Nemesis};
use storm::piece::Piece;
use storm::reason::reason;
use storm::verdict::{Judgement, Verdict, judge};
use support::cluster::{Plan, THREE, eventually};
use support::example::{by_chance, delete, get, missing, put, unknown, write};
use support::folder::temporary;
use support::history::{self, Operation};
use support::linearizability::{self, check};
use support::messenger::judge::Invariant;

const BUDGET: u64 = 1_000_000;

/// A folder for one test.
fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// A thousand operations that are fine, one after the other, from a moment on.
fn fine(from: u64) -> impl Iterator<Item = Operation> {
    (0..250).flat_map(move |number| {
        let (at, value) = (from + 100 * number, (from + number) as u32);
        [
            put(at, at + 10, value),
            get(at + 20, at + 30, value),
            delete(at + 40, at + 50),
            missing(at + 60, at + 70),
        ]
    })
}

#[test]
fn the_smallest_piece_of_a_bad_history_is_found_and_drawn() {
    // Each of these must be found as the smallest piece among operations that are fine.
    let stale = vec![
        put(50_000, 50_010, 1),
        put(50_020, 50_030, 2),
        get(50_040, 50_050, 1),
    ];
    let back_again = vec![
        put(50_000, 50_010, 1),
        delete(50_020, 50_030),
        get(50_040, 50_050, 1),
    ];
    let seen_and_gone = vec![
        put(50_000, 50_010, 1),
        unknown(50_020, write(2)),
        get(50_040, 50_050, 2),
        get(50_060, 50_070, 1),
    ];
    for piece in [stale, back_again, seen_and_gone] {
        let history: Vec<Operation> = fine(1_000)
            .chain(piece.clone())
            .chain(fine(60_000))
            .collect();
        let (judgement, violation) = judge(&history);
        assert_eq!(judgement, Judgement::Violation);
        let violation = violation.expect("the violation is reported");
        let found = history::print(&violation.smallest);
        assert_eq!(found, history::print(&piece));
        let page = folder("violation.html");
        violation.draw(&page, &history, &[]).unwrap();
        let drawn = fs::read_to_string(page).unwrap();
        assert!(drawn.contains(&support::svg::escape(&violation.why)));
        assert!(
            drawn.contains(">links cut</text>"),
            "a legend of the faults"
        );
        for operation in &piece {
            let text = support::svg::escape(&operation.to_string());
            assert!(drawn.matches(&text).count() >= 2, "{text}\n{drawn}");
        }
    }
}

/// The history in a file of `tests/histories/`.
fn on_file(name: &str) -> Vec<Operation> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
    history::from_lines(&fs::read_to_string(root.join(name)).unwrap()).unwrap()
}

#[test]
fn why_a_piece_is_impossible_is_said_in_words() {
    let expected = [
        ("certainly_not_done", "that write is certainly not done"),
        ("created_twice", "2 creations of the key were acknowledged"),
        ("deleted_twice", "2 deletes were acknowledged"),
        (
            "deletion",
            "value had been deleted before that request began",
        ),
        (
            "double_apply",
            "had been overwritten before that request began",
        ),
        ("lost_update", "Two writes replaced the same version"),
        ("lost_write", "old had been overwritten before"),
        (
            "new_old_inversion",
            "old was gone before that request began",
        ),
        ("refusal_that_came_true", "that write was refused"),
        (
            "refusal_without_a_reason",
            "just what it expected was there",
        ),
        ("two_coordinators", "stands for two values"),
        (
            "unknown_chain",
            "one had been replaced before that request began",
        ),
        ("unknown_delete", "value was gone before that request began"),
        ("unknown_outcome_late", "late had been overwritten before"),
        (
            "unknown_outcome_never",
            "old was gone before that request began",
        ),
    ];
    for (name, words) in expected {
        let (_, violation) = judge(&on_file(&format!("bad/{name}.jsonl")));
        let why = violation.expect("it is bad").why;
        assert!(why.contains(words), "{name}: {why}");
        assert_eq!(reason(&on_file(&format!("good/{name}.jsonl"))), None);
    }
    let stale = [
        put(1_000_000, 1_100_000, 7),
        put(1_120_000, 1_150_000, 9),
        get(1_203_000, 1_204_000, 7),
    ];
    assert_eq!(
        reason(&stale).unwrap(),
        "The GET that client 1203000 called at 1.203000 s returned 7 at 1.204000 s. But 7 had been \
         overwritten before that request began: the PUT of 9 that client 1120000 called at \
         1.120000 s was acknowledged at 1.150000 s. It was there before that: the PUT of 7 that \
         client 1000000 called at 1.000000 s was acknowledged at 1.100000 s. A value is written \
         once and cannot come back."
    );
}

#[test]
fn of_a_good_history_no_reason_against_it_is_found() {
    for seed in 0..300 {
        let history = by_chance(seed, 1_000);
        for key in 0..20 {
            let own = history.iter().filter(|o| o.key == key.to_string());
            let own: Vec<Operation> = own.cloned().collect();
            assert_eq!(reason(&own), None, "seed {seed}");
        }
    }
}

#[test]
fn what_may_be_left_out_leaves_a_good_history_good() {
    let mut rng = Rng::with_seed(1);
    let (mut all, mut left) = (0, 0);
    for seed in 0..300 {
        let mut history = by_chance(seed, 1_000);
        history.retain(|operation| operation.key == "3");
        history.sort_by_key(|operation| operation.called);
        for _ in 0..10 {
            let first = rng.usize(..history.len());
            let last = rng.usize(first..history.len());
            let piece = Piece::of(&history).without(first..last);
            let verdict = check(&piece, BUDGET);
            let good = verdict == linearizability::Verdict::Linearizable;
            assert!(good, "{verdict:?}\n{}", history::print(&piece));
            all += last - first;
            left += history.len() - piece.len();
        }
    }
    assert!(left * 2 > all, "only {left} of {all} may be left out");
}

fn event(fault: Fault, began: u64, ended: u64) -> Event {
    Event {
        fault,
        began,
        ended,
        fired: true,
    }
}

#[test]
fn at_most_one_node_is_out_while_all_faults_have_one_in_common() {
    let kill = |node| Fault::Kill { node };
    let cut = |from, to| Fault::Cut { from, to };
    let events = [
        event(kill(1), 10, 20),
        // Another node is out right after it, so there is one at a time.
        event(kill(2), 20, 40),
        event(cut(2, 3), 30, 50),
        event(Fault::Reorder { from: 4, to: 5 }, 30, 35),
        // The link is still cut, and a third node is out.
        event(Fault::Pause { node: 4 }, 45, 60),
        event(Fault::KillAll { slow_disks: true }, 70, 80),
    ];
    let stall = Stall {
        began: 90,
        ended: 95,
    };
    let expected = [(0, 45), (50, 70), (80, 90), (95, 100)];
    assert_eq!(stretches(&events, &[stall], 100), expected);
    assert_eq!(stretches(&[], &[], 100), [(0, 100)]);
}

#[test]
fn a_gap_is_measured_within_a_stretch_from_its_beginning_to_its_end() {
    let served = [get(5, 10, 1), get(15, 19, 1), get(50, 60, 1)];
    let longest = |stretches: &[(u64, u64)]| {
        let gaps = longest_gaps(&served, stretches);
        (gaps[0].from, gaps[0].until)
    };
    // Nobody asked between 19 and 50.
    assert_eq!(longest(&[(0, 90)]), (50, 60));
    assert_eq!(longest(&[(0, 22), (58, 65)]), (5, 10));
    assert_eq!(longest(&[(12, 18), (55, 80)]), (55, 60));
    let mut asked = served.to_vec();
    asked.push(Operation {
        end: support::history::End::Unknown,
        ..get(20, 21, 2)
    });
    let gap = &longest_gaps(&asked, &[(0, 90)])[0];
    assert_eq!((gap.from, gap.until), (20, 60));
    // The second request of a client waits for the reply to its first one.
    let pipelined = [
        get(5, 40, 1),
        Operation {
            key: "other".into(),
            ..get(5, 45, 1)
        },
    ];
    let gaps = longest_gaps(&pipelined, &[(0, 90)]);
    let gap = gaps.iter().find(|gap| gap.key == "other").unwrap();
    assert_eq!((gap.from, gap.until), (40, 45));
    assert_eq!(throughput(&served, 2_500_000), [3, 0, 0]);
}

#[test]
fn a_fault_is_counted_only_if_it_did_something() {
    let cluster = Plan::of(&THREE).proxied().start();
    let (from, to) = (5554, 5556);
    let key = cluster.keys_of(to).next().unwrap();
    let faults = [
        Fault::Cut { from, to },
        Fault::CutBothWays {
            one: from,
            other: to,
        },
        Fault::Isolate { node: from },
        Fault::Delay {
            from,
            to,
            millis: 5,
        },
        Fault::Duplicate { from, to },
        Fault::Reorder { from, to },
        Fault::Straggle {
            node: from,
            millis: 5,
        },
        Fault::SlowDisk {
            node: from,
            millis: 5,
        },
    ];
    for fault in faults {
        let begun = fault.clone().begin(&cluster);
        // Without requests a node may send no message for a while, so the fault may meet none.
        eventually(&format!("{fault:?} is seen"), || {
            cluster.call(to, &format!("PUT {key} value"));
            let befallen = begun.befallen_since(&cluster) > 0;
            befallen.then_some(())
        });
        assert_eq!(begun.end(&cluster), (fault, true));
    }
    let never = Fault::Reorder { from, to };
    assert_eq!(never.clone().begin(&cluster).end(&cluster), (never, false));
}

#[test]
fn a_node_that_lost_its_disk_is_out_until_it_votes_again() {
    let cluster = Plan::of(&THREE).proxied().start();
    let node = 5556;
    let before = cluster.stat(node, "storage");
    let wipe = Fault::Wipe { node };
    assert_eq!(wipe.harm(), Harm::Node(node));
    let begun = wipe.clone().begin(&cluster);
    assert!(!cluster.data(node).exists());
    assert_eq!(begun.end(&cluster), (wipe, true));
    assert_eq!(cluster.stat(node, "votes").as_deref(), Some("yes"));
    assert_ne!(cluster.stat(node, "storage"), before);
}

fn storm(name: &str, seed: u64, nemesis: Nemesis, seconds: u64) -> Storm {
    Storm {
        seed,
        nemesis,
        time: Duration::from_secs(seconds),
        clients: 10,
        keys: 2,
        out: folder(name),
        switches: Vec::new(),
    }
}

fn run(storm: &Storm) -> Verdict {
    let verdict = storm.run(&AtomicBool::new(false)).unwrap();
    let written = fs::read_to_string(storm.out.join("verdict.json")).unwrap();
    let written: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(written["faults_fired"], verdict.faults_fired);
    verdict
}

/// A folder that is removed when its test ends.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether one of five seeds finds a violation when all nodes leave a rule out.
fn is_found(rule: &str, nemesis: Nemesis, seconds: u64) -> bool {
    let out = Temporary(temporary());
    (1..=5).any(|seed| {
        let storm = Storm {
            switches: vec![("DYNAMO_LEAVE_OUT", rule.to_owned())],
            out: out.0.clone(),
            ..storm(rule, seed, nemesis, seconds)
        };
        let verdict = run(&storm);
        let drawn = storm.out.join("violation.html").exists();
        assert_eq!(drawn, verdict.violation.is_some());
        drawn
    })
}

// Two rules are not among these. `WriteBackOnRead` takes longer storms than a test has time for: see
// `report/evaluation.md`. `PromiseDurable` takes more luck than a storm has. To break a promise that was sent
// too early, a replica has to be killed in the few milliseconds before the promise is on the disk, and be back
// while the proposer of a lower ballot still waits for it. A fault that kills all nodes kills the proposers,
// too. `tests/cluster/negative_controls.rs` places each step.

#[test]
fn nodes_that_do_not_go_on_from_the_highest_state_are_found_within_five_seeds() {
    assert!(is_found("HighestAccepted", Nemesis::Straggle, 6));
}

#[test]
fn nodes_that_vote_without_a_copy_after_a_lost_disk_are_found_within_five_seeds() {
    assert!(is_found("LostFolderCopied", Nemesis::Wipe, 4));
}

#[test]
fn nodes_that_send_a_vote_before_it_is_durable_are_found_within_five_seeds() {
    assert!(is_found("AcceptDurable", Nemesis::All, 4));
}

/// What a storm finds wrong with groups whose pushes are late, and some lost, while nodes are killed.
fn breaches_with_bad_pushes(name: &str, more: &[(&'static str, &str)]) -> Vec<Invariant> {
    let switches = [&[("DYNAMO_PUSHES", "10 40")], more].concat();
    let own = |(name, value): (&'static str, &str)| (name, value.to_owned());
    let verdict = run(&Storm {
        switches: switches.into_iter().map(own).collect(),
        ..storm(name, 1, Nemesis::Kill, 4)
    });
    let groups = verdict.groups.as_ref().expect("the run came to its end");
    assert!(groups.messages > 100 && groups.moves > 0, "{groups}");
    let breaches = groups.breaches.iter().map(|(_, breach)| breach.invariant);
    let found: Vec<Invariant> = breaches.collect();
    assert_eq!(verdict.exit_code() == 1, !found.is_empty(), "{verdict}");
    found
}

#[test]
fn messages_that_are_delivered_as_they_come_are_found_and_late_or_lost_pushes_alone_do_no_harm() {
    assert_eq!(breaches_with_bad_pushes("late", &[]), []);
    let without = [("DYNAMO_LEAVE_OUT", "HeldBack")];
    let found = breaches_with_bad_pushes("HeldBack", &without);
    assert!(found.contains(&Invariant::TotalOrder), "{found:?}");
}

#[test]
fn a_node_that_ends_by_itself_is_a_failure_with_the_end_of_its_log() {
    let switches = vec![("DYNAMO_CRASH_AT", "LogSynced:100".to_owned())];
    let verdict = run(&Storm {
        switches,
        ..storm("end", 1, Nemesis::None, 10)
    });
    let failure = verdict.failure.clone().expect("a failure");
    assert!(failure.contains("has ended by itself"), "{failure}");
    assert!(failure.contains("crash point LogSynced"), "{failure}");
    assert_eq!(verdict.exit_code(), 3);
}
