//! The project's own groups in a simulated cluster: change functions, gathering, delivery, reading and the
//! client's rule, with small limits so that all are met. With any one rule left out the simulation must
//! notice.
//!
//! The register is taken as given, since `simulator.rs` tests it: a change takes effect at one moment, at most
//! once, perhaps long after its origin gave it up, but never after a later one of its origin and key.
//! Nodes crash, pause and lose replies, pushes are lost, doubled and reordered, and clients move and send again.

#![cfg(debug_assertions)]

mod clients;
mod judge;
mod world;

use simple_dynamo::testing::rules::{self, Rule};
use world::{Counts, Sabotage, World};

/// How many seeds the usual run takes. `DYNAMO_SEEDS` sets another number.
const SEEDS: u64 = 3_000;

fn run(seed: u64, sabotage: Sabotage) -> (Vec<String>, Counts) {
    let mut world = World::new(seed, sabotage);
    world.run();
    world.judge();
    (world.breaches, world.counts)
}

#[test]
fn under_faults_every_message_has_one_number_and_nothing_is_lost_doubled_or_out_of_order() {
    let seeds = std::env::var("DYNAMO_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let mut sum = Counts::default();
    for seed in 0..seeds {
        let (breaches, counts) = run(seed, Sabotage::Nothing);
        assert!(breaches.is_empty(), "seed {seed}: {breaches:#?}");
        sum.add(&counts);
    }
    println!("{sum:?}");
    // A run in which none of this happens proves nothing.
    let Counts {
        messages,
        missed,
        retries,
        partly,
        absorbed,
        full,
        gone,
        doubled,
    } = sum;
    for (what, times) in [
        ("messages", messages / 10),
        ("missed", missed),
        ("retries", retries),
        ("partly", partly),
        ("absorbed", absorbed),
        ("full", full),
        ("gone", gone),
        ("doubled", doubled),
    ] {
        assert!(times > seeds / 20, "{what} hardly happened: {sum:?}");
    }
}

/// The table says within how many seeds each rule that is left out must be noticed.
#[test]
fn every_rule_of_groups_left_out_is_noticed() {
    let rules = [
        (Rule::AnswersKept, 200),
        (Rule::SendersKnown, 200),
        (Rule::GapsRefused, 200),
        (Rule::FullRefused, 200),
        (Rule::HorizonChecked, 500),
        (Rule::GapIsNotGone, 500),
        (Rule::PagesGoForward, 3_000),
        (Rule::HeldBack, 200),
    ];
    for (rule, within) in rules {
        rules::leave_out(Some(rule));
        let found = noticed(Sabotage::Nothing, within);
        rules::leave_out(None);
        println!("without {rule:?}: {found:?} of {within}");
        assert!(
            found.is_some(),
            "without {rule:?} nothing is noticed in {within} seeds"
        );
    }
    let sabotages = [
        (Sabotage::NoHealing, 200),
        (Sabotage::PushedEarly, 200),
        (Sabotage::CutBeforeStored, 500),
        (Sabotage::ShownRenewed, 3_000),
        (Sabotage::PlainOverNodes, 500),
    ];
    for (sabotage, within) in sabotages {
        let found = noticed(sabotage, within);
        println!("{sabotage:?}: {found:?} of {within}");
        assert!(
            found.is_some(),
            "{sabotage:?} is not noticed in {within} seeds"
        );
    }
}

/// A client that claims to have been shown messages that do not exist harms nobody, because it is refused.
#[test]
fn a_client_that_lies_about_what_it_was_shown_is_refused() {
    for seed in 0..500 {
        let (breaches, _) = run(seed, Sabotage::Liar);
        assert!(breaches.is_empty(), "seed {seed}: {breaches:#?}");
    }
    rules::leave_out(Some(Rule::SinceChecked));
    let found = noticed(Sabotage::Liar, 500);
    rules::leave_out(None);
    assert!(found.is_some(), "without SinceChecked nothing is noticed");
}

/// The first seed that shows a breach, and what it is.
fn noticed(sabotage: Sabotage, within: u64) -> Option<(u64, String)> {
    (0..within).find_map(|seed| {
        let panicked = std::panic::catch_unwind(|| run(seed, sabotage));
        let breaches = panicked.map_or_else(|_| vec!["panic".to_owned()], |(breaches, _)| breaches);
        Some((seed, breaches.into_iter().next()?))
    })
}
