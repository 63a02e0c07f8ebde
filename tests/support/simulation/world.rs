//! The run itself: it takes events in the order of virtual time, and brings each to where it belongs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use fastrand::Rng;
use simple_dynamo::protocol::Strategy;
use simple_dynamo::protocol::origin;
use simple_dynamo::protocol::quorum::coordinator;
use simple_dynamo::protocol::ring::{NodeId, Ring};

use super::super::history::{End, Operation, Request};
use super::chain::Awaited;
use super::clients::Clients;
use super::invariants::Invariants;
use super::machine::{Condition, Machine, QUORUMS};
use super::network::{Envelope, Network};
use super::plan::{Fault, MILLISECOND, Micros, Plan, Sabotage};

/// How long a client waits for its node.
const CLIENT_PATIENCE: Micros = 4_000 * MILLISECOND;
/// After this time all faults are healed, whether all requests are made or not.
const LONGEST: Micros = 120_000 * MILLISECOND;

/// How often each fault befell anybody, and what else happened in a run.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    pub faults: BTreeMap<Fault, u64>,
    pub events: u64,
    /// Tombstones that were dropped, each by each replica.
    pub dropped: u64,
    /// Epochs that began, and those of them with all replicas.
    pub epochs: u64,
    pub returns: u64,
    /// How often a node has stopped its chains since its disk hung.
    pub hung: u64,
}

/// What happens at some moment. Most events happen to a node, in one of its lives.
#[derive(Clone, Debug)]
pub enum Event {
    Arrive(Envelope),
    At {
        node: usize,
        life: u32,
        what: Local,
    },
    /// A client thinks of its next request.
    Think(u32),
    GiveUp(usize),
    Misfortune,
    LookForTombstones,
    Restart(usize),
    Resume(usize),
    Heal(usize, usize),
}

#[derive(Clone, Debug)]
pub enum Local {
    Submit(usize),
    Synced(u64),
    Reserved(u64),
    SilentVoter(u64, coordinator::Ticket, NodeId),
    NoAnswer(u64, origin::Ticket, NodeId, origin::Answer),
    WakeCoordinator(u64),
    WakeOrigin(u64),
    Expire,
    /// The background repair asks for a refresh of some key's state.
    Refresh,
    Abandon,
    /// A node that has lost its folder goes on with its copy.
    CopyOn,
    /// A node looks after its chains.
    Tick,
    /// Looks whether a peer that was asked since this moment is silent.
    Watch(u64, usize, Micros, Awaited),
    Unreached(u64, usize, Awaited),
    /// A page of a comparison has not come.
    NoPage(u64),
}

struct Scheduled {
    at: Micros,
    order: u64,
    event: Event,
}

pub struct World {
    pub(super) rng: Rng,
    pub(super) plan: Plan,
    pub(super) sabotage: Sabotage,
    pub(super) ring: Arc<Ring>,
    pub(super) now: Micros,
    pub(super) machines: Vec<Machine>,
    pub(super) network: Network,
    pub(super) clients: Clients,
    pub(super) invariants: Invariants,
    pub(super) counts: Counts,
    events: BinaryHeap<Reverse<Scheduled>>,
    /// The last number that was given to an event or a question.
    numbers: u64,
    trace: bool,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl World {
    pub fn new(strategy: Strategy, seed: u64, sabotage: Sabotage, trace: bool) -> World {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::of(strategy, &mut rng, sabotage);
        let ring = Arc::new(Ring::new(plan.nodes.iter().copied(), QUORUMS.replicas));
        let machines = plan
            .nodes
            .iter()
            .map(|&id| Machine::new(id, &ring, &plan, &mut rng))
            .collect();
        World {
            clients: Clients::new(&plan),
            invariants: Invariants::new(ring.clone()),
            rng,
            plan,
            sabotage,
            ring,
            now: 0,
            machines,
            network: Network::new(sabotage == Sabotage::ForwardedTwice),
            counts: Counts::default(),
            events: BinaryHeap::new(),
            numbers: 0,
            trace,
        }
    }

    /// Runs all of it: the clients' requests under faults, then peace, and then reads of everything.
    pub fn run(&mut self) {
        for node in 0..self.machines.len() {
            self.reserve_numbers(node);
            self.start_chain(node);
        }
        for client in 0..self.plan.clients {
            let moment = self.rng.u64(..=self.plan.thinking);
            self.schedule(10 * MILLISECOND + moment, Event::Think(client));
        }
        self.schedule(self.plan.calm, Event::Misfortune);
        self.schedule(self.plan.looking, Event::LookForTombstones);
        while !self.clients.are_done() && self.now < LONGEST {
            self.step();
        }
        self.make_peace();
        let peace = self.now + 5_000 * MILLISECOND;
        while self.now < peace && self.step() {}
        self.read_everything();
    }

    /// Reads every key through every node. Nothing is wrong any more, so each must answer.
    fn read_everything(&mut self) {
        for node in 0..self.machines.len() {
            for key in self.plan.keys.clone() {
                let client = self.plan.clients;
                let read = self
                    .clients
                    .ask(client, node, key.to_string(), Request::Get);
                self.at(node, 0, Local::Submit(read));
                while !self.clients.are_done() && self.step() {}
                let end = self.clients.history[read].end.clone();
                let id = self.machines[node].id;
                self.invariants
                    .must(matches!(end, End::Returned { .. }), || {
                        format!("{id} does not answer for {key} though nothing is wrong: {end:?}")
                    });
            }
        }
    }

    pub fn end(self) -> (Vec<Operation>, Vec<String>, Counts) {
        (self.clients.history, self.invariants.breaches, self.counts)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn schedule(&mut self, after: Micros, event: Event) {
        let order = self.number();
        let at = self.now + after;
        self.events.push(Reverse(Scheduled { at, order, event }));
    }

    /// Schedules something for a node, unless it has crashed by then.
    pub(super) fn at(&mut self, node: usize, after: Micros, what: Local) {
        let life = self.machines[node].life;
        self.schedule(after, Event::At { node, life, what });
    }

    /// Takes the next event. Returns false if there is none.
    fn step(&mut self) -> bool {
        let Some(Reverse(Scheduled { at, event, .. })) = self.events.pop() else {
            return false;
        };
        self.now = at;
        self.counts.events += 1;
        let (node, life) = match &event {
            Event::At { node, life, .. } => (*node, Some(*life)),
            Event::Arrive(envelope) => (envelope.to, envelope.to_life),
            _ => {
                self.print(&event);
                self.happen(event);
                return true;
            }
        };
        let machine = &mut self.machines[node];
        let is_former = life.is_some_and(|life| life != machine.life);
        if is_former && self.sabotage != Sabotage::FormerLifeHeard {
            return true;
        }
        match machine.condition {
            Condition::Down => {}
            Condition::Paused => machine.deferred.push(event),
            Condition::Up => {
                self.print(&event);
                match event {
                    Event::Arrive(envelope) => self.arrive(envelope),
                    Event::At { what, .. } if !is_former => self.local(node, what),
                    _ => {}
                }
            }
        }
        true
    }

    fn print(&self, event: &Event) {
        if self.trace {
            println!("{:>9} {event:?}", self.now);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Think(client) => self.think(client),
            Event::GiveUp(operation) => {
                if let Some(client) = self.clients.give_up(operation) {
                    self.think_later(client);
                }
            }
            Event::Misfortune => self.misfortune(),
            Event::LookForTombstones => self.look_for_tombstones(),
            Event::Restart(node) => self.restart(node),
            Event::Resume(node) => self.resume(node),
            Event::Heal(from, to) => self.network.heal(from, to),
            Event::Arrive(_) | Event::At { .. } => {}
        }
    }

    fn think(&mut self, client: u32) {
        let node = self.rng.usize(..self.machines.len());
        if self.machines[node].condition == Condition::Down {
            // The node refuses the connection before anything is asked, so this is no part of the history.
            return self.schedule(5 * MILLISECOND, Event::Think(client));
        }
        let (plan, rng) = (&self.plan, &mut self.rng);
        if let Some(operation) = self.clients.call(client, node, plan, rng) {
            self.at(node, 0, Local::Submit(operation));
            self.schedule(CLIENT_PATIENCE, Event::GiveUp(operation));
        }
    }

    pub(super) fn think_later(&mut self, client: u32) {
        let thinking = self.rng.u64(..=self.plan.thinking);
        self.schedule(thinking, Event::Think(client));
    }
}
