//! The project's own replica, coordinator and origin in a simulated cluster full of faults. What clients
//! see is linearizable, and no invariant breaks. With any one rule left out the simulator must notice:
//! otherwise it would prove nothing.

mod support;

use std::collections::BTreeMap;

use simple_dynamo::protocol::Strategy;
use simple_dynamo::testing::rules::{self, Rule};
use support::history::{End, Operation};
use support::linearizability::Verdict;
use support::simulation::{self, Fault, Report, Sabotage};

/// How many seeds the usual run takes. `DYNAMO_SEEDS` sets another number.
const SEEDS: u64 = 6_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
    )
}

#[test]
fn under_faults_every_history_is_linearizable_and_no_invariant_breaks() {
    let seeds = number("DYNAMO_SEEDS").unwrap_or(SEEDS);
    let mut faults: BTreeMap<Fault, u64> = BTreeMap::new();
    let mut ends = [0u64; 3];
    let (mut dropped, mut epochs, mut returns, mut hung) = (0, 0, 0, 0);
    for seed in 0..seeds {
        let report = simulation::run(seed, Sabotage::Nothing, false);
        assert!(report.is_sound(), "{}", report.describe());
        dropped += report.counts.dropped;
        epochs += report.counts.epochs;
        returns += report.counts.returns;
        hung += report.counts.hung;
        for (fault, times) in report.counts.faults {
            *faults.entry(fault).or_default() += times;
        }
        for Operation { end, .. } in &report.history {
            let kind = match end {
                End::Returned { .. } => 0,
                End::Unknown => 1,
                End::Failed => 2,
            };
            ends[kind] += 1;
        }
    }
    let [returned, unknown, failed] = ends;
    println!(
        "{returned} done, {unknown} unknown, {failed} certainly not done; {faults:?}; {dropped} dropped; \
         {epochs} epochs, {returns} of all replicas; {hung} disks hung"
    );
    // A cluster in which nothing is ever done is linearizable, too.
    assert!(
        returned * 10 > (returned + unknown + failed) * 8,
        "{ends:?}"
    );
    assert!(
        unknown > seeds / 10 && failed > 0,
        "the faults are too tame: {ends:?}"
    );
    assert!(dropped > seeds, "hardly a tombstone was dropped: {dropped}");
    // Half of the runs have chains. An epoch without a replica comes after a failure.
    assert!(
        returns > seeds && epochs - returns > seeds && hung > seeds / 10,
        "{epochs}, {returns}, {hung}"
    );
    for fault in Fault::ALL {
        let times = faults.get(&fault).copied().unwrap_or(0);
        assert!(
            times > seeds / 10,
            "{fault:?} befell hardly anybody: {times}"
        );
    }
}

#[test]
fn a_seed_is_replayed_exactly() {
    for seed in 0..300 {
        let once = simulation::run(seed, Sabotage::Nothing, false);
        let again = simulation::run(seed, Sabotage::Nothing, false);
        assert_eq!(once.history, again.history, "seed {seed}");
        assert_eq!(once.counts, again.counts, "seed {seed}");
    }
}

/// Shows every event of the seed in `DYNAMO_SEED`.
#[test]
fn replay() {
    if let Some(seed) = number("DYNAMO_SEED") {
        let report = simulation::run(seed, Sabotage::Nothing, true);
        println!("{}", report.describe());
        assert!(report.is_sound());
    }
}

/// How a run shows that it is broken.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// The clients' history is not linearizable.
    History,
    /// An invariant inside the cluster is broken.
    Invariant,
}

impl Sign {
    fn shows(self, report: &Report) -> bool {
        match self {
            Sign::History => matches!(report.verdict, Verdict::Violation(_)),
            Sign::Invariant => !report.breaches.is_empty(),
        }
    }
}

/// The first seed that shows this sign, among so many.
fn caught(strategy: Strategy, sabotage: Sabotage, sign: Sign, within: u64) -> Option<u64> {
    let shows = |seed: &u64| sign.shows(&simulation::run_with(strategy, *seed, sabotage, false));
    (0..within).find(shows)
}

fn leave_out_each(strategy: Strategy, table: &[(Rule, Sign, u64)]) {
    for &(rule, sign, within) in table {
        rules::leave_out(Some(rule));
        let seed = caught(strategy, Sabotage::Nothing, sign, within);
        rules::leave_out(None);
        println!("without {rule:?}: {sign:?}, at seed {seed:?} of {within}");
        assert!(
            seed.is_some(),
            "without {rule:?} nothing is noticed in {within} seeds"
        );
    }
}

/// The table says within how many seeds each rule of the register that is left out must be noticed.
#[test]
fn every_rule_left_out_is_noticed() {
    use Sign::{History, Invariant};
    let table = [
        (Rule::StrictPrepare, Invariant, 100),
        (Rule::PromiseKept, History, 250),
        (Rule::PromiseKept, Invariant, 20),
        (Rule::HighestAccepted, History, 50),
        (Rule::HighestAccepted, Invariant, 20),
        (Rule::WriteBackOnRead, History, 3_000),
        (Rule::WriteBackOnRead, Invariant, 200),
        (Rule::DotLookup, History, 50),
        (Rule::DotLookup, Invariant, 50),
        (Rule::RefusalsRecorded, History, 2_500),
        (Rule::RefusalsRecorded, Invariant, 20),
        (Rule::AnswersKept, History, 500),
        (Rule::AnswersKept, Invariant, 20),
        (Rule::MemoryDropped, History, 12_000),
        (Rule::MemoryDropped, Invariant, 50),
        (Rule::RepliesMatched, History, 6_000),
        (Rule::RepliesMatched, Invariant, 500),
        (Rule::TombstoneEverywhere, History, 2_500),
        (Rule::TombstoneEverywhere, Invariant, 200),
        (Rule::DroppedBallotsFenced, History, 250),
        (Rule::DroppedBallotsFenced, Invariant, 20),
        (Rule::DroppedRequestsFenced, History, 200),
        (Rule::DroppedRequestsFenced, Invariant, 20),
        (Rule::LostFolderCopied, History, 2_500),
        (Rule::LostFolderCopied, Invariant, 500),
    ];
    leave_out_each(Strategy::Quorum, &table);
}

/// The same of the rules of a chain, and of those that both strategies have. What needs a rare sequence is in
/// `tests/chains`.
#[test]
fn every_rule_of_a_chain_left_out_is_noticed() {
    use Sign::{History, Invariant};
    let table = [
        (Rule::ReadsConfirmed, History, 3_000),
        (Rule::DurableBeforeRead, Invariant, 20),
        (Rule::AdoptedByAll, History, 200),
        (Rule::AdoptedByAll, Invariant, 20),
        (Rule::HeldByAll, History, 300),
        (Rule::HeldByAll, Invariant, 20),
        (Rule::StatesCollected, History, 200),
        (Rule::StatesCollected, Invariant, 20),
        (Rule::TwoCopies, History, 100),
        (Rule::TwoCopies, Invariant, 20),
        (Rule::EpochChecked, History, 2_000),
        (Rule::EpochChecked, Invariant, 100),
        (Rule::EpochsNamed, History, 1_500),
        (Rule::EpochsNamed, Invariant, 20),
        (Rule::StepsNotReused, Invariant, 20),
        (Rule::StoppedForGood, Invariant, 200),
        (Rule::DotLookup, History, 50),
        (Rule::RefusalsRecorded, History, 1_000),
        (Rule::RefusalsRecorded, Invariant, 20),
        (Rule::AnswersKept, History, 100),
        (Rule::LostFolderCopied, History, 400),
        (Rule::TombstoneEverywhere, Invariant, 100),
        (Rule::DroppedBallotsFenced, Invariant, 50),
        (Rule::DroppedRequestsFenced, History, 200),
        (Rule::DroppedRequestsFenced, Invariant, 50),
    ];
    leave_out_each(Strategy::Chain, &table);
}

/// These are the rules that the shell around the register must keep.
#[test]
fn every_rule_that_the_shell_breaks_is_noticed() {
    use Sign::{History, Invariant};
    let table = [
        (Sabotage::ReplyBeforeSync, History, 2_500),
        (Sabotage::ReplyBeforeSync, Invariant, 20),
        (Sabotage::SloppyQuorum, History, 300),
        (Sabotage::SloppyQuorum, Invariant, 50),
        (Sabotage::NumbersReused, History, 250),
        (Sabotage::FormerLifeHeard, History, 4_000),
        (Sabotage::ForwardedTwice, History, 500),
        (Sabotage::OldVoteSentAlong, History, 1_500),
        (Sabotage::CopiedUnchosen, Invariant, 5_000),
    ];
    for (sabotage, sign, within) in table {
        let seed = caught(Strategy::Quorum, sabotage, sign, within);
        println!("{sabotage:?}: {sign:?}, at seed {seed:?} of {within}");
        assert!(
            seed.is_some(),
            "{sabotage:?} is not noticed in {within} seeds"
        );
    }
}
