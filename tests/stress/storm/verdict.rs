//! The results of a storm, for people and in files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::availability::{self, Gap};
use super::disk::Stall;
use super::groups::Groups;
use super::nemesis::Event;
use super::{Seen, Storm, picture, reason, shrink};
use crate::support::cluster::FIVE;
use crate::support::history::{self, End, Operation, Reply};
use crate::support::linearizability::{self, check};

/// Steps of the checker's search for one key.
const BUDGET: u64 = 5_000_000;
/// The longest time that a key may be without service while at most one node is out, in milliseconds.
const LONGEST_GAP: u64 = 1_000;

/// What the checker says of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    Linearizable,
    Violation,
    Unknown,
}

/// A key whose history cannot be ordered.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    pub key: String,
    /// In words for people.
    pub why: String,
    /// The smallest piece of the history that cannot be ordered, either.
    pub smallest: Vec<Operation>,
}

/// All results of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub verdict: Judgement,
    pub violation: Option<Violation>,
    /// `None` if the run did not come to its end.
    pub groups: Option<Groups>,
    /// Why the run did not come to its end.
    pub failure: Option<String>,
    pub seed: u64,
    pub nemesis: String,
    pub clients: u32,
    pub keys: u32,
    pub seconds: f64,
    pub ended_well: usize,
    pub outcome_unknown: usize,
    pub certainly_not_done: usize,
    pub acknowledged_writes: usize,
    /// Faults that did something, by kind.
    pub faults: BTreeMap<&'static str, usize>,
    pub faults_fired: usize,
    pub faults_without_effect: usize,
    /// When the machine's disk stood still by itself.
    pub disk_stalls: Vec<Stall>,
    /// How long at most one node was out.
    pub seconds_with_at_most_one_node_out: f64,
    /// For each key the longest time without service meanwhile.
    pub gaps: Vec<Gap>,
    pub longest_gap_ms: u64,
    /// Requests that ended well in each second.
    pub throughput: Vec<u32>,
}

impl Verdict {
    pub fn of(storm: &Storm, seen: &Seen) -> Verdict {
        let (verdict, violation) = judge(&seen.history);
        let stretches = availability::stretches(&seen.events, &seen.stalls, seen.end);
        let during: Vec<Operation> = seen
            .history
            .iter()
            .filter(|o| o.called <= seen.end)
            .cloned()
            .collect();
        let gaps = availability::longest_gaps(&during, &stretches);
        let mut faults = BTreeMap::new();
        for event in seen.events.iter().filter(|event| event.fired) {
            *faults.entry(event.fault.name()).or_default() += 1;
        }
        let fired = faults.values().sum();
        let count = |counts: &dyn Fn(&Operation) -> bool| {
            seen.history
                .iter()
                .filter(|operation| counts(operation))
                .count()
        };
        let calm: u64 = stretches.iter().map(|(from, until)| until - from).sum();
        Verdict {
            verdict,
            violation,
            groups: (!seen.chronicles.is_empty()).then(|| Groups::of(&seen.chronicles)),
            failure: seen.failure.clone(),
            seed: storm.seed,
            nemesis: storm.nemesis.name(),
            clients: storm.clients,
            keys: storm.keys,
            seconds: seen.end as f64 / 1e6,
            ended_well: count(&|operation| operation.returned().is_some()),
            outcome_unknown: count(&|operation| operation.end == End::Unknown),
            certainly_not_done: count(&|operation| operation.end == End::Failed),
            acknowledged_writes: count(&acknowledged),
            faults,
            faults_fired: fired,
            faults_without_effect: seen.events.len() - fired,
            disk_stalls: seen.stalls.clone(),
            seconds_with_at_most_one_node_out: calm as f64 / 1e6,
            longest_gap_ms: gaps.iter().map(Gap::millis).max().unwrap_or(0),
            gaps,
            throughput: availability::throughput(&during, seen.end),
        }
    }

    /// 0: linearizable, and the groups are whole. 1: a violation. 2: the checker's budget did not suffice. 3: the run did
    /// not come to its end, mostly because a node ended by itself. 4: a key was without service
    /// for long although it had to be served.
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Judgement::Violation => 1,
            _ if !self.groups_are_whole() => 1,
            _ if self.failure.is_some() => 3,
            Judgement::Unknown => 2,
            _ if !self.served() => 4,
            Judgement::Linearizable => 0,
        }
    }

    /// The verdict in words for people.
    pub fn word(&self) -> &'static str {
        match self.exit_code() {
            0 => "linearizable",
            1 if self.violation.is_none() => "a group is BROKEN",
            1 => "NOT linearizable",
            2 => "UNKNOWN whether it is linearizable",
            3 => "FAILED: the run did not come to its end, or a node is broken",
            _ => "linearizable, but NOT SERVED",
        }
    }

    fn groups_are_whole(&self) -> bool {
        let breaches = self.groups.iter().flat_map(|groups| &groups.breaches);
        breaches.count() == 0
    }

    fn served(&self) -> bool {
        self.longest_gap_ms <= LONGEST_GAP
    }

    /// Writes all results into a folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, out: &Path, seen: &Seen) -> io::Result<()> {
        fs::write(out.join("history.jsonl"), history::to_lines(&seen.history))?;
        let line = |event: &Event| serde_json::to_string(event).map(|line| line + "\n");
        let events: Result<String, _> = seen.events.iter().map(line).collect();
        fs::write(out.join("faults.jsonl"), events?)?;
        fs::write(
            out.join("groups.json"),
            serde_json::to_string(&seen.chronicles)? + "\n",
        )?;
        let throughput = picture::throughput(&self.throughput, &seen.events, &FIVE);
        fs::write(out.join("throughput.svg"), throughput)?;
        if let Some(violation) = &self.violation {
            violation.draw(&out.join("violation.html"), &seen.history, &seen.events)?;
        }
        fs::write(
            out.join("verdict.json"),
            serde_json::to_string_pretty(self)? + "\n",
        )
    }
}

/// Checks each key, and shrinks the history of the first that cannot be ordered.
pub fn judge(history: &[Operation]) -> (Judgement, Option<Violation>) {
    let keys: BTreeSet<&str> = history
        .iter()
        .map(|operation| operation.key.as_str())
        .collect();
    let mut judgement = Judgement::Linearizable;
    for key in keys {
        let own: Vec<Operation> = history.iter().filter(|o| o.key == key).cloned().collect();
        match check(&own, BUDGET) {
            linearizability::Verdict::Linearizable => {}
            linearizability::Verdict::Unknown => judgement = Judgement::Unknown,
            linearizability::Verdict::Violation(why) => {
                let violation = Violation::of(key, why, &own);
                return (Judgement::Violation, Some(violation));
            }
        }
    }
    (judgement, None)
}

fn acknowledged(operation: &Operation) -> bool {
    let done = |end: &End| {
        matches!(
            end,
            End::Returned {
                reply: Reply::Done { .. },
                ..
            }
        )
    };
    done(&operation.end)
}

impl Violation {
    fn of(key: &str, why: String, history: &[Operation]) -> Violation {
        let smallest = shrink::shrink(history, BUDGET);
        let why = match (reason::reason(&smallest), check(&smallest, BUDGET)) {
            (Some(reason), _) => {
                format!("key {key}: {reason} No order of these operations explains all replies.")
            }
            (None, linearizability::Verdict::Violation(why)) => why,
            (None, _) => why,
        };
        Violation {
            key: key.to_owned(),
            why,
            smallest,
        }
    }

    /// Writes the timeline of the key.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn draw(&self, file: &Path, history: &[Operation], events: &[Event]) -> io::Result<()> {
        let own: Vec<Operation> = history
            .iter()
            .filter(|o| o.key == self.key)
            .cloned()
            .collect();
        let page = picture::timeline(&self.why, &own, &self.smallest, events, &FIVE);
        fs::write(file, page)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "VIOLATION: {}", self.why)?;
        writeln!(
            f,
            "the smallest piece of the history that no order explains:"
        )?;
        f.write_str(&history::print(&self.smallest))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = self.ended_well as f64 / self.seconds;
        writeln!(
            f,
            "{} requests ended well in {:.1} s ({per_second:.0} per second), {} of them \
             acknowledged writes; {} of unknown outcome, {} certainly not done",
            self.ended_well,
            self.seconds,
            self.acknowledged_writes,
            self.outcome_unknown,
            self.certainly_not_done
        )?;
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        let (fired, faults) = (self.faults_fired, faults.join(", "));
        writeln!(
            f,
            "{fired} faults did something: {faults}; {} did not",
            self.faults_without_effect
        )?;
        if !self.disk_stalls.is_empty() {
            let stalls = self
                .disk_stalls
                .iter()
                .map(|stall| stall.ended - stall.began);
            writeln!(
                f,
                "stalls of this machine's own disk: {}, the longest of {} ms",
                self.disk_stalls.len(),
                stalls.max().unwrap_or(0) / 1_000
            )?;
        }
        if let Some(gap) = self.gaps.iter().max_by_key(|gap| gap.until - gap.from) {
            writeln!(
                f,
                "while at most one node was out ({:.1} s), no key was without service for longer \
                 than {} ms ({} at {:.1} s)",
                self.seconds_with_at_most_one_node_out,
                gap.millis(),
                gap.key,
                gap.from as f64 / 1e6
            )?;
        }
        if !self.served() {
            writeln!(f, "NOT SERVED: over {LONGEST_GAP} ms are too long")?;
        }
        if let Some(groups) = &self.groups {
            write!(f, "{groups}")?;
        }
        if let Some(failure) = &self.failure {
            writeln!(f, "FAILURE: {failure}")?;
        }
        match (&self.verdict, &self.violation) {
            (_, Some(violation)) => write!(f, "{violation}")?,
            (Judgement::Unknown, _) => writeln!(f, "the checker's budget did not suffice")?,
            _ => writeln!(
                f,
                "an order explains every reply, those of the final reads through every node included: \
                 no acknowledged write is missing"
            )?,
        }
        writeln!(f, "{}", self.word())
    }
}
