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
use simple_dynamo::testing::rules::Rule;
use support::options::read;

/// Grades nodes that leave a rule out, up to the phase in which points must be lost.
fn without(rule: Rule, phase: usize) -> Report {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("grade-{rule:?}"));
    fs::create_dir_all(&folder).unwrap();
    let name = format!("{rule:?}");
    let switches = [("DYNAMO_LEAVE_OUT", name.as_str())];
    let report = grader::grade(1, &switches, phase, &folder, |phase| println!("{phase}"));
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
    let report = without(Rule::EveryReplicaAsked, 1);
    let lost = lost(&report);
    assert!(lost.contains(&"replication"), "{lost:?}");
}

#[test]
fn writers_of_one_key_that_overtake_each_other_cost_points_of_the_third_phase() {
    let report = without(Rule::OneWriteInFlight, 3);
    let lost = lost(&report);
    assert!(lost.contains(&"insert"), "{lost:?}");
}

#[test]
fn a_node_that_returns_and_copies_nothing_costs_points_of_the_fourth_phase() {
    let report = without(Rule::MissedWritesPulled, 4);
    let lost = lost(&report);
    assert!(lost.contains(&"the node that was down"), "{lost:?}");
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
