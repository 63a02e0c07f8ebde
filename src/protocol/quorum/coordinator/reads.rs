//! The coordinator's reads: carries out what a [`Reader`](crate::protocol::quorum::reader::Reader) wants.

use super::{Coordinator, Effect, Request, Task};
use crate::protocol::quorum::reader::Step;
use crate::protocol::ring::NodeId;
use crate::protocol::{Operation, Outcome, Seen, VoteReply, VoteRequest, Why};

impl<H> Coordinator<H> {
    /// Asks for the ballots that the replicas have accepted. A replica that sent its vote along with the
    /// request is not asked again.
    pub(super) fn start_read(
        &mut self,
        id: u64,
        seen: Option<(NodeId, Seen)>,
        effects: &mut Vec<Effect<H>>,
    ) {
        let replicas = self.ring.replicas_of_range(self.requests[&id].range);
        let seen = seen.filter(|(teller, _)| replicas.contains(teller));
        let voted = seen.as_ref().map(|(teller, _)| *teller);
        self.ask(id, None, voted, VoteRequest::Read { state: false }, effects);
        if let Some((teller, seen)) = seen
            && let Some(Request {
                task: Task::Read(reader),
                ..
            }) = self.requests.get_mut(&id)
        {
            let step = reader.reply(teller, Some(VoteReply::Seen(seen)));
            self.read_step(id, step, effects);
        }
    }

    pub(super) fn read_step(&mut self, id: u64, step: Step, effects: &mut Vec<Effect<H>>) {
        match step {
            Step::Wait => {}
            Step::AskStates => self.ask(id, None, None, VoteRequest::Read { state: true }, effects),
            Step::WriteBack(accepted, laggards) => {
                self.ask(
                    id,
                    Some(&laggards),
                    None,
                    VoteRequest::Accept(accepted),
                    effects,
                );
            }
            Step::Answer(state) => {
                self.answer(id, Outcome::of_read(state.as_deref()), effects);
            }
            Step::Refresh => {
                let request = self
                    .requests
                    .get_mut(&id)
                    .expect("a read that steps is known");
                request.task = Task::Queued(Operation::Refresh);
                return self.queue(id, effects);
            }
            Step::NoQuorum { needed, got } => {
                let outcome = Outcome::not_done(Why::NoQuorum { needed, got });
                self.answer(id, outcome, effects);
                self.requests.remove(&id);
            }
        }
        // What is answered takes no place that others need: what would be repaired once the last
        // replica has been heard, anti-entropy finds.
        let crowded = self.requests.len() > self.capacity / 2;
        let Some(Request {
            task: Task::Read(reader),
            key,
            ..
        }) = self.requests.get_mut(&id)
        else {
            return;
        };
        let laggards = reader.take_laggards().into_iter();
        effects.extend(laggards.map(|(accepted, to)| Effect::Repair {
            to,
            key: key.clone(),
            accepted,
        }));
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

    /// Whom the read of a replica or another node asks, and whether the coordinator's own vote
    /// then answers it.
    fn read(teller: NodeId, vote: Seen) -> (Vec<NodeId>, bool) {
        let (mut coordinator, mut effects) = (coordinator(), Vec::new());
        let key = Key::from("foo");
        let vote = Some((teller, vote));
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
    fn a_replica_that_tells_what_it_has_seen_is_not_asked_and_its_vote_counts() {
        let [next, last] = OTHERS;
        assert_eq!(read(next, seen(3, false)), (vec![NODE, last], true));
        assert_eq!(read(last, seen(3, false)), (vec![NODE, next], true));
    }

    #[test]
    fn what_is_told_decides_nothing_alone() {
        let [next, last] = OTHERS;
        assert_eq!(read(next, seen(2, false)), (vec![NODE, last], false));
        let nothing = Seen {
            ballot: Ballot::ZERO,
            state: None,
        };
        assert_eq!(read(next, nothing), (vec![NODE, last], false));
    }

    #[test]
    fn what_is_answered_takes_no_place_that_others_need() {
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
    fn what_another_node_tells_does_not_count() {
        let all = vec![NODE, OTHERS[0], OTHERS[1]];
        assert_eq!(read(NodeId(5558), seen(3, false)), (all, false));
    }
}
