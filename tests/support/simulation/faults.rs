//! The faults that befall nodes and links.

use std::time::Duration;

use simple_dynamo::testing::rules::{self, Rule};

use super::machine::Condition;
use super::plan::{Fault, MILLISECOND, Sabotage, pick};
use super::world::{Event, Local, World};

impl World {
    pub(super) fn count(&mut self, fault: Fault) {
        *self.counts.faults.entry(fault).or_default() += 1;
    }

    /// Lets something go wrong somewhere, and schedules the next misfortune.
    pub(super) fn misfortune(&mut self) {
        if self.network.calm {
            return;
        }
        let next = self.rng.u64(..=2 * self.plan.calm);
        self.schedule(next, Event::Misfortune);
        let node = self.rng.usize(..self.machines.len());
        if self.rng.u8(..6) == 0 {
            return self.at(node, 0, Local::Refresh);
        }
        let fault = *pick(&mut self.rng, &Fault::ALL);
        if !self.plan.has(fault) {
            return;
        }
        match fault {
            Fault::Loss | Fault::Duplicate | Fault::Late => {}
            Fault::Crash => self.crash(node, fault),
            Fault::PowerLoss => {
                for node in 0..self.machines.len() {
                    self.crash(node, fault);
                }
            }
            Fault::Pause => self.pause(node),
            Fault::Cut => self.cut(node),
            Fault::ClockJump => {
                self.count(fault);
                let by = Duration::from_millis(self.rng.u64(..5_000));
                let forward = self.rng.bool();
                self.machines[node].set_clock_off(forward, by);
                self.at(node, 0, Local::Expire);
            }
            Fault::Abandon => {
                self.count(fault);
                self.at(node, 0, Local::Abandon);
            }
            Fault::LostFolder => self.lose_folder(node),
            Fault::Hang => {
                self.count(fault);
                let hangs = self.rng.u64(100..2_000) * MILLISECOND;
                self.machines[node].hangs_until = self.now + hangs;
            }
        }
    }

    pub(super) fn crash(&mut self, node: usize, fault: Fault) {
        if self.machines[node].condition == Condition::Down {
            return;
        }
        self.count(fault);
        // What was written and not yet synced may be on the disk all the same, in part or as a whole.
        let store = &self.machines[node].store;
        let survives = self.rng.u64(store.synced()..=store.written());
        self.sync(node, survives, false);
        let machine = &mut self.machines[node];
        if self.sabotage == Sabotage::NumbersReused {
            machine.reserved = 0;
        }
        let first_sequence = machine.reserved + 1;
        machine.crash(&self.ring, &self.plan, first_sequence);
        let id = machine.id;
        let store = &machine.store;
        self.invariants.restarted(id, |key| store.durable(key));
        self.invariants.serves_nothing(id);
        for client in self.clients.cut_off(node) {
            self.think_later(client);
        }
        let down = self.rng.u64(..=self.plan.ordeal);
        self.schedule(down, Event::Restart(node));
    }

    pub(super) fn restart(&mut self, node: usize) {
        if self.machines[node].condition == Condition::Down {
            self.machines[node].condition = Condition::Up;
            if !rules::holds(Rule::LostFolderCopied) {
                self.machines[node].copying = None;
            }
            // A node that copies may not number any write yet.
            self.machines[node].reserving = self.machines[node].copying.is_some();
            self.reserve_numbers(node);
            self.copy_on(node);
            self.start_chain(node);
        }
    }

    fn pause(&mut self, node: usize) {
        if self.machines[node].condition == Condition::Up {
            self.count(Fault::Pause);
            self.machines[node].condition = Condition::Paused;
            let pause = self.rng.u64(..=self.plan.ordeal);
            self.schedule(pause, Event::Resume(node));
        }
    }

    /// Lets a node go on. It finds all that came meanwhile, in any order.
    pub(super) fn resume(&mut self, node: usize) {
        if self.machines[node].condition != Condition::Paused {
            return;
        }
        self.machines[node].condition = Condition::Up;
        for event in std::mem::take(&mut self.machines[node].deferred) {
            let moment = self.rng.u64(..2 * MILLISECOND);
            self.schedule(moment, event);
        }
    }

    /// Cuts one link one way, or all links to or from a node.
    fn cut(&mut self, node: usize) {
        self.count(Fault::Cut);
        let length = self.rng.u64(..=self.plan.ordeal);
        let peer = self.rng.usize(..self.machines.len());
        let (all, outward) = (self.rng.bool(), self.rng.bool());
        for other in 0..self.machines.len() {
            if other != node && (all || other == peer) {
                let (from, to) = if outward {
                    (node, other)
                } else {
                    (other, node)
                };
                self.network.cut(from, to);
                self.schedule(length, Event::Heal(from, to));
            }
        }
    }

    /// Ends all faults.
    pub(super) fn make_peace(&mut self) {
        self.network.heal_all();
        for node in 0..self.machines.len() {
            self.restart(node);
            self.resume(node);
        }
    }
}
