//! The coordinator's reads: carries out what a [`Reader`](crate::protocol::quorum::reader::Reader) wants.

use super::{Coordinator, Effect, Task};
use crate::protocol::quorum::reader::ReadStep;
use crate::protocol::ring::NodeId;
use crate::protocol::{Operation, Outcome, Seen, VoteReply, VoteRequest, Why};

impl<H> Coordinator<H> {
    /// Asks the replicas for the ballots that they have accepted. A replica that sent its vote along
    /// with the request is not asked again.
    pub(super) fn start_read(
        &mut self,
        id: u64,
        seen: Option<(NodeId, Seen)>,
        effects: &mut Vec<Effect<H>>,
    ) {
        let replicas = self.ring.replicas_of_range(self.requests[&id].range);
        let vote = seen.filter(|(voter, _)| replicas.contains(voter));
        let mut to = self.replicas(id);
        to.retain(|replica| vote.as_ref().is_none_or(|(voter, _)| voter != replica));
        self.ask(id, to, VoteRequest::Read { state: false }, effects);
        if let Some((voter, seen)) = vote {
            let reader = self.request_mut(id).reader();
            let step = reader.reply(voter, Some(VoteReply::Seen(seen)));
            self.read_step(id, step, effects);
        }
    }

    pub(super) fn read_step(&mut self, id: u64, step: ReadStep, effects: &mut Vec<Effect<H>>) {
        match step {
            ReadStep::Wait => self.repair(id, effects),
            ReadStep::AskStates => {
                let to = self.replicas(id);
                self.ask(id, to, VoteRequest::Read { state: true }, effects);
            }
            ReadStep::WriteBack(accepted, laggards) => {
                self.ask(id, laggards, VoteRequest::Accept(accepted), effects);
            }
            ReadStep::Answer(state) => {
                let outcome = Outcome::of_read(state.as_deref());
                self.request_mut(id).answer(outcome, effects);
                self.repair(id, effects);
            }
            ReadStep::Refresh => {
                self.request_mut(id).task = Task::Queued(Operation::Refresh);
                self.queue(id, effects);
            }
            ReadStep::NoQuorum { needed, got } => {
                let outcome = Outcome::not_done(Why::NoQuorum { needed, got });
                self.end(id, outcome, effects);
            }
        }
    }

    /// Sends the answered state to the replicas that lag behind it, and forgets the read once all
    /// replicas have been heard.
    fn repair(&mut self, id: u64, effects: &mut Vec<Effect<H>>) {
        let crowded = self.requests.len() > self.capacity / 2;
        let request = self.request_mut(id);
        let key = request.key.clone();
        let reader = request.reader();
        for (accepted, to) in reader.take_repairs() {
            let key = key.clone();
            effects.push(Effect::Repair { to, key, accepted });
        }
        // An answered read must not take the place of a new request: what it would still repair,
        // anti-entropy finds.
        if reader.finished() || reader.answered() && crowded {
            self.requests.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bytes::Key;
    use crate::protocol::ring::Ring;
    use crate::protocol::{Ballot, Quorums};

    const NODE: NodeId = NodeId(5562);
    const OTHERS: [NodeId; 2] = [NodeId(5556), NodeId(5554)];

    /// The course's coordinator of the key `foo`.
    fn coordinator() -> Coordinator<()> {
        let ring = Arc::new(Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3));
        let quorums = Quorums {
            replicas: 3,
            read: 2,
            write: 2,
        };
        Coordinator::new(NODE, ring, quorums, 9)
    }

    fn seen(round: u64, state: bool) -> Seen {
        Seen {
            ballot: Ballot::first(round, NODE),
            state: state.then(Arc::default),
        }
    }

    /// Whom the coordinator asks for a read that came with the vote of this node, and whether its own
    /// vote then answers the read.
    fn read(voter: NodeId, vote: Seen) -> (Vec<NodeId>, bool) {
        let (mut coordinator, mut effects) = (coordinator(), Vec::new());
        let key = Key::from("foo");
        let vote = Some((voter, vote));
        coordinator.request((), key, Operation::Get, Ballot::ZERO, vote, &mut effects);
        let mut asked = Vec::new();
        let mut answered = Vec::new();
        for effect in effects {
            let Effect::Ask { to, ticket, .. } = effect else {
                panic!("{effect:?}");
            };
            asked.extend(&to);
            if to.contains(&NODE) {
                let own = Some(VoteReply::Seen(seen(3, true)));
                coordinator.reply(ticket, NODE, own, &mut answered);
            }
        }
        let is_answer = |effect: &Effect<()>| matches!(effect, Effect::Answer { .. });
        (asked, answered.iter().any(is_answer))
    }

    #[test]
    fn a_replica_that_sends_its_vote_along_is_not_asked_and_its_vote_counts() {
        let [next, last] = OTHERS;
        assert_eq!(read(next, seen(3, false)), (vec![NODE, last], true));
        assert_eq!(read(last, seen(3, false)), (vec![NODE, next], true));
    }

    #[test]
    fn a_vote_that_was_sent_along_decides_nothing_alone() {
        let [next, last] = OTHERS;
        assert_eq!(read(next, seen(2, false)), (vec![NODE, last], false));
        let nothing = Seen {
            ballot: Ballot::ZERO,
            state: None,
        };
        assert_eq!(read(next, nothing), (vec![NODE, last], false));
    }

    #[test]
    fn an_answered_read_takes_no_place_that_a_new_one_needs() {
        let mut coordinator = coordinator();
        for number in 0..20 {
            let mut effects = Vec::new();
            let (zero, key) = (Ballot::ZERO, Key::from("foo"));
            coordinator.request((), key, Operation::Get, zero, None, &mut effects);
            let Some(&Effect::Ask { ticket, .. }) = effects.first() else {
                panic!("read {number}: {effects:?}")
            };
            // The third replica is not heard for long.
            for from in [NODE, OTHERS[0]] {
                let reply = VoteReply::Seen(seen(7, from == NODE));
                coordinator.reply(ticket, from, Some(reply), &mut effects);
            }
            let answered = |effect: &Effect<()>| matches!(effect, Effect::Answer { .. });
            assert!(effects.iter().any(answered), "read {number}");
        }
    }

    #[test]
    fn the_vote_of_another_node_does_not_count() {
        let all = vec![NODE, OTHERS[0], OTHERS[1]];
        assert_eq!(read(NodeId(5558), seen(3, false)), (all, false));
    }
}
