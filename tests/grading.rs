//! The grading can fail: with a rule left out, points are lost in the phase that needs the rule, and in no
//! earlier phase.
#![cfg(debug_assertions)]

#[path = "grade/grader/mod.rs"]
mod grader;
mod support;

use std::fs;
use std::path::Path;

use clap::Parser;
use grader::score::Report;
use grader::{MESSENGER, Plan, STORE};
use simple_dynamo::testing::rules::Rule;
use support::options::read;

/// Grades nodes with these switches.
fn grade(name: &str, plans: &[Plan], switches: &[(&str, &str)]) -> Report {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("grade-{name}"));
    fs::create_dir_all(&folder).unwrap();
    grader::grade(plans, 1, switches, &folder, |phase| println!("{phase}"))
}

/// Grades nodes that leave a rule out, and have other switches. Points must be lost in the last of these phases,
/// and in no earlier one.
fn without(rule: Rule, plans: &[Plan], others: &[(&str, &str)]) -> Report {
    let name = format!("{rule:?}");
    let switches = [&[("DYNAMO_LEAVE_OUT", name.as_str())], others].concat();
    let report = grade(&name, plans, &switches);
    let (last, earlier) = report.phases.split_last().unwrap();
    for phase in earlier {
        assert_eq!(phase.earned, phase.points, "without {rule:?}: {phase}");
    }
    assert!(last.earned < last.points, "without {rule:?}: {last}");
    assert!(!report.is_full());
    report
}

/// The first words of the checks that were lost in the last phase.
fn lost(report: &Report) -> Vec<&str> {
    let last = report.phases.last().unwrap();
    let lost = last.checks.iter().filter(|check| check.lost.is_some());
    lost.map(|check| check.name.split(':').next().unwrap())
        .collect()
}

#[test]
fn writes_that_reach_only_two_replicas_cost_points_of_the_first_phase() {
    let report = without(Rule::EveryReplicaAsked, &STORE[..1], &[]);
    let lost = lost(&report);
    assert!(lost.contains(&"replication"), "{lost:?}");
}

#[test]
fn writers_of_one_key_that_overtake_each_other_cost_points_of_the_third_phase() {
    let report = without(Rule::OneWriteInFlight, &STORE[..3], &[]);
    let lost = lost(&report);
    assert!(lost.contains(&"insert"), "{lost:?}");
}

#[test]
fn a_node_that_returns_and_copies_nothing_costs_points_of_the_fourth_phase() {
    let report = without(Rule::MissedWritesPulled, &STORE[..4], &[]);
    let lost = lost(&report);
    assert!(lost.contains(&"the node that was down"), "{lost:?}");
}

/// One push in five is lost, and the others and the replies of coordinators are late.
const BAD_NETWORK: [(&str, &str); 2] = [("DYNAMO_PUSHES", "20 40"), ("DYNAMO_REPLIES", "0 30")];

#[test]
fn a_messenger_whose_pushes_are_lost_or_late_and_whose_replies_are_late_gets_all_points() {
    let report = grade("messenger", &MESSENGER, &BAD_NETWORK);
    assert!(report.is_full());
    assert_eq!(report.points, 10.0);
}

// Pushes that are late overtake each other.
#[test]
fn messages_that_are_delivered_as_they_come_cost_points_of_the_order() {
    let report = without(
        Rule::HeldBack,
        &MESSENGER[..1],
        &[("DYNAMO_PUSHES", "0 40")],
    );
    let lost = lost(&report);
    assert!(lost.contains(&"total order"), "{lost:?}");
}

// A push that is lost leaves a gap. The node would read the group to fill it.
#[test]
fn lost_pushes_that_nobody_makes_good_cost_points_of_the_first_phase() {
    let report = without(Rule::Healed, &MESSENGER[..1], &[("DYNAMO_PUSHES", "20 0")]);
    let lost = lost(&report);
    assert!(lost.contains(&"no stall"), "{lost:?}");
}

// A node that is killed has not told its senders of messages that are in the group, and they send them again.
#[test]
fn messages_that_are_doubled_by_a_retry_cost_points_of_the_second_phase() {
    let report = without(
        Rule::SendersKnown,
        &MESSENGER,
        &[("DYNAMO_REPLIES", "0 30")],
    );
    let lost = lost(&report);
    assert!(lost.contains(&"once"), "{lost:?}");
}

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[test]
fn a_program_among_the_tests_stays_idle_when_cargo_looks_for_tests_by_their_names() {
    let seed = |words: &[&str]| {
        let words = [&["grade"], words].concat();
        let options: Result<Option<Options>, _> = read(words);
        options.map(|options| options.map(|options| options.seed))
    };
    assert_eq!(seed(&["--nocapture"]).unwrap(), Some(1));
    assert_eq!(seed(&["--seed", "2", "--seed", "3"]).unwrap(), Some(3));
    assert_eq!(seed(&["some_test"]).unwrap(), None);
    assert_eq!(seed(&["some_test", "--exact"]).unwrap(), None);
    let several = ["--nocapture", "some_test", "other", "--test-threads=1"];
    assert_eq!(seed(&several).unwrap(), None);
    assert!(seed(&["--exact"]).is_err());
}
