//! The invariants of the cluster, which must hold at every moment, whatever clients happen to see. They have
//! the numbers of `src/protocol/mod.rs`.
//!
//! They are checked from outside of the code: on the disks and on the messages.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::chain;
use simple_dynamo::protocol::chain::epoch::{Adopted, Epoch};
use simple_dynamo::protocol::ring::{NodeId, Position, Ring};
use simple_dynamo::protocol::version::Dot;
use simple_dynamo::protocol::{
    Accepted, Answer, Ballot, Outcome, Record, State, Verdict, VoteReply, VoteRequest,
};

use super::machine::QUORUMS;
use super::store::Change;

/// How many breaches are noted. The first ones are enough to find the cause.
const MOST_BREACHES: usize = 5;

pub struct Invariants {
    ring: Arc<Ring>,
    pub breaches: Vec<String>,
    /// What each replica has revealed of a key: the highest promise and the highest accepted ballot.
    revealed: HashMap<(NodeId, Key), (Ballot, Ballot)>,
    /// The highest tombstone that each replica has dropped.
    dropped: HashMap<(NodeId, Key), Ballot>,
    proposed: HashMap<(Key, Ballot), Arc<State>>,
    /// Which replicas have promised a ballot.
    granted: HashSet<(NodeId, Key, Ballot)>,
    acceptors: HashMap<(Key, Ballot), HashSet<NodeId>>,
    /// What nodes had accepted before they lost their disks, and whether the other members of the chain held it, too,
    /// before anything was copied.
    forgotten: HashMap<(NodeId, (Key, Ballot)), bool>,
    /// The states of each key that were chosen, in the order of the ballots.
    chosen: HashMap<Key, BTreeMap<Ballot, Arc<State>>>,
    /// The members of each epoch of a range.
    epochs: HashMap<(usize, Epoch), Vec<NodeId>>,
    /// The epoch that each node serves of a range, and all that any node has ever served.
    serving: HashMap<(NodeId, usize), Epoch>,
    served: HashSet<(NodeId, usize, Epoch)>,
}

impl Invariants {
    pub fn new(ring: Arc<Ring>) -> Invariants {
        Invariants {
            ring,
            breaches: Vec::new(),
            revealed: HashMap::new(),
            dropped: HashMap::new(),
            proposed: HashMap::new(),
            granted: HashSet::new(),
            acceptors: HashMap::new(),
            forgotten: HashMap::new(),
            chosen: HashMap::new(),
            epochs: HashMap::new(),
            serving: HashMap::new(),
            served: HashSet::new(),
        }
    }

    /// 2 of a chain: an epoch has one list of members, of two at least.
    pub fn proposed(&mut self, range: usize, adopted: &Adopted) {
        let (epoch, members) = (adopted.epoch, &adopted.members);
        let before = self.epochs.entry((range, epoch));
        let before = before.or_insert_with(|| members.clone());
        let same = before == members && members.len() >= QUORUMS.write;
        self.must(same, || {
            format!("2: epoch {epoch} of range {range} has the members {members:?}")
        });
    }

    /// 1 of a chain: the epoch that a replica says that it serves is on its disk.
    pub fn told(&mut self, node: NodeId, answer: &chain::Answer, disk: Epoch) {
        if let chain::Answer::Status(status) = answer {
            let epoch = status.adopted.epoch;
            self.must(!status.serves || epoch <= disk, || {
                format!("1: {node} says that it serves epoch {epoch}, and its disk has {disk}")
            });
        }
    }

    /// 10 of a chain: no replica serves an epoch twice.
    pub fn serves(&mut self, node: NodeId, range: usize, epoch: Option<Epoch>) {
        let Some(epoch) = epoch else {
            self.serving.remove(&(node, range));
            return;
        };
        let began = self.serving.insert((node, range), epoch) != Some(epoch);
        let again = began && !self.served.insert((node, range, epoch));
        self.must(!again, || {
            format!("10: {node} serves epoch {epoch} of range {range} again")
        });
    }

    /// A node has crashed.
    pub fn serves_nothing(&mut self, node: NodeId) {
        self.serving.retain(|place, _| place.0 != node);
    }

    pub fn must(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds && self.breaches.len() < MOST_BREACHES {
            self.breaches.push(text());
        }
    }

    /// 2: one state per key and ballot.
    pub fn asked(&mut self, key: &Key, request: &VoteRequest) {
        if let VoteRequest::Accept(accepted) = request {
            let place = (key.clone(), accepted.ballot);
            let before = self.proposed.entry(place).or_insert(accepted.state.clone());
            let same = *before == accepted.state;
            self.must(same, || {
                format!("2: {key}: two states at {}", accepted.ballot)
            });
            let chosen = self.chosen.get(key).and_then(|chosen| {
                let (ballot, state) = chosen.range(..accepted.ballot).next_back()?;
                Some((*ballot, state.clone()))
            });
            if let Some((ballot, state)) = chosen {
                self.goes_on_from(key, (ballot, &state), (accepted.ballot, &accepted.state));
            }
        }
    }

    /// 3: nothing is revealed before it is durable. 7: only the key's replicas vote.
    pub fn replied(
        &mut self,
        node: NodeId,
        key: &Key,
        (request, reply): (&VoteRequest, &VoteReply),
        disk: &Record,
    ) {
        let (promised, accepted) = match (request, reply) {
            (VoteRequest::Prepare(ballot), VoteReply::Promised(promise)) => {
                // 6: a ballot is promised once, so that no two proposals have it. (A proposer that has
                // forgotten a ballot may ask for it again, and must not get it.)
                let fresh = self.granted.insert((node, key.clone(), *ballot));
                self.must(fresh, || {
                    format!("6: {key}: {node} promises {ballot} again")
                });
                (*ballot, promise.accepted.as_ref().map(|own| own.ballot))
            }
            (VoteRequest::Accept(taken), VoteReply::Taken) => (taken.ballot, Some(taken.ballot)),
            (_, VoteReply::Rejected(promised)) => (*promised, None),
            (_, VoteReply::Seen(seen)) => (seen.ballot, Some(seen.ballot)),
            _ => return self.must(false, || format!("{reply:?} is no answer to {request:?}")),
        };
        let accepted = accepted.unwrap_or(Ballot::ZERO);
        let is_durable = promised <= disk.promised && accepted <= self.kept(node, key, disk);
        self.must(is_durable, || {
            format!("3: {key}: {node} replies {reply:?} and its disk has {disk:?}")
        });
        let is_replica = self.ring.preference_list(key).contains(&node);
        self.must(is_replica, || {
            format!("7: {key}: {node} votes and is no replica")
        });
        let revealed = self
            .revealed
            .entry((node, key.clone()))
            .or_insert((Ballot::ZERO, Ballot::ZERO));
        *revealed = (revealed.0.max(promised), revealed.1.max(accepted));
    }

    /// The highest accepted ballot of a disk, what has been dropped from it included.
    fn kept(&self, node: NodeId, key: &Key, disk: &Record) -> Ballot {
        let dropped = self.dropped.get(&(node, key.clone())).copied();
        disk.accepted_ballot().max(dropped.unwrap_or_default())
    }

    /// 1: no ballot on a disk ever decreases, and the promise is the higher of the two.
    pub fn durable(&mut self, node: NodeId, change: &Change) {
        let Change {
            key,
            before,
            after,
            dropped,
            epoch,
        } = change;
        if let Some(dropped) = dropped {
            let place = (node, key.clone());
            let highest = self.dropped.entry(place).or_default();
            *highest = (*highest).max(*dropped);
        }
        let grows = before.promised <= after.promised
            && before.accepted_ballot() <= self.kept(node, key, after)
            && after.accepted_ballot() <= after.promised;
        self.must(grows, || {
            format!("1: {key}: {node} went from {before:?} to {after:?}")
        });
        if let Some(accepted) = &after.accepted {
            self.accepted(node, key, accepted, *epoch);
        }
    }

    /// 1, over a restart: the disk has all that the node ever revealed.
    pub fn restarted(&mut self, node: NodeId, disk: impl Fn(&Key) -> Record) {
        let revealed: Vec<_> = self
            .revealed
            .iter()
            .filter(|(place, _)| place.0 == node)
            .map(|(place, ballots)| (place.1.clone(), *ballots))
            .collect();
        for (key, (promised, accepted)) in revealed {
            let record = disk(&key);
            let kept = promised <= record.promised && accepted <= self.kept(node, &key, &record);
            self.must(kept, || {
                format!("1: {key}: {node} had revealed {promised} and {accepted}, and forgot it")
            });
        }
    }

    /// The node has lost its disk, so nothing that it revealed binds it any more.
    pub fn forget_promises(&mut self, node: NodeId) {
        self.revealed.retain(|place, _| place.0 != node);
        self.dropped.retain(|place, _| place.0 != node);
        self.granted.retain(|grant| grant.0 != node);
    }

    /// The other nodes know of the loss, so nobody counts what the node had accepted before.
    ///
    /// In a chain a state may have passed the node before the loss. `held` is what another node holds now.
    pub fn forget_accepts(&mut self, node: NodeId, held: impl Fn(NodeId, &Key) -> Ballot) {
        for (place, acceptors) in &mut self.acceptors {
            if !acceptors.remove(&node) {
                continue;
            }
            let (key, ballot) = place;
            let range = self.ring.range_at(Position::of_key(key));
            let members = self.epochs.get(&(range, epoch_of(*ballot)));
            let others = members.into_iter().flatten().filter(|it| **it != node);
            let has_it = |other: &NodeId| {
                let own = held(*other, key);
                own >= *ballot && epoch_of(own) == epoch_of(*ballot)
            };
            let together = others.copied().all(|other| has_it(&other));
            self.forgotten.insert((node, place.clone()), together);
        }
    }

    fn accepted(&mut self, node: NodeId, key: &Key, accepted: &Accepted, epoch: Epoch) {
        if epoch != Epoch::default() && epoch != epoch_of(accepted.ballot) {
            return; // It was moved or pulled, and counts once an epoch begins with it.
        }
        let place = (key.clone(), accepted.ballot);
        let acceptors = self.acceptors.entry(place).or_default();
        acceptors.insert(node);
        let range = self.ring.range_at(Position::of_key(key));
        let Some(members) = self.epochs.get(&(range, epoch_of(accepted.ballot))) else {
            if acceptors.len() >= QUORUMS.write {
                self.choose(key, accepted);
            }
            return;
        };
        // In a chain a state is chosen once it or a later one of its epoch has passed every member, and two hold it.
        let first = Ballot {
            step: 0,
            ..accepted.ballot
        };
        let steps = first..=accepted.ballot;
        let has = |ballot: Ballot, nodes: &dyn Fn(&(Key, Ballot)) -> bool| {
            let last = Ballot {
                step: u64::MAX,
                ..ballot
            };
            let places = self.acceptors.keys();
            let mut later = places.filter(|(own, it)| own == key && (ballot..=last).contains(it));
            later.any(nodes)
        };
        let holds =
            |ballot, member: NodeId| has(ballot, &|place| self.acceptors[place].contains(&member));
        let forgot = |ballot, member: NodeId, only_together: bool| {
            has(ballot, &|place| {
                let own = self.forgotten.get(&(member, place.clone()));
                own.is_some_and(|together| *together || !only_together)
            })
        };
        let held = |ballot: Ballot| {
            let holders = members.iter().filter(|member| holds(ballot, **member));
            let two = holders.count() >= QUORUMS.write;
            let all = |member: &NodeId| holds(ballot, *member) || forgot(ballot, *member, !two);
            members.iter().all(all)
        };
        let chosen: Vec<Accepted> = self
            .proposed
            .iter()
            .filter(|((own, ballot), _)| own == key && steps.contains(ballot))
            .filter(|((_, ballot), _)| held(*ballot))
            .map(|((_, ballot), state)| Accepted {
                ballot: *ballot,
                state: state.clone(),
            })
            .collect();
        for accepted in chosen {
            self.choose(key, &accepted);
        }
    }

    /// A state is chosen: from now on it is part of whatever the key holds.
    pub fn choose(&mut self, key: &Key, accepted: &Accepted) {
        let chosen = self.chosen.entry(key.clone()).or_default();
        if chosen
            .insert(accepted.ballot, accepted.state.clone())
            .is_some()
        {
            return;
        }
        if let Some(broken) = compare_neighbours(chosen, accepted) {
            self.must(false, || format!("{key}: {broken}"));
        }
        let higher: Vec<_> = self
            .proposed
            .iter()
            .filter(|(place, _)| place.0 == *key && place.1 > accepted.ballot)
            .map(|(place, state)| (place.1, state.clone()))
            .collect();
        for (ballot, state) in higher {
            self.goes_on_from(key, (accepted.ballot, &accepted.state), (ballot, &state));
        }
    }

    /// 9: whatever is proposed above a chosen ballot knows of what was chosen.
    fn goes_on_from(&mut self, key: &Key, chosen: (Ballot, &State), proposed: (Ballot, &State)) {
        let knows = proposed.1.decided().dominates(&chosen.1.decided());
        self.must(knows, || {
            format!("9: {key}: {chosen:?} is chosen, and {proposed:?} was proposed without it")
        });
    }

    /// 8: no success without enough accepts at one ballot.
    pub fn answered(&mut self, key: &Key, dot: Option<Dot>, outcome: &Outcome) {
        let chosen = self.chosen.get(key);
        let among = |found: &dyn Fn(&State) -> bool| {
            chosen.is_some_and(|chosen| chosen.values().any(|state| found(state)))
        };
        let sequence = dot.map_or(0, |dot| dot.sequence);
        let is_chosen = match (outcome, dot) {
            (Outcome::Found { value, version }, _) => {
                among(&|state| state.value.as_ref() == Some(value) && state.clock == *version)
            }
            (Outcome::Decided(Verdict::Applied(_)), Some(dot)) => {
                among(&|state| state.clock.get(dot.origin) == sequence)
            }
            (Outcome::Decided(Verdict::Answered(answer)), Some(dot)) => among(&|state| {
                let kept = state.answers.get(&dot.origin);
                kept.is_some_and(|(own, kept)| *own == sequence && kept == answer)
            }),
            (Outcome::Decided(Verdict::Refused(_) | Verdict::RefusedBefore), Some(dot)) => {
                among(&|state| state.refusals.get(dot.origin) == sequence)
            }
            _ => true,
        };
        self.must(is_chosen, || {
            format!("8: {key}: {outcome:?} of {dot:?} was never chosen")
        });
    }
}

/// 4: the clock of a chosen state dominates that of the one before, strictly where the value changed. After a
/// tombstone, which may have been dropped, the state's decided requests include all those before. 5: no dot is
/// absorbed twice. 10: an answer is kept until the next one of its origin.
fn compare_neighbours(
    chosen: &BTreeMap<Ballot, Arc<State>>,
    accepted: &Accepted,
) -> Option<String> {
    let before = chosen.range(..accepted.ballot).next_back();
    let after = chosen.range(accepted.ballot..).nth(1);
    let own = (&accepted.ballot, &accepted.state);
    for (older, newer) in before
        .zip(Some(own))
        .into_iter()
        .chain(Some(own).zip(after))
    {
        let is_new_life = older.1.value.is_none();
        let grows = newer.1.decided().dominates(&older.1.decided())
            && (is_new_life || newer.1.clock.dominates(&older.1.clock))
            && (newer.1.value == older.1.value || newer.1.clock != older.1.clock);
        if !grows {
            return Some(format!("4: chosen {older:?}, and then {newer:?}"));
        }
        let keeps = |(origin, own): (&NodeId, &(u64, Answer))| {
            newer.1.answers.get(origin) == Some(own)
                || newer.1.decided_of(*origin) > own.0
                || newer.1.floor.get(*origin) >= own.0
        };
        if !older.1.answers.iter().all(keeps) {
            return Some(format!("10: an answer in {older:?} is not in {newer:?}"));
        }
    }
    let mut writers: Vec<Dot> = chosen.values().filter_map(|state| state.last).collect();
    writers.dedup();
    let runs = writers.len();
    let distinct: HashSet<Dot> = writers.into_iter().collect();
    (distinct.len() != runs).then(|| format!("5: a dot is absorbed twice, at {}", own.0))
}

/// The epoch that a ballot of a chain belongs to.
fn epoch_of(ballot: Ballot) -> Epoch {
    Epoch {
        round: ballot.round,
        node: ballot.node,
    }
}
