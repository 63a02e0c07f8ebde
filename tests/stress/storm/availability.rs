//! Whether the store served clients while it had to.
//!
//! A node that was killed is *out* until it serves clients again, and if its disk was lost until it votes
//! again. A node is also out while it is paused, isolated, or its disk is slow. If a link is cut, late or half
//! open, one of its two nodes counts as out. A node that catches up is not out. While the machine's disk
//! stands still by itself, all nodes are out, since they share it.
//!
//! At most one node is out while all faults of the moment have one node in common. During that time the store
//! must serve every key. A gap is the longest time in which requests for a key waited, and none ended well through
//! any node. It counts from the moment at which at most one node is out, also if requests were sent while more
//! was broken. Nobody misses a key that nobody asks for.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::disk::Stall;
use super::fault::Harm;
use super::nemesis::Event;
use crate::support::history::Operation;

/// A time in which a key was without service. Microseconds of the history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Gap {
    pub key: String,
    pub from: u64,
    pub until: u64,
}

impl Gap {
    pub fn millis(&self) -> u64 {
        (self.until - self.from) / 1_000
    }
}

/// The stretches of time up to `end` in which at most one node was out.
pub fn stretches(events: &[Event], stalls: &[Stall], end: u64) -> Vec<(u64, u64)> {
    let harms: Vec<(u64, u64, Harm)> = events
        .iter()
        .map(|event| (event.began, event.ended, event.fault.harm()))
        .chain(
            stalls
                .iter()
                .map(|stall| (stall.began, stall.ended, Harm::Everybody)),
        )
        .collect();
    let mut moments: Vec<u64> = harms
        .iter()
        .flat_map(|&(began, ended, _)| [began, ended])
        .chain([0, end])
        .filter(|moment| *moment <= end)
        .collect();
    moments.sort_unstable();
    moments.dedup();
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for pair in moments.windows(2) {
        let (from, until) = (pair[0], pair[1]);
        let active = harms
            .iter()
            .filter(|(began, ended, _)| *began < until && *ended > from);
        if !at_most_one_is_out(active.map(|(_, _, harm)| *harm)) {
            continue;
        }
        match stretches.last_mut() {
            Some(last) if last.1 == from => last.1 = until,
            _ => stretches.push((from, until)),
        }
    }
    stretches
}

fn at_most_one_is_out(harms: impl Iterator<Item = Harm>) -> bool {
    // The nodes that could be the one that is out.
    let mut suspects: Option<Vec<u32>> = None;
    for harm in harms {
        let among = match harm {
            Harm::Nobody => continue,
            Harm::Node(node) => vec![node],
            Harm::Link(one, other) => vec![one, other],
            Harm::Everybody => return false,
        };
        let both = |before: Vec<u32>| before.into_iter().filter(|n| among.contains(n)).collect();
        suspects = Some(match suspects {
            Some(before) => both(before),
            None => among.clone(),
        });
    }
    suspects.is_none_or(|suspects| !suspects.is_empty())
}

/// The longest gap of each key within these stretches.
pub fn longest_gaps(history: &[Operation], stretches: &[(u64, u64)]) -> Vec<Gap> {
    let mut by_call: Vec<&Operation> = history.iter().collect();
    by_call.sort_by_key(|operation| (operation.called, operation.returned()));
    let mut by_client: BTreeMap<u32, Vec<&Operation>> = BTreeMap::new();
    for operation in by_call {
        by_client
            .entry(operation.client)
            .or_default()
            .push(operation);
    }
    let mut served: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut waits: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for own in by_client.values() {
        let mut last_reply = 0;
        for (place, operation) in own.iter().enumerate() {
            let (key, called) = (operation.key.as_str(), operation.called);
            let mut later = own[place..].iter().map(|later| later.called);
            // What did not end well has ended when the client asks again.
            let asks_again = later.find(|later| *later > called);
            let ended = operation.returned().or(asks_again).unwrap_or(u64::MAX);
            // Replies come in order, so a request first waits for those before it on its connection.
            let wait = (called.max(last_reply), ended);
            waits.entry(key).or_default().push(wait);
            served.entry(key).or_default().extend(operation.returned());
            last_reply = last_reply.max(operation.returned().unwrap_or(0));
        }
    }
    served
        .into_iter()
        .filter_map(|(key, mut moments)| {
            moments.sort_unstable();
            let gaps = stretches
                .iter()
                .flat_map(|stretch| gaps(&moments, *stretch));
            let (from, until) = longest_wait(gaps.collect(), &waits[key])?;
            let key = key.to_owned();
            Some(Gap { key, from, until })
        })
        .collect()
}

/// The longest of these times that begins while somebody waits.
fn longest_wait(mut times: Vec<(u64, u64)>, waits: &[(u64, u64)]) -> Option<(u64, u64)> {
    times.sort_by_key(|(from, until)| Reverse(until - from));
    let mut longest: Option<(u64, u64)> = None;
    for (from, until) in times {
        if longest.is_some_and(|(from_then, until_then)| until_then - from_then >= until - from) {
            break; // The others are shorter still.
        }
        let waiting = waits
            .iter()
            .filter(|(called, ended)| *called < until && *ended > from);
        let Some(first) = waiting.map(|(called, _)| from.max(*called)).min() else {
            continue;
        };
        let is_longer = |(from, then): (u64, u64)| until - first > then - from;
        if longest.is_none_or(is_longer) {
            longest = Some((first, until));
        }
    }
    longest
}

/// The times between the moments of a stretch, its ends included.
fn gaps(moments: &[u64], (from, until): (u64, u64)) -> Vec<(u64, u64)> {
    let first = moments.partition_point(|moment| *moment <= from);
    let last = moments.partition_point(|moment| *moment < until);
    let inside = &moments[first..last.max(first)];
    let starts = [from].into_iter().chain(inside.iter().copied());
    let ends = inside.iter().copied().chain([until]);
    starts.zip(ends).collect()
}

/// How many requests ended well in each second.
pub fn throughput(history: &[Operation], end: u64) -> Vec<u32> {
    let mut seconds = vec![0; end.div_ceil(1_000_000) as usize];
    for returned in history.iter().filter_map(Operation::returned) {
        if let Some(count) = seconds.get_mut((returned / 1_000_000) as usize) {
            *count += 1;
        }
    }
    seconds
}
