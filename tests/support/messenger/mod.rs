//! Clients of groups: some speak, others are members and are shown what is said. All of them go on at other nodes
//! when theirs fails. What they saw is a [chronicle] that is [judged](judge).

pub mod chronicle;
mod connection;
pub mod judge;
mod listening;
mod seat;
mod speaking;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, eventually};
use super::waiting::SURELY;
use super::workload::StopWhenDone;
use chronicle::{Chronicle, Listing, Shown};
use connection::Connection;
use seat::Seat;

/// How long a listing may take, or a `SAY`: as long as any request.
const PATIENCE: Duration = super::asking::DEADLINE;
/// At most so many messages are listed in the end: older pages may be overwritten.
const LISTED: u64 = 30_000;
/// How many messages `HISTORY` tells at most.
const AT_A_TIME: usize = 1000;

/// The clients of some groups: in each group the same number, which begin at these nodes.
pub struct Conversation<'a> {
    pub cluster: &'a Cluster,
    pub groups: &'a [&'a str],
    /// Those that `SEND`, so that nothing is lost or doubled.
    pub senders: &'a [u32],
    /// Those that `SAY`.
    pub sayers: &'a [u32],
    pub members: &'a [u32],
    /// The longest pause of a speaker between two messages.
    pub think: Duration,
    pub seed: u64,
}

/// What the clients share.
#[derive(Default)]
struct Board {
    /// Whether nobody says anything new.
    silent: AtomicBool,
    /// Whether all clients end.
    over: AtomicBool,
    acknowledged: AtomicUsize,
}

/// How far the speakers are. Whoever injects faults meanwhile looks at this.
pub struct Talk<'a>(&'a Board);

impl Talk<'_> {
    /// Waits until so many more messages have been acknowledged.
    pub fn await_more(&self, count: usize) {
        let acknowledged = || self.0.acknowledged.load(Ordering::Relaxed);
        let goal = acknowledged() + count;
        eventually("speakers are answered", || {
            (acknowledged() >= goal).then_some(())
        });
    }
}

impl Conversation<'_> {
    /// Lets the clients speak and listen until `meanwhile` returns. Then waits until everybody has spoken and been
    /// shown everything, and lists the groups at every node.
    ///
    /// # Errors
    /// That of `meanwhile`. Then nothing is waited for.
    pub fn run<E>(
        &self,
        meanwhile: impl FnOnce(&Talk) -> Result<(), E>,
    ) -> Result<Vec<Chronicle>, E> {
        let board = Board::default();
        let group = |name| {
            (
                name,
                self.members.iter().map(|_| AtomicU64::new(0)).collect(),
            )
        };
        let groups: Vec<(&str, Vec<AtomicU64>)> = self.groups.iter().copied().map(group).collect();
        thread::scope(|scope| {
            let _ends = [StopWhenDone(&board.silent), StopWhenDone(&board.over)];
            let (mut members, mut speakers) = (Vec::new(), Vec::new());
            for (number, (group, shown)) in groups.iter().enumerate() {
                let seat = |home: &u32, name: String| Seat::new(self, &board, group, *home, name);
                for (count, (home, shown)) in self.members.iter().zip(shown).enumerate() {
                    let seat = seat(home, format!("member{count}"));
                    members.push((number, scope.spawn(|| listening::run(seat, shown))));
                }
                for (count, home) in self.senders.iter().enumerate() {
                    let seat = seat(home, format!("sender{count}"));
                    speakers.push((number, scope.spawn(|| speaking::send(seat))));
                }
                for (count, home) in self.sayers.iter().enumerate() {
                    let seat = seat(home, format!("sayer{count}"));
                    speakers.push((number, scope.spawn(|| speaking::say(seat))));
                }
            }
            meanwhile(&Talk(&board))?;
            board.silent.store(true, Ordering::Relaxed);
            let mut chronicles: Vec<Chronicle> =
                groups.iter().map(|(name, _)| empty(name)).collect();
            for (number, speaker) in speakers {
                let streams = speaker.join().expect("no speaker panics");
                chronicles[number].streams.extend(streams);
            }
            for (chronicle, (_, shown)) in chronicles.iter_mut().zip(&groups) {
                self.settle(chronicle, shown);
            }
            board.over.store(true, Ordering::Relaxed);
            for (number, member) in members {
                let member = member.join().expect("no member panics");
                chronicles[number].members.push(member);
            }
            Ok(chronicles)
        })
    }

    /// Waits until all members have been shown the last message, and lists the group.
    fn settle(&self, chronicle: &mut Chronicle, shown: &[AtomicU64]) {
        let began = Instant::now();
        let first = self.members.first().expect("there are members");
        let last = self.list(
            *first,
            &format!("HISTORY {} COUNT 1", chronicle.group),
            &chronicle.group,
        );
        chronicle.end = last.last().map_or(0, Shown::last);
        let all = || {
            let own = shown.iter().map(|shown| shown.load(Ordering::Relaxed));
            own.min() >= Some(chronicle.end)
        };
        while chronicle.settled.is_none() && began.elapsed() < SURELY {
            thread::sleep(Duration::from_millis(5));
            chronicle.settled = all().then(|| began.elapsed().as_millis() as u64);
        }
        chronicle.listings = self
            .cluster
            .ids()
            .map(|node| self.history(node, chronicle))
            .collect();
    }

    fn history(&self, node: u32, chronicle: &Chronicle) -> Listing {
        let after = chronicle.end.saturating_sub(LISTED);
        let mut shown: Vec<Shown> = Vec::new();
        loop {
            let at = shown.last().map_or(after, Shown::last);
            if at >= chronicle.end {
                return Listing { node, after, shown };
            }
            let request = format!("HISTORY {} AFTER {at} COUNT {AT_A_TIME}", chronicle.group);
            let more = self.list(node, &request, &chronicle.group);
            if more.last().is_none_or(|last| last.last() <= at) {
                shown.extend(more);
                return Listing { node, after, shown };
            }
            shown.extend(more);
        }
    }

    /// The messages that a node lists. Nothing is broken any more, so it does so soon.
    fn list(&self, node: u32, request: &str, group: &str) -> Vec<Shown> {
        let address = self.cluster.address(node);
        eventually(&format!("node {node} answers {request}"), || {
            let mut connection = Connection::open(&address, "lister").ok()?;
            let (lines, end) = connection.list(request, PATIENCE).ok()?;
            let understood = lines.iter().map(|line| Shown::parse(line, group)).collect();
            end.starts_with("END ").then_some(understood).flatten()
        })
    }
}

fn empty(group: &str) -> Chronicle {
    Chronicle {
        group: group.to_owned(),
        streams: Vec::new(),
        members: Vec::new(),
        listings: Vec::new(),
        end: 0,
        settled: None,
    }
}
