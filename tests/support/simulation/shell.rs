//! The shell around the code under test: it brings the code its events.

use std::time::Duration;

use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::origin;
use simple_dynamo::protocol::quorum::coordinator;
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::version::Dot;
use simple_dynamo::protocol::{Operation, Outcome, Seen, Strategy, VoteRequest, Why};

use super::machine::{Caller, Condition, DEADLINE, Machine};
use super::network::{Body, Envelope};
use super::plan::{MILLISECOND, Micros, pick};
use super::world::{Event, Local, World};

type OriginEffects = Vec<origin::Effect<usize>>;
type CoordinatorEffects = Vec<coordinator::Effect<Caller>>;

impl World {
    fn route(&mut self, node: usize, with: impl FnOnce(&mut Machine, &mut OriginEffects)) {
        let mut effects = Vec::new();
        with(&mut self.machines[node], &mut effects);
        for effect in effects {
            self.carry_out_routing(node, effect);
        }
        self.reserve_numbers(node);
    }

    fn coordinate(
        &mut self,
        node: usize,
        with: impl FnOnce(&mut Machine, &mut CoordinatorEffects),
    ) {
        let mut effects = Vec::new();
        with(&mut self.machines[node], &mut effects);
        for effect in effects {
            self.carry_out_coordination(node, effect);
        }
    }

    /// Something that happens within a node.
    pub(super) fn local(&mut self, node: usize, what: Local) {
        match what {
            Local::Submit(operation) => self.submit(node, operation),
            Local::Synced(upto) => {
                self.machines[node].syncing = false;
                self.sync(node, upto, true);
                self.start_sync(node);
            }
            Local::Reserved(upto) => {
                let machine = &mut self.machines[node];
                machine.reserved = upto;
                machine.reserving = false;
                machine.origin.reserved(0, upto);
            }
            Local::SilentVoter(ask, ticket, voter) => {
                if self.machines[node].waiting.remove(&ask) {
                    self.machines[node].suspect(voter);
                    self.coordinate(node, |machine, effects| {
                        machine.coordinator.reply(ticket, voter, None, effects);
                    });
                }
            }
            Local::NoAnswer(ask, ticket, peer, answer) => {
                if self.machines[node].waiting.remove(&ask) {
                    self.machines[node].suspect(peer);
                    self.answer_origin(node, ticket, peer, answer);
                }
            }
            Local::WakeCoordinator(request) => self.coordinate(node, |machine, effects| {
                machine.coordinator.wake(request, effects);
            }),
            Local::WakeOrigin(request) => self.route(node, |machine, effects| {
                machine.origin.wake(request, &machine.suspects, effects);
            }),
            Local::Expire => self.expire(node),
            Local::Refresh => {
                let key = pick(&mut self.rng, &self.plan.keys).clone();
                self.request(node, Caller::Background, key, Operation::Refresh, None);
            }
            Local::Abandon => self.coordinate(node, |machine, effects| {
                machine.coordinator.abandon(effects);
            }),
            Local::CopyOn => self.copy_on(node),
            Local::Tick => self.tick_chain(node),
            Local::Watch(ask, peer, since, awaited) => {
                self.watch(node, (ask, peer), since, awaited);
            }
            Local::Unreached(ask, peer, awaited) => {
                self.silent(node, ask, peer, awaited, origin::Answer::Unreached);
            }
            Local::NoPage(ask) => self.no_page(node, ask),
        }
    }

    fn submit(&mut self, node: usize, operation: usize) {
        let machine = &self.machines[node];
        if machine.origin.sequences_left() == 0 && machine.reserving && self.rng.u8(..16) > 0 {
            // Without numbers the node would refuse the request, and the client would only ask again. One of
            // sixteen requests is refused all the same.
            return self.at(node, MILLISECOND, Local::Submit(operation));
        }
        let (key, change) = self.clients.request(operation);
        let clock = self.machines[node].clock(self.now);
        self.route(node, |machine, effects| {
            machine.ends.insert(clock + DEADLINE);
            let suspects = &machine.suspects;
            machine
                .origin
                .submit(operation, key, change, clock, suspects, effects);
        });
        // Half-way through the deadline the origin passes over a coordinator that has not answered.
        self.expire_after(node, DEADLINE / 2);
        self.expire_after(node, DEADLINE);
    }

    /// Schedules a look for overdue requests. A node looks only now and then, and may find several.
    fn expire_after(&mut self, node: usize, time: Duration) {
        let wait = self.machines[node].really(time.as_micros() as Micros);
        let until_the_tick = self.rng.u64(1..=25) * MILLISECOND;
        self.at(node, wait + until_the_tick, Local::Expire);
    }

    fn expire(&mut self, node: usize) {
        let clock = self.machines[node].clock(self.now);
        self.route(node, |machine, effects| {
            machine.ends.retain(|end| *end > clock);
            machine.origin.expire(clock, &machine.suspects, effects);
        });
        if let Some(&end) = self.machines[node].ends.first() {
            // The clock may have been set back: then the request is not overdue yet.
            self.expire_after(node, end - clock);
        }
    }

    fn answer_origin(
        &mut self,
        node: usize,
        ticket: origin::Ticket,
        from: NodeId,
        answer: origin::Answer,
    ) {
        self.route(node, |machine, effects| {
            let suspects = &machine.suspects;
            machine
                .origin
                .answer(ticket, from, answer, suspects, effects);
        });
    }

    pub(super) fn request(
        &mut self,
        node: usize,
        caller: Caller,
        key: Key,
        operation: Operation,
        seen: Option<(NodeId, Seen)>,
    ) {
        if self.machines[node].copying.is_some() {
            return self.answer(node, caller, Outcome::not_done(Why::Recovering));
        }
        if self.plan.strategy == Strategy::Chain {
            if operation != Operation::Refresh {
                self.request_of_chain(node, caller, key, operation);
            }
            return;
        }
        self.coordinate(node, |machine, effects| {
            let promised = machine.store.promised(&key);
            machine
                .coordinator
                .request(caller, key, operation, promised, seen, effects);
        });
    }

    /// A message has come.
    pub(super) fn arrive(&mut self, envelope: Envelope) {
        let (node, sender) = (envelope.to, envelope.from);
        let from = self.machines[sender].id;
        self.machines[node].trust(from);
        let now = self.now;
        self.machines[node].heard.insert(sender, now);
        let votes = self.machines[node].copying.is_none();
        match envelope.body {
            Body::Ask { .. }
            | Body::Repair { .. }
            | Body::Tombstone { .. }
            | Body::Drop { .. }
            | Body::Scan { .. }
            | Body::Question { .. }
            | Body::PassOn { .. }
            | Body::Range { .. }
                if !votes => {}
            Body::Question { .. }
            | Body::Told { .. }
            | Body::PassOn { .. }
            | Body::Outcome { .. }
            | Body::Range { .. }
            | Body::RangePage { .. } => self.arrive_at_member(envelope),
            Body::Ping => self.send(Envelope {
                from: node,
                to: sender,
                to_life: None,
                body: Body::Pong,
            }),
            Body::Pong => {}
            Body::Join { folder } => self.joined(node, sender, folder),
            Body::Known { folder, number } => self.known(node, sender, folder, number),
            Body::Scan { .. } => self.scanned(envelope),
            Body::Page { .. } => self.page(envelope),
            Body::Refresh { key } => self.asked_to_refresh(node, sender, key),
            Body::Refreshed { key } => self.refreshed(node, &key),
            Body::Ask { .. } => self.vote(envelope),
            Body::Repair { key, accepted } => {
                self.machines[node]
                    .store
                    .vote(&key, &VoteRequest::Accept(accepted));
                self.start_sync(node);
            }
            Body::Tombstone { .. } => self.asked_for_tombstone(envelope),
            Body::Held { ask, held } => self.tombstone_answered(node, ask, held),
            Body::Drop { key, ballot } => self.drop_tombstone(node, &key, ballot),
            Body::Vote {
                ask,
                voter,
                ticket,
                reply,
                ..
            } => {
                self.machines[node].waiting.remove(&ask);
                self.coordinate(node, |machine, effects| {
                    machine
                        .coordinator
                        .reply(ticket, voter, Some(reply), effects);
                });
            }
            Body::Forward {
                ask,
                life,
                ticket,
                key,
                operation,
                seen,
            } => {
                let caller = Caller::Origin {
                    node: sender,
                    life,
                    ask,
                    ticket,
                    key: key.clone(),
                    dot: dot_of(&operation),
                };
                let seen = seen.map(|seen| (from, seen));
                self.request(node, caller, key, operation, seen);
            }
            Body::Answer {
                ask,
                ticket,
                outcome,
                ..
            } => {
                self.machines[node].waiting.remove(&ask);
                self.answer_origin(node, ticket, from, origin::Answer::Outcome(outcome));
            }
        }
    }
}

pub(super) fn dot_of(operation: &Operation) -> Option<Dot> {
    match operation {
        Operation::Write { dot, .. } => Some(*dot),
        Operation::Get | Operation::Refresh => None,
    }
}
