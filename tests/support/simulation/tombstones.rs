//! How tombstones are dropped. This plays the thread that drops them, event by event.

use std::collections::HashMap;

use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::chain::Replica;
use simple_dynamo::protocol::ring::Position;
use simple_dynamo::protocol::{Accepted, Ballot, Strategy, tombstones};

use super::machine::Condition;
use super::network::{Body, Envelope};
use super::plan::pick;
use super::world::{Event, World};

/// The tombstones that a node asks the other replicas about.
#[derive(Default)]
pub struct Inquiries {
    /// Which inquiry each question belongs to.
    questions: HashMap<u64, u64>,
    open: HashMap<u64, Inquiry>,
}

struct Inquiry {
    key: Key,
    ballot: Ballot,
    others: Vec<usize>,
    answers: Vec<bool>,
}

impl Inquiries {
    /// Counts the answer to a question, once. Returns the inquiry if this was its last answer.
    fn answer(&mut self, question: u64, held: bool) -> Option<Inquiry> {
        let number = self.questions.remove(&question)?;
        let inquiry = self.open.get_mut(&number)?;
        inquiry.answers.push(held);
        if inquiry.answers.len() < inquiry.others.len() {
            return None;
        }
        self.open.remove(&number)
    }
}

impl World {
    /// Some node looks for a tombstone. Schedules the next look.
    pub(super) fn look_for_tombstones(&mut self) {
        let next = self.rng.u64(..=2 * self.plan.looking);
        self.schedule(next, Event::LookForTombstones);
        let key = pick(&mut self.rng, &self.plan.keys).clone();
        let replicas = self.ring.preference_list(&key);
        let id = *pick(&mut self.rng, replicas);
        let others: Vec<usize> = (0..self.machines.len())
            .filter(|place| self.machines[*place].id != id)
            .filter(|place| replicas.contains(&self.machines[*place].id))
            .collect();
        let Some(node) = self.machines.iter().position(|machine| machine.id == id) else {
            return;
        };
        if self.machines[node].condition == Condition::Up
            && self.machines[node].copying.is_none()
            && let Some(record) = self.machines[node].store.without_value(&key)
        {
            let is_chain = self.plan.strategy == Strategy::Chain;
            let range = self.ring.range_at(Position::of_key(&key));
            let epoch = self.machines[node].chain.whole_epoch(range);
            match record.accepted {
                Some(_) if is_chain && epoch.is_none() => {}
                Some(tombstone) => self.inquire(node, others, &key, &tombstone),
                None => self.drop_tombstone(node, &key, Ballot::ZERO),
            }
        }
    }

    fn inquire(&mut self, node: usize, others: Vec<usize>, key: &Key, tombstone: &Accepted) {
        let number = self.number();
        let range = self.ring.range_at(Position::of_key(key));
        let epoch = self.machines[node].chain.whole_epoch(range);
        for &other in &others {
            let ask = self.number();
            let machine = &mut self.machines[node];
            machine.inquiries.questions.insert(ask, number);
            let body = Body::Tombstone {
                ask,
                life: machine.life,
                key: key.clone(),
                tombstone: tombstone.clone(),
                epoch,
            };
            self.send(Envelope {
                from: node,
                to: other,
                to_life: None,
                body,
            });
        }
        let inquiry = Inquiry {
            key: key.clone(),
            ballot: tombstone.ballot,
            others,
            answers: Vec::new(),
        };
        self.machines[node].inquiries.open.insert(number, inquiry);
    }

    pub(super) fn asked_for_tombstone(&mut self, envelope: Envelope) {
        let Envelope { from, to: node, .. } = envelope;
        let Body::Tombstone {
            ask,
            life,
            key,
            tombstone,
            epoch,
        } = envelope.body
        else {
            return;
        };
        let range = self.ring.range_at(Position::of_key(&key));
        let chain = &self.machines[node].chain;
        let serves = epoch.is_none_or(|epoch| chain.whole_epoch(range) == Some(epoch));
        let held = serves && self.machines[node].store.holds_tombstone(&key, &tombstone);
        let answer = Envelope {
            from: node,
            to: from,
            to_life: Some(life),
            body: Body::Held { ask, held },
        };
        if self.machines[node].store.is_durable(&key) {
            self.send(answer);
        } else {
            self.machines[node].store.hold(&key, answer);
        }
    }

    pub(super) fn tombstone_answered(&mut self, node: usize, ask: u64, held: bool) {
        let Some(inquiry) = self.machines[node].inquiries.answer(ask, held) else {
            return;
        };
        if !tombstones::may_drop(&inquiry.answers) {
            return;
        }
        self.check_drop(&inquiry);
        self.drop_tombstone(node, &inquiry.key, inquiry.ballot);
        // In a chain the others drop only what is dropped durably here.
        let after = match self.plan.strategy {
            Strategy::Quorum => 0,
            Strategy::Chain => self.machines[node].store.written(),
        };
        for other in inquiry.others {
            let body = Body::Drop {
                key: inquiry.key.clone(),
                ballot: inquiry.ballot,
            };
            self.send_after(node, other, None, after, body);
        }
    }

    /// A tombstone is dropped once nobody holds anything older, but for who is about to copy everything.
    fn check_drop(&mut self, inquiry: &Inquiry) {
        for &other in &inquiry.others {
            let machine = &self.machines[other];
            if machine.condition == Condition::Down || machine.copying.is_some() {
                continue;
            }
            let (record, _) = machine.store.record(&inquiry.key);
            let is_past = match &record.accepted {
                Some(own) => own.ballot >= inquiry.ballot,
                None => record.promised >= inquiry.ballot,
            };
            let (id, key) = (machine.id, &inquiry.key);
            self.invariants.must(is_past, || {
                format!("{key}: a tombstone is dropped, and {id} holds {record:?}")
            });
        }
    }

    pub(super) fn drop_tombstone(&mut self, node: usize, key: &Key, ballot: Ballot) {
        let range = self.ring.range_at(Position::of_key(key));
        if self.machines[node].chain.may_drop(range) {
            self.machines[node].store.drop_tombstone(key, ballot);
        }
        self.start_sync(node);
    }
}
