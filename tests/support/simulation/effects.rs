//! The shell around the code under test: it carries out the effects that the code asks for.

use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::origin;
use simple_dynamo::protocol::quorum::coordinator;
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::{Operation, Outcome, Strategy, VoteRequest};

use super::machine::{Caller, Condition};
use super::network::{Body, Envelope};
use super::plan::{MILLISECOND, Micros};
use super::world::{Event, Local, World};

/// How long a question to a peer may stay without an answer.
const SILENCE: Micros = 100 * MILLISECOND;

impl World {
    pub(super) fn carry_out_routing(&mut self, node: usize, effect: origin::Effect<usize>) {
        match effect {
            origin::Effect::Forward {
                to,
                ticket,
                key,
                operation,
            } => {
                let (ask, peer) = (self.number(), self.place(to));
                let life = self.machines[node].life;
                self.machines[node].waiting.insert(ask);
                if self.machines[peer].condition == Condition::Down && self.rng.bool() {
                    let refused = Local::NoAnswer(ask, ticket, to, origin::Answer::Unreached);
                    return self.at(node, MILLISECOND, refused);
                }
                if peer != node {
                    let patience = self.machines[node].really(self.plan.patience);
                    let silent = Local::NoAnswer(ask, ticket, to, origin::Answer::Silent);
                    self.at(node, patience, silent);
                }
                let seen = match operation {
                    Operation::Get if peer != node && self.plan.strategy == Strategy::Quorum => {
                        self.seen(node, &key)
                    }
                    _ => None,
                };
                let body = Body::Forward {
                    ask,
                    life,
                    ticket,
                    key,
                    operation,
                    seen,
                };
                self.send(Envelope {
                    from: node,
                    to: peer,
                    to_life: None,
                    body,
                });
            }
            origin::Effect::Answer { handle, result } => {
                match self.clients.answered(handle, result) {
                    Ok(Some(client)) => self.think_later(client),
                    Ok(None) => {}
                    Err(text) => self.invariants.must(false, || text),
                }
            }
            origin::Effect::WakeLater { request } => {
                let moment = self.rng.u64(..60 * MILLISECOND);
                let moment = self.machines[node].really(moment);
                self.at(node, moment, Local::WakeOrigin(request));
            }
        }
    }

    pub(super) fn carry_out_coordination(
        &mut self,
        node: usize,
        effect: coordinator::Effect<Caller>,
    ) {
        match effect {
            coordinator::Effect::Ask {
                to,
                ticket,
                key,
                request,
            } => {
                for replica in to {
                    self.ask(node, replica, ticket, key.clone(), request.clone());
                }
            }
            coordinator::Effect::Repair { to, key, accepted } => {
                let (to, body) = (self.place(to), Body::Repair { key, accepted });
                self.send(Envelope {
                    from: node,
                    to,
                    to_life: None,
                    body,
                });
            }
            coordinator::Effect::Answer { handle, outcome } => self.answer(node, handle, outcome),
            coordinator::Effect::WakeLater { request, attempt } => {
                let longest = 4 * MILLISECOND * Micros::from(attempt);
                let moment = self.rng.u64(..longest);
                let moment = self.machines[node].really(moment);
                self.at(node, moment, Local::WakeCoordinator(request));
            }
        }
    }

    fn ask(
        &mut self,
        node: usize,
        voter: NodeId,
        ticket: coordinator::Ticket,
        key: Key,
        request: VoteRequest,
    ) {
        self.invariants.asked(&key, &request);
        let (ask, peer) = (self.number(), self.place(voter));
        let request = if peer == node {
            request.of_own_replica()
        } else {
            request
        };
        let machine = &mut self.machines[node];
        let life = machine.life;
        machine.waiting.insert(ask);
        if peer != node {
            let hopeless = self.plan.hurry && machine.suspects.contains(&voter);
            let silence = if hopeless { 0 } else { machine.really(SILENCE) };
            self.at(node, silence, Local::SilentVoter(ask, ticket, voter));
        }
        let to = self.stand_in(node, peer, &key);
        let body = Body::Ask {
            ask,
            life,
            voter,
            ticket,
            key,
            request,
        };
        self.send(Envelope {
            from: node,
            to,
            to_life: None,
            body,
        });
    }

    pub(super) fn answer(&mut self, node: usize, caller: Caller, outcome: Outcome) {
        if let Caller::Member { .. } = caller {
            return self.answer_after(node, caller, outcome, 0);
        }
        let (to, life, body) = match caller {
            Caller::Origin {
                node: to,
                life,
                ask,
                ticket,
                key,
                dot,
            } => {
                self.invariants.answered(&key, dot, &outcome);
                let body = Body::Answer {
                    ask,
                    ticket,
                    outcome,
                    about: None,
                };
                (to, life, body)
            }
            Caller::Copying {
                node: to,
                life,
                key,
            } if matches!(outcome, Outcome::Found { .. } | Outcome::Missing) => {
                (to, life, Body::Refreshed { key })
            }
            Caller::Copying { .. } | Caller::Background => return,
            Caller::Member { .. } => return,
        };
        self.send(Envelope {
            from: node,
            to,
            to_life: Some(life),
            body,
        });
    }

    pub(super) fn send(&mut self, envelope: Envelope) {
        let passage = self.network.pass(&envelope, &self.plan, &mut self.rng);
        for fault in passage.faults {
            self.count(fault);
        }
        for delay in passage.delays {
            self.schedule(delay, Event::Arrive(envelope.clone()));
        }
    }

    pub(super) fn place(&self, id: NodeId) -> usize {
        let place = self.machines.iter().position(|machine| machine.id == id);
        place.expect("a node of the ring")
    }
}
