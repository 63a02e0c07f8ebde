//! Lists the pairs that this node holds (`GET @`), and all pairs in the system (`GET *`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::Node;
use super::drive::await_outcome;
use crate::bytes::{Key, Value};
use crate::error::Failure;
use crate::protocol::group::is_of_group;
use crate::protocol::ring::NodeId;
use crate::protocol::version::VectorClock;
use crate::protocol::{Accepted, Ballot, Outcome, Record, Why};
use crate::storage::{Page, Scan};
use crate::transport;
use crate::transport::link::Answer;
use crate::transport::{Reply, Request};

/// How many records are taken from this node's store at a time.
const OWN_PAGE: usize = 500;
/// How long to wait before the replicas of a range are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// A key with its value and the version of that value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    pub key: Key,
    pub version: VectorClock,
    pub value: Value,
}

/// Receives the pairs of a listing, without those of groups. An error ends the listing.
pub type Emit<'a> = &'a mut dyn FnMut(Pair) -> Result<(), Failure>;

impl Node {
    /// Hands out the pairs that this node holds, in the order of the keys.
    ///
    /// Each range is compared with other replicas first, so that the listing contains all that was chosen
    /// before it began. It may also contain a write that is under way and not chosen yet.
    ///
    /// # Errors
    /// `UNAVAILABLE` if a range cannot be compared with enough replicas within the request deadline, or if
    /// this node's disk takes longer than that.
    pub fn list_own(&self, emit: Emit) -> Result<(), Failure> {
        if !self.votes() {
            return Err(Failure::Unavailable(format!(
                "node {} {}",
                self.id,
                Why::Recovering.text()
            )));
        }
        let deadline = self.config.request_deadline();
        let missing = if self.strategy.chain().is_some() {
            self.ranges_not_current(deadline)
        } else {
            let suspects = || self.peers.suspects();
            self.anti_entropy.compare_all_within(deadline, suspects)
        };
        if !missing.is_empty() {
            return Err(Failure::Unavailable(format!(
                "node {} may lack writes: it could not compare {} of its {} ranges with other \
                 replicas in time; try again, or see RING and STATS",
                self.id,
                missing.len(),
                self.ring.ranges_of(self.id).len()
            )));
        }
        let slow_disk = || {
            let text = format!("the disk of node {} does not keep up", self.id);
            Failure::Unavailable(text)
        };
        let mut last = None;
        loop {
            if !self.store.pages_may_wait() {
                return Err(slow_disk());
            }
            let page = self.store.page(last.as_ref(), OWN_PAGE);
            let page = page.recv_timeout(deadline).map_err(|_| slow_disk())?;
            let Some((key, _)) = page.last() else {
                return Ok(());
            };
            last = Some(key.clone());
            let listed = page.into_iter().filter(|(key, _)| !is_of_group(key));
            for (key, record) in listed {
                if let Some(pair) = pair(key, record.accepted.as_ref()) {
                    emit(pair)?;
                }
            }
        }
    }

    /// Hands out every pair in the system once, range by range. Each pair is as fresh as a read of its key.
    ///
    /// # Errors
    /// `UNAVAILABLE` if too few replicas of a range answer within the request deadline.
    pub fn list_all(self: &Arc<Node>, emit: Emit) -> Result<(), Failure> {
        for range in 0..self.ring.members().len() {
            let mut after = None;
            loop {
                let (pages, needed) = if self.strategy.chain().is_some() {
                    (vec![self.page_of_tail(range, after.as_ref())?], 1)
                } else {
                    let needed = self.config.quorums().agreeing();
                    (self.scan_replicas(range, after.as_ref())?, needed)
                };
                let next = pages.iter().filter_map(|page| page.next.clone()).min();
                self.merge(&pages, needed, next.as_ref(), emit)?;
                match next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// One page of a range from each of enough replicas for a read. While too few answer, all are asked
    /// again: one that has just returned may not be connected yet.
    fn scan_replicas(&self, range: usize, after: Option<&Key>) -> Result<Vec<Page>, Failure> {
        let needed = self.config.quorums().agreeing();
        let until = Instant::now() + self.config.request_deadline();
        let mut most = 0;
        loop {
            let lost_folders = self.introductions.lost_folders();
            let mut pages = self.ask_for_pages(range, after, until);
            if self.introductions.lost_folders() != lost_folders {
                // A replica lost its folder meanwhile. Its page may show what it has forgotten, and
                // another page what was written since. The two never held these at the same time.
                pages.clear();
            }
            if pages.len() >= needed {
                return Ok(pages);
            }
            // The last attempt leaves hardly any time for an answer, so it may not be the best one.
            most = most.max(pages.len());
            if Instant::now() >= until || self.ending() {
                let replicas = self.ring.replicas_of_range(range);
                let ids: Vec<_> = replicas.iter().map(NodeId::to_string).collect();
                return Err(Failure::Unavailable(format!(
                    "only {most} of the {needed} replicas needed of {}'s range answered; its replicas are {}",
                    replicas[0],
                    ids.join(", ")
                )));
            }
            self.pause(ASK_AGAIN);
        }
    }

    /// One page of a range from each replica that answers by then.
    fn ask_for_pages(&self, range: usize, after: Option<&Key>, until: Instant) -> Vec<Page> {
        let replicas = self.ring.replicas_of_range(range);
        let scan = Scan {
            range,
            buckets: None,
            after: after.cloned(),
            states: true,
            within: None,
        };
        let (sender, answers) = bounded(replicas.len());
        transport::batch(|| {
            for replica in replicas {
                let sender = sender.clone();
                if *replica == self.id && self.votes() && self.store.pages_may_wait() {
                    self.store
                        .scan(&scan, move |page| drop(sender.send(Some(page))));
                } else if let Some(link) = self.peers.get(*replica) {
                    link.ask(Request::Scan(scan.clone()), move |answer| {
                        let page = match answer {
                            Answer::Reply(Reply::Page(page)) => Some(page),
                            _ => None,
                        };
                        drop(sender.send(page));
                    });
                }
            }
        });
        drop(sender);
        let needed = self.config.quorums().agreeing();
        let mut pages = Vec::new();
        // The deadline is needed because this node's own disk may hang.
        while let Ok(answer) = answers.recv_deadline(until) {
            pages.extend(answer);
            let missing = replicas.len() - pages.len();
            let suspects = self.peers.suspects();
            let silent = replicas.iter().filter(|it| suspects.contains(it)).count();
            if pages.len() >= needed && missing <= silent {
                break;
            }
        }
        pages
    }

    /// Hands out the pairs up to the key `last`. A key on which enough replicas agree is taken from the pages,
    /// and any other is read.
    fn merge(
        self: &Arc<Node>,
        pages: &[Page],
        needed: usize,
        last: Option<&Key>,
        emit: Emit,
    ) -> Result<(), Failure> {
        let mut keys: BTreeMap<&Key, BTreeMap<Ballot, (usize, Option<&Record>)>> = BTreeMap::new();
        for entry in pages.iter().flat_map(|page| &page.entries) {
            if last.is_none_or(|last| entry.key <= *last) && !is_of_group(&entry.key) {
                let votes = keys.entry(&entry.key).or_default();
                let vote = votes.entry(entry.accepted);
                vote.or_insert((0, entry.record.as_ref())).0 += 1;
            }
        }
        for (key, votes) in keys {
            let agreed = votes.into_values().find(|(count, _)| *count >= needed);
            let found = match agreed {
                Some((_, record)) => pair(key.clone(), record.and_then(|r| r.accepted.as_ref())),
                None => self.read(key)?,
            };
            found.map_or(Ok(()), &mut *emit)?;
        }
        Ok(())
    }

    /// Reads one key and waits for the result.
    fn read(self: &Arc<Node>, key: &Key) -> Result<Option<Pair>, Failure> {
        match await_outcome(&self.begin(key.clone(), None))? {
            Outcome::Found { value, version } => Ok(Some(Pair {
                key: key.clone(),
                version,
                value,
            })),
            _ => Ok(None),
        }
    }
}

fn pair(key: Key, accepted: Option<&Accepted>) -> Option<Pair> {
    let state = &accepted?.state;
    Some(Pair {
        key,
        version: state.clock.clone(),
        value: state.value.clone()?,
    })
}
