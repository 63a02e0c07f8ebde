//! What the storm did to the groups.

use std::fmt;

use serde::Serialize;

use crate::support::messenger::chronicle::{Chronicle, End, Said};
use crate::support::messenger::judge::{Breach, judge};

/// How many breaches are printed.
const PRINTED: usize = 5;

/// What the clients of all groups saw, in numbers, and what is wrong with it.
#[derive(Clone, Debug, Serialize)]
pub struct Groups {
    pub groups: usize,
    pub messages: u64,
    pub acknowledged: usize,
    pub outcome_unknown: usize,
    pub certainly_not_done: usize,
    pub members: usize,
    /// How often a member went on at another node, or at the same one after it had failed.
    pub moves: usize,
    /// How long after the faults the last member had been shown everything, in milliseconds. `None` if one was not.
    pub settled: Option<u64>,
    /// Each with its group.
    pub breaches: Vec<(String, Breach)>,
}

impl Groups {
    pub fn of(chronicles: &[Chronicle]) -> Groups {
        let said = chronicles.iter().flat_map(|own| &own.streams);
        let said: Vec<&Said> = said.flat_map(|stream| &stream.said).collect();
        let count = |is: fn(End) -> bool| said.iter().filter(|said| is(said.end)).count();
        let members = chronicles.iter().flat_map(|own| &own.members);
        let moves = |stays: usize| stays.saturating_sub(1);
        let settled: Option<Vec<u64>> = chronicles.iter().map(|own| own.settled).collect();
        let breaches = chronicles.iter().flat_map(|own| {
            let breaches = judge(own).into_iter();
            breaches.map(|breach| (own.group.clone(), breach))
        });
        Groups {
            groups: chronicles.len(),
            messages: chronicles.iter().map(|own| own.end).sum(),
            acknowledged: count(|end| matches!(end, End::Done(_))),
            outcome_unknown: count(|end| end == End::Unknown),
            certainly_not_done: count(|end| end == End::NotDone),
            members: members.clone().count(),
            moves: members.map(|member| moves(member.stays.len())).sum(),
            settled: settled.and_then(|all| all.into_iter().max()),
            breaches: breaches.collect(),
        }
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} groups: {} messages, {} of them acknowledged; {} of unknown outcome, {} certainly not done; {} members \
             that moved {} times",
            self.groups,
            self.messages,
            self.acknowledged,
            self.outcome_unknown,
            self.certainly_not_done,
            self.members,
            self.moves
        )?;
        match self.settled {
            Some(millis) if self.breaches.is_empty() => writeln!(
                f,
                ", were shown every message once and in order, and had all of them {millis} ms after the faults"
            )?,
            _ => writeln!(f)?,
        }
        for (group, breach) in self.breaches.iter().take(PRINTED) {
            writeln!(f, "VIOLATION in group {group}: {breach}")?;
        }
        let more = self.breaches.len().saturating_sub(PRINTED);
        match more {
            0 => Ok(()),
            more => writeln!(f, "and {more} more, all in verdict.json"),
        }
    }
}
