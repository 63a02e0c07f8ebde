//! The replica's side of the shell: its votes, the disk that they wait for, and which node votes.

use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::chain::Question;
use simple_dynamo::protocol::{Seen, VoteReply, VoteRequest};

use super::machine::{Condition, Machine};
use super::network::{Body, Envelope};
use super::plan::{MILLISECOND, Sabotage};
use super::world::{Local, World};

impl World {
    pub(super) fn vote(&mut self, envelope: Envelope) {
        let Envelope { from, to: node, .. } = envelope;
        let Body::Ask {
            ask,
            life,
            voter,
            ticket,
            key,
            request,
        } = envelope.body
        else {
            return;
        };
        let reply = self.machines[node].store.vote(&key, &request);
        let answer = Envelope {
            from: node,
            to: from,
            to_life: Some(life),
            body: Body::Vote {
                ask,
                voter,
                ticket,
                key: key.clone(),
                request,
                reply,
            },
        };
        let is_durable = self.machines[node].store.is_durable(&key);
        if is_durable || self.sabotage == Sabotage::ReplyBeforeSync {
            self.release(answer);
        } else {
            self.machines[node].store.hold(&key, answer);
        }
        self.start_sync(node);
    }

    /// The vote that a replica sends along with a read that it forwards.
    pub(super) fn seen(&mut self, node: usize, key: &Key) -> Option<Seen> {
        let machine = &mut self.machines[node];
        if !self.ring.preference_list(key).contains(&machine.id)
            || machine.copying.is_some()
            || !machine.store.is_durable(key)
        {
            return None;
        }
        let question = VoteRequest::Read { state: false };
        let reply = machine.store.vote(key, &question);
        let disk = machine.store.durable(key);
        self.invariants
            .replied(machine.id, key, (&question, &reply), &disk);
        let VoteReply::Seen(now) = reply else {
            return None;
        };
        let before = machine.sent_along.insert(key.clone(), now.clone());
        before
            .filter(|_| self.sabotage == Sabotage::OldVoteSentAlong)
            .or(Some(now))
    }

    /// A vote leaves its node.
    pub(super) fn release(&mut self, envelope: Envelope) {
        let machine = &self.machines[envelope.from];
        match &envelope.body {
            Body::Vote {
                key,
                request,
                reply,
                ..
            } => {
                let disk = machine.store.durable(key);
                self.invariants
                    .replied(machine.id, key, (request, reply), &disk);
            }
            Body::Answer {
                about: Some((key, dot)),
                outcome,
                ..
            } => self.invariants.answered(key, *dot, outcome),
            Body::Outcome {
                key, dot, outcome, ..
            } => self.invariants.answered(key, *dot, outcome),
            Body::Question {
                range, question, ..
            } => match question {
                Question::Pass { key, accepted, .. } => {
                    let request = VoteRequest::Accept(accepted.clone());
                    self.invariants.asked(key, &request);
                }
                Question::Adopt(adopted) => self.invariants.proposed(*range, adopted),
                _ => {}
            },
            Body::Told { ticket, answer, .. } => {
                let disk = machine.store.durable_epoch(ticket.range);
                self.invariants.told(machine.id, answer, disk);
            }
            _ => {}
        }
        self.send(envelope);
    }

    pub(super) fn start_sync(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if machine.syncing || machine.store.written() == machine.store.synced() {
            return;
        }
        machine.syncing = true;
        // What is written from now on waits for the next sync.
        let upto = machine.store.written();
        let slowest = if self.network.calm {
            self.plan.sync.min(5 * MILLISECOND)
        } else {
            self.plan.sync
        };
        let hangs = machine.hangs_until.saturating_sub(self.now);
        let length = hangs + self.rng.u64(20..=slowest);
        self.at(node, length, Local::Synced(upto));
    }

    /// Makes the log durable up to this entry. A node that crashes releases no replies.
    pub(super) fn sync(&mut self, node: usize, upto: u64, release: bool) {
        let machine = &mut self.machines[node];
        let (changes, replies) = machine.store.sync(upto);
        for change in changes {
            self.counts.dropped += u64::from(change.dropped.is_some());
            self.invariants.durable(machine.id, &change);
        }
        if release {
            replies.into_iter().for_each(|reply| self.release(reply));
        }
    }

    pub(super) fn reserve_numbers(&mut self, node: usize) {
        if let Some(upto) = self.machines[node].block_to_reserve() {
            let slowest = if self.network.calm {
                self.plan.sync.min(5 * MILLISECOND)
            } else {
                self.plan.sync
            };
            let length = self.rng.u64(20..=slowest);
            self.at(node, length, Local::Reserved(upto));
        }
    }

    /// With the rule against it left out, a node outside of the preference list votes for a
    /// replica that is away.
    pub(super) fn stand_in(&self, node: usize, peer: usize, key: &Key) -> usize {
        let is_away = self.machines[node]
            .suspects
            .contains(&self.machines[peer].id)
            || self.machines[peer].condition != Condition::Up;
        if self.sabotage != Sabotage::SloppyQuorum || !is_away {
            return peer;
        }
        let replicas = self.ring.preference_list(key);
        let outsider = |machine: &Machine| {
            machine.condition == Condition::Up && !replicas.contains(&machine.id)
        };
        self.machines.iter().position(outsider).unwrap_or(peer)
    }
}
