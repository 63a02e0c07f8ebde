//! The replicas of a key are tried as its coordinator, one after another.

use super::failure::Trouble;
use super::{Effect, Origin, Ticket};
use crate::protocol::ring::NodeId;
use crate::protocol::{Operation, Strategy};

impl<H> Origin<H> {
    /// Sends the request to the next replica, or lets it wait: for numbers if it is a write and there
    /// are none, or for a moment if all replicas have been tried.
    pub(super) fn attempt(&mut self, id: u64, suspects: &[NodeId]) -> Effect<H> {
        let wait = Effect::WakeLater { request: id };
        let request = self.requests.get_mut(&id).expect("it has not ended");
        if request.change.is_some() && request.dot.is_none() {
            request.dot = self.sequences.next();
            if request.dot.is_none() {
                return wait;
            }
        }
        // In the order of the preference list, but suspects and slow coordinators last. Reads of a chain begin
        // at its tail. A replica begins with itself: what it passes on to the tail needs no confirmation.
        let mut untried = self.ring.replicas_of_range(request.range).to_vec();
        if self.strategy == Strategy::Chain && request.change.is_none() {
            untried.reverse();
            untried.sort_by_key(|node| *node != self.node);
        }
        untried.retain(|node| !request.tried.contains(node));
        let mut skipped =
            |node: NodeId| suspects.contains(&node) || self.slow.skips(node, self.now);
        let first = untried.iter().find(|node| !skipped(**node));
        let Some(&to) = first.or(untried.first()) else {
            return wait;
        };
        request.attempt += 1;
        request.tried.push(to);
        request.waits_for = Some((to, self.now));
        let operation = match (&request.change, request.dot) {
            (None, _) => Operation::Get,
            (Some(change), Some(dot)) => Operation::Write {
                dot,
                change: change.clone(),
            },
            (Some(_), None) => unreachable!("a write is numbered before it is sent"),
        };
        Effect::Forward {
            to,
            ticket: Ticket {
                request: id,
                attempt: request.attempt,
            },
            key: request.key.clone(),
            operation,
        }
    }

    /// Gives up waiting for a coordinator that is there, but slow. What it decides later still counts.
    pub(super) fn pass_over(&mut self, id: u64, suspects: &[NodeId], effects: &mut Vec<Effect<H>>) {
        let request = self.requests.get_mut(&id).expect("it has not ended");
        let (coordinator, _) = request.waits_for.expect("it waits for a coordinator");
        request.passed_over = Some(request.attempt);
        request.doubtful = true;
        request.fails_at(coordinator, Trouble::Slow);
        self.slow.add(coordinator, self.now);
        effects.push(self.attempt(id, suspects));
    }
}
