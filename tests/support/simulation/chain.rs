//! The shell around a chain: carries its effects out, tells it of silence, and compares ranges for it.

use std::collections::{BTreeMap, HashMap};

use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::chain::epoch::Epoch;
use simple_dynamo::protocol::chain::{Chain, Context, Effect, Replica, Ticket};
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::{Accepted, Ballot, Operation, Outcome, Strategy, origin};
use simple_dynamo::storage::Page;

use super::copying::all_of;
use super::machine::{Caller, Condition};
use super::network::{Body, Envelope};
use super::plan::{MILLISECOND, Micros, Sabotage};
use super::shell::dot_of;
use super::world::{Event, Local, World};

/// A peer that is not heard for so long is silent.
const SILENCE: Micros = 100 * MILLISECOND;
/// How often a node looks after its chains, at most.
const TICK: Micros = 25 * MILLISECOND;
/// A question is given up after this time, whatever else its peer sends.
const LONGEST_QUESTION: Micros = 2_000 * MILLISECOND;
/// How long a comparison may take.
const COMPARISON: Micros = 1_500 * MILLISECOND;

/// What a node compares for its chains.
#[derive(Default)]
pub struct Comparisons {
    /// Which comparison each question for a page belongs to.
    questions: HashMap<u64, u64>,
    open: BTreeMap<u64, Comparison>,
}

struct Comparison {
    range: usize,
    /// The epoch that begins with it. None for a replica that catches up.
    epoch: Option<Epoch>,
    /// How many pages have not come.
    left: usize,
    /// What the node had adopted when it began.
    since: Epoch,
    every_key: bool,
}

/// What a node waits for after it asked a peer.
#[derive(Clone, Copy, Debug)]
pub enum Awaited {
    Answer(Ticket),
    Outcome(Ticket),
}

impl World {
    /// One step of a node's chains.
    pub(super) fn chain(
        &mut self,
        node: usize,
        with: impl FnOnce(&mut Chain<Caller>, Context<'_, Caller>),
    ) {
        let chance = self.rng.u64(..);
        let machine = &mut self.machines[node];
        let mut effects = Vec::new();
        let context = Context {
            now: machine.uptime(self.now),
            replica: &mut machine.store,
            chance,
            suspects: &machine.suspects,
            effects: &mut effects,
        };
        with(&mut machine.chain, context);
        self.check_service(node);
        for effect in effects {
            self.carry_out_chain(node, effect);
        }
        self.start_sync(node);
    }

    /// Tells the invariants which epochs a node serves.
    fn check_service(&mut self, node: usize) {
        let machine = &self.machines[node];
        for range in self.ring.ranges_of(machine.id) {
            let status = machine.chain.status(range);
            let serves = status.filter(|status| status.serves);
            let epoch = serves.map(|status| status.adopted.epoch);
            self.invariants.serves(machine.id, range, epoch);
        }
    }

    fn carry_out_chain(&mut self, node: usize, effect: Effect<Caller>) {
        let life = self.machines[node].life;
        match effect {
            Effect::Ask {
                to,
                ticket,
                question,
                after,
            } => {
                let (ask, peer) = (self.number(), self.place(to));
                self.await_member(node, ask, peer, Awaited::Answer(ticket));
                let range = ticket.range;
                let body = Body::Question {
                    ask,
                    life,
                    ticket,
                    range,
                    question,
                };
                self.send_after(node, peer, None, after, body);
            }
            Effect::PassOn {
                to,
                ticket,
                key,
                operation,
                epoch,
            } => {
                let (ask, peer) = (self.number(), self.place(to));
                self.await_member(node, ask, peer, Awaited::Outcome(ticket));
                let body = Body::PassOn {
                    ask,
                    life,
                    ticket,
                    key,
                    operation,
                    epoch,
                };
                self.send_after(node, peer, None, 0, body);
            }
            Effect::Tell {
                handle,
                answer,
                after,
            } => {
                let Caller::Member {
                    node: to,
                    life,
                    ask,
                    ticket,
                    ..
                } = handle
                else {
                    unreachable!("only a member asks")
                };
                let body = Body::Told {
                    ask,
                    ticket,
                    answer,
                };
                self.send_after(node, to, Some(life), after, body);
            }
            Effect::Answer {
                handle,
                outcome,
                after,
            } => self.answer_after(node, handle, outcome, after),
            Effect::Collect {
                range,
                epoch,
                from,
                every_key,
            } => {
                let from = from.into_iter().map(|id| self.place(id)).collect();
                self.compare(node, range, Some(epoch), from, every_key);
            }
            Effect::CatchUp { range, from, .. } => {
                let from = vec![self.place(from)];
                self.compare(node, range, None, from, false);
            }
            Effect::Began { range, cause } => {
                self.counts.epochs += 1;
                if cause.without.is_empty() {
                    self.counts.returns += 1;
                }
                self.check_beginning(node, range, &cause.adopted.members);
            }
            Effect::Disk { hangs } => self.counts.hung += u64::from(hangs),
        }
    }

    /// 3: all members hold what any of them held.
    fn check_beginning(&mut self, node: usize, range: usize, members: &[NodeId]) {
        let epoch = self.machines[node].store.adopted(range).epoch;
        let mut own: BTreeMap<Key, Accepted> = BTreeMap::new();
        for &member in members {
            for (key, held) in self.machines[self.place(member)].store.of_range(range) {
                // What had waited was written at once, and is above.
                let highest = own.get(&key).map_or(Ballot::ZERO, |own| own.ballot);
                if held.ballot > highest && held.ballot <= epoch.ballot(0) {
                    own.insert(key, held);
                }
            }
        }
        for (key, accepted) in &own {
            self.invariants.choose(key, accepted);
        }
        for &member in members {
            let machine = &self.machines[self.place(member)];
            if machine.copying.is_some() {
                continue;
            }
            let (id, disk) = (machine.id, &machine.store);
            let adopted = disk.durable_epoch(range) >= epoch;
            let lacking = own
                .iter()
                .find(|(key, own)| disk.durable(key).accepted_ballot() < own.ballot);
            let lacking = lacking.map(|(key, own)| (key.clone(), own.clone()));
            self.invariants.must(adopted && lacking.is_none(), || {
                format!(
                    "3: an epoch of range {range} begins, and {id} lacks it or {lacking:?}: {:?}",
                    lacking.as_ref().map(|(key, _)| disk.durable(key))
                )
            });
        }
    }

    /// Sends a message once the log of a node is durable up to a place.
    pub(super) fn send_after(
        &mut self,
        node: usize,
        to: usize,
        to_life: Option<u32>,
        after: u64,
        body: Body,
    ) {
        let envelope = Envelope {
            from: node,
            to,
            to_life,
            body,
        };
        let machine = &mut self.machines[node];
        if after <= machine.store.synced() || self.sabotage == Sabotage::ReplyBeforeSync {
            self.release(envelope);
        } else {
            machine.store.hold_until(after, envelope);
        }
    }

    pub(super) fn answer_after(
        &mut self,
        node: usize,
        caller: Caller,
        outcome: Outcome,
        after: u64,
    ) {
        match caller {
            Caller::Member {
                node: to,
                life,
                ask,
                ticket,
                key,
                dot,
            } => {
                let body = Body::Outcome {
                    ask,
                    ticket,
                    key,
                    dot,
                    outcome,
                };
                self.send_after(node, to, Some(life), after, body);
            }
            Caller::Origin {
                node: to,
                life,
                ask,
                ticket,
                key,
                dot,
            } => {
                let body = Body::Answer {
                    ask,
                    ticket,
                    outcome,
                    about: Some((key, dot)),
                };
                self.send_after(node, to, Some(life), after, body);
            }
            Caller::Background | Caller::Copying { .. } => {}
        }
    }

    /// Watches over a question: its peer is silent if nothing is heard of it, not even after a ping.
    fn await_member(&mut self, node: usize, ask: u64, peer: usize, awaited: Awaited) {
        self.machines[node].waiting.insert(ask);
        let since = self.now;
        if self.machines[peer].condition == Condition::Down && self.rng.bool() {
            // The connection is refused.
            return self.at(node, MILLISECOND, Local::Unreached(ask, peer, awaited));
        }
        self.at(node, SILENCE / 2, Local::Watch(ask, peer, since, awaited));
    }

    pub(super) fn watch(
        &mut self,
        node: usize,
        (ask, peer): (u64, usize),
        since: Micros,
        awaited: Awaited,
    ) {
        if !self.machines[node].waiting.contains(&ask) {
            return;
        }
        let heard = self.machines[node].heard.get(&peer).copied();
        let quiet = self.now - since.max(heard.unwrap_or(0));
        if quiet >= SILENCE || self.now - since >= LONGEST_QUESTION {
            return self.silent(node, ask, peer, awaited, origin::Answer::Silent);
        }
        if quiet >= SILENCE / 2 {
            self.send(Envelope {
                from: node,
                to: peer,
                to_life: None,
                body: Body::Ping,
            });
        }
        self.at(node, SILENCE / 2, Local::Watch(ask, peer, since, awaited));
    }

    pub(super) fn silent(
        &mut self,
        node: usize,
        ask: u64,
        peer: usize,
        awaited: Awaited,
        answer: origin::Answer,
    ) {
        if !self.machines[node].waiting.remove(&ask) {
            return;
        }
        let id = self.machines[peer].id;
        self.machines[node].suspect(id);
        match awaited {
            Awaited::Answer(ticket) => {
                self.chain(node, |chain, context| chain.reply(ticket, None, context));
            }
            Awaited::Outcome(ticket) => {
                self.chain(node, |chain, context| {
                    chain.outcome(ticket, answer, context);
                });
            }
        }
    }

    /// A node may take part in chains from now on.
    pub(super) fn start_chain(&mut self, node: usize) {
        if self.plan.strategy == Strategy::Chain && self.machines[node].copying.is_none() {
            let machine = &mut self.machines[node];
            machine.chain.start(&machine.store);
            let first = self.rng.u64(1..=2 * TICK);
            self.at(node, first, Local::Tick);
        }
    }

    pub(super) fn tick_chain(&mut self, node: usize) {
        let next = self.rng.u64(1..=2 * TICK);
        self.at(node, next, Local::Tick);
        self.chain(node, |chain, mut context| chain.tick(&mut context));
    }

    fn compare(
        &mut self,
        node: usize,
        range: usize,
        epoch: Option<Epoch>,
        from: Vec<usize>,
        every_key: bool,
    ) {
        let number = self.number();
        let comparison = Comparison {
            range,
            epoch,
            left: from.len(),
            since: self.machines[node].store.adopted(range).epoch,
            every_key,
        };
        let life = self.machines[node].life;
        let comparisons = &mut self.machines[node].comparisons;
        comparisons.open.insert(number, comparison);
        for peer in from {
            let ask = self.number();
            let comparisons = &mut self.machines[node].comparisons;
            comparisons.questions.insert(ask, number);
            self.at(node, COMPARISON, Local::NoPage(ask));
            let slow = self.plan.slow_comparisons && self.rng.bool();
            let body = Body::Range {
                ask,
                life,
                range,
                epoch,
                slow,
            };
            self.send(Envelope {
                from: node,
                to: peer,
                to_life: None,
                body,
            });
        }
    }

    /// A peer compares a range with this node.
    pub(super) fn asked_for_range(&mut self, envelope: Envelope) {
        let (from, node) = (envelope.from, envelope.to);
        let Body::Range {
            ask,
            life,
            range,
            epoch,
            slow,
        } = envelope.body
        else {
            return;
        };
        if slow {
            let body = Body::Range {
                ask,
                life,
                range,
                epoch,
                slow: false,
            };
            let delay = self.rng.u64(..320 * MILLISECOND);
            let later = Envelope { body, ..envelope };
            return self.schedule(delay, Event::Arrive(later));
        }
        let machine = &self.machines[node];
        let allowed = match epoch {
            Some(epoch) => machine.chain.takes_part(range, epoch),
            None => machine.chain.status(range).is_some_and(|it| it.serves),
        };
        let (page, after) = machine.store.scan(&all_of(range));
        let (page, after) = if allowed {
            (Some(page), after)
        } else {
            (None, 0)
        };
        self.send_after(node, from, Some(life), after, Body::RangePage { ask, page });
        self.start_sync(node);
    }

    pub(super) fn range_page(&mut self, node: usize, ask: u64, page: Option<Page>) {
        let machine = &mut self.machines[node];
        let Some(number) = machine.comparisons.questions.remove(&ask) else {
            return;
        };
        let Some(comparison) = machine.comparisons.open.get_mut(&number) else {
            return;
        };
        let Some(page) = page else {
            return self.compared(node, number, false);
        };
        let range = comparison.range;
        comparison.left -= 1;
        let entries = page.entries.into_iter();
        let mut theirs: BTreeMap<Key, Accepted> = entries
            .filter_map(|entry| Some((entry.key, entry.record?.accepted?)))
            .collect();
        let (chain, store) = (&mut machine.chain, &mut machine.store);
        let mut keys: Vec<Key> = theirs.keys().cloned().collect();
        let own = store.of_range(range).into_iter().map(|(key, _)| key);
        keys.extend(own.filter(|key| !theirs.contains_key(key)));
        for key in keys {
            let own = store.record(&key).0.accepted_ballot();
            let theirs = theirs.remove(&key);
            let is_same = theirs.as_ref().is_some_and(|theirs| theirs.ballot == own);
            if is_same && !comparison.every_key {
                continue;
            }
            let taken = match (comparison.epoch, &theirs) {
                (Some(epoch), theirs) => chain.move_in(range, epoch, &key, theirs.as_ref(), store),
                (None, Some(theirs)) => chain.pull_in(range, comparison.since, &key, theirs, store),
                (None, None) => true,
            };
            if !taken {
                return self.compared(node, number, false);
            }
        }
        if comparison.left == 0 {
            self.compared(node, number, true);
        }
        self.start_sync(node);
    }

    pub(super) fn no_page(&mut self, node: usize, ask: u64) {
        let questions = &mut self.machines[node].comparisons.questions;
        if let Some(number) = questions.remove(&ask) {
            self.compared(node, number, false);
        }
    }

    fn compared(&mut self, node: usize, number: u64, whole: bool) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let Some(comparison) = machine.comparisons.open.remove(&number) else {
            return;
        };
        let Comparison { range, epoch, .. } = comparison;
        match epoch {
            Some(epoch) => {
                let (chain, store) = (&mut machine.chain, &mut machine.store);
                while whole && !chain.renew(range, epoch, store) {}
                self.chain(node, |chain, context| {
                    chain.collected(range, epoch, whole, context);
                });
            }
            None => machine.chain.caught_up(range, whole, machine.uptime(now)),
        }
    }

    /// A message between members of a chain.
    pub(super) fn arrive_at_member(&mut self, envelope: Envelope) {
        let (node, sender) = (envelope.to, envelope.from);
        let from = self.machines[sender].id;
        match envelope.body {
            Body::Question {
                ask,
                life,
                ticket,
                range,
                question,
            } => {
                let caller = Caller::Member {
                    node: sender,
                    life,
                    ask,
                    ticket,
                    key: "".into(),
                    dot: None,
                };
                self.chain(node, |chain, context| {
                    chain.asked(caller, from, range, question, context);
                });
            }
            Body::Told {
                ask,
                ticket,
                answer,
            } => {
                self.machines[node].waiting.remove(&ask);
                self.chain(node, |chain, context| {
                    chain.reply(ticket, Some(answer), context);
                });
            }
            Body::PassOn {
                ask,
                life,
                ticket,
                key,
                operation,
                epoch,
            } => {
                let caller = Caller::Member {
                    node: sender,
                    life,
                    ask,
                    ticket,
                    key: key.clone(),
                    dot: dot_of(&operation),
                };
                self.chain(node, |chain, context| {
                    chain.request(caller, key, operation, Some(epoch), context);
                });
            }
            Body::Outcome {
                ask,
                ticket,
                outcome,
                ..
            } => {
                self.machines[node].waiting.remove(&ask);
                let answer = origin::Answer::Outcome(outcome);
                self.chain(node, |chain, context| {
                    chain.outcome(ticket, answer, context);
                });
            }
            Body::Range { .. } => self.asked_for_range(envelope),
            Body::RangePage { ask, page } => self.range_page(node, ask, page),
            _ => unreachable!("no message between members"),
        }
    }

    /// A request of this node's own origin, or of another's.
    pub(super) fn request_of_chain(
        &mut self,
        node: usize,
        caller: Caller,
        key: Key,
        operation: Operation,
    ) {
        self.chain(node, |chain, context| {
            chain.request(caller, key, operation, None, context);
        });
    }
}
