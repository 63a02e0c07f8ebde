//! The second strategy: a chain of replicas for each range, after van Renesse and Schneider, "Chain
//! Replication for Supporting High Throughput and Availability" (OSDI 2004).
//!
//! A write comes to the first member of the chain, the *head*, which decides it and passes it on. Each member
//! makes it durable before it passes it on. The last member, the *tail*, has what all have, so its answer
//! travels back and becomes the client's. A read comes to the tail.
//!
//! The paper has a master that is never wrong about who failed. Here nobody is never wrong, so a chain is
//! *fenced*. A chain is named by an [`epoch`], and each replica takes part only in the highest epoch that it
//! has adopted. A replica that finds another one silent proposes a new epoch without it. An epoch begins once
//! all its members have adopted it and hold whatever any of them held. Two chains of a range share a member,
//! since each has two of the three replicas at least. That member refuses the older one.
//!
//! # The algorithm on one screen
//!
//! ```text
//! write(key, f, dot):                                     at the head
//!   state' = state.absorb(dot, f)                         unchanged if an earlier attempt was decided
//!   take state' at the next ballot of the epoch
//!   once that is durable: pass(epoch, key, state') to the next member
//!   after its answer: answer                              now all members hold state', durably
//!
//! pass(epoch, key, state):                                at each other member
//!   refuse unless this is the epoch that it serves
//!   take the state if it is higher than the own one
//!   once that is durable: the tail answers; any other passes it on, and answers after the next has
//!
//! read(key):                                              at the tail
//!   take the value, then ask one other member: do you serve this epoch?
//!   after its yes: answer                                 one question serves all reads that wait for it; a member
//!                                                         that has passed the read on has said yes already
//!
//! change of the chain:                                    at a replica that misses somebody, or is missed
//!   ask the others: are you there, and what do you serve?
//!   epoch = (a round above all heard of, this node), with all that answered, W at least
//!   adopt it, durably, and ask the other members to
//!   once all have: take of each key the highest state that any of them holds; where they differed, at a
//!       ballot of this epoch; and give it to all
//!   once all hold all, durably: the epoch begins
//! ```
//!
//! # Invariants
//!
//! 1. The epoch that a replica has adopted never decreases, restarts included.
//! 2. There is one list of members per epoch, of W at least.
//! 3. When an epoch begins, all its members have adopted it or a higher one, and hold for each key at least
//!    the highest ballot that any of them held.
//! 4. What the members hold of a key in an epoch never increases from head to tail.
//! 5. There is one state per key and ballot, and the head's ballots grow.
//! 6. No write is answered before all members of its epoch hold it durably.
//! 7. No read is answered without a member beside the tail that served the same epoch after the client asked.
//! 8. No record of a range changes between adopting and beginning but by what the proposer moves. None of a
//!    member that serves changes but by a write, or by a tombstone that all replicas hold and drop.
//! 9. Each dot is absorbed at most once along a key's states.
//! 10. No replica serves an epoch twice.
//!
//! # Reading order
//!
//! [`epoch`] names chains. [`member`] is one replica's part in the chain of one range: it serves, answers and
//! stops. `requests.rs` has its writes and what it passes on, [`reads`] the tail's reads, and `waits.rs` what it does
//! once it hears an answer, or does not. In `look.rs` a replica looks whether its chain is still the present one, and
//! in `change.rs` the next one begins. In `disk.rs` a node notices that its disk hangs. `question.rs` is what members
//! say to each other, `effect.rs` what they want done, `cause.rs` what is told of a new epoch, and this module holds
//! what they share.
//!
//! # Known limits
//!
//! With two of three replicas left, nobody answers while one of them is away, until a third has caught up.

mod cause;
mod change;
mod disk;
mod effect;
pub mod epoch;
mod look;
pub mod member;
mod question;
pub mod reads;
mod requests;
mod waits;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bytes::Key;
use crate::protocol::ring::{NodeId, Position, Ring};
use crate::protocol::{Accepted, Fence, Operation, Outcome, Quorums, Record, Why, origin};
pub use cause::Cause;
use disk::DiskWatch;
pub use effect::{Context, Effect, Ticket};
use epoch::{Adopted, Epoch};
use member::{Member, Request};
pub use question::{Answer, Question, Status};

/// A place in the log of this node's disk. All entries up to it are durable, or not yet. 0 is always durable.
pub type LogPlace = u64;

/// What a chain reads and changes of its node's disk. Changes are seen at once, and are durable later.
pub trait Replica {
    /// The highest epoch that this replica has adopted for a range.
    fn adopted(&self, range: usize) -> Adopted;
    /// Adopts an epoch. Returns the place in the log that makes it durable.
    fn adopt(&mut self, range: usize, adopted: &Adopted) -> LogPlace;
    /// A key's record, and the place in the log that makes it durable.
    fn record(&self, key: &Key) -> (Record, LogPlace);
    /// What remains of the dropped tombstones of a range.
    fn fence(&self, range: usize) -> Fence;
    /// Takes a state. Returns the place in the log that makes it durable.
    fn take(&mut self, key: &Key, accepted: &Accepted) -> LogPlace;
    /// The end of the log.
    fn written(&self) -> LogPlace;
    /// How far the log is durable.
    fn durable(&self) -> LogPlace;
}

/// The times of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A peer that is silent for so long is suspected.
    pub time_out: Duration,
    /// A request ends within this time.
    pub deadline: Duration,
}

/// One node's part in the chains of all its ranges. `H` is the caller's note of whom to answer.
pub struct Chain<H> {
    node: NodeId,
    ring: Arc<Ring>,
    members: BTreeMap<usize, Member<H>>,
    disk: DiskWatch,
    /// How many requests of each range wait or are under way at a time.
    capacity: usize,
}

impl<H> Chain<H> {
    /// A process that serves nothing yet. Each range takes up to `capacity` requests at a time.
    pub fn new(
        node: NodeId,
        ring: Arc<Ring>,
        quorums: Quorums,
        times: Times,
        capacity: usize,
    ) -> Self {
        let member = |range| {
            let replicas = ring.replicas_of_range(range).to_vec();
            let member = Member::new(node, range, replicas, quorums, times);
            (range, member)
        };
        let members = ring.ranges_of(node).into_iter().map(member).collect();
        Chain {
            node,
            ring,
            members,
            disk: DiskWatch::new(times.time_out),
            capacity,
        }
    }

    /// A request. `vouched` is the epoch that a member serves which passed the request on.
    pub fn request(
        &mut self,
        handle: H,
        key: Key,
        operation: Operation,
        vouched: Option<Epoch>,
        mut context: Context<'_, H>,
    ) {
        let range = self.ring.range_at(Position::of_key(&key));
        let why_not = match self.members.get(&range) {
            None => Some(Why::NotReplica),
            Some(member) if member.load() >= self.capacity => Some(Why::Overloaded),
            Some(_) => None,
        };
        if let Some(why) = why_not {
            return context.answer(handle, Outcome::not_done(why), 0);
        }
        let request = Request {
            handle,
            key,
            operation,
            ends: context.now + self.member(range).times.deadline,
            absorbed: false,
            passed_on: vouched.is_some(),
        };
        self.member(range).request(request, vouched, &mut context);
    }

    /// Another replica asks about a range.
    pub fn asked(
        &mut self,
        handle: H,
        from: NodeId,
        range: usize,
        question: Question,
        mut context: Context<'_, H>,
    ) {
        match self.members.get_mut(&range) {
            Some(member) => member.asked(handle, from, question, &mut context),
            None => context.tell(handle, Answer::Refused, 0),
        }
    }

    /// A replica's answer to a question, or none if it was silent.
    pub fn reply(&mut self, ticket: Ticket, answer: Option<Answer>, mut context: Context<'_, H>) {
        let member = self.member(ticket.range);
        member.heard(ticket.number, answer, &mut context);
    }

    /// What came of a request that was passed on.
    pub fn outcome(&mut self, ticket: Ticket, answer: origin::Answer, context: Context<'_, H>) {
        let member = self.member(ticket.range);
        member.outcome(ticket.number, answer, context.effects);
    }

    /// This node may take part from now on: it goes on from what its disk says.
    pub fn start(&mut self, replica: &dyn Replica) {
        self.members
            .values_mut()
            .for_each(|member| member.start(replica));
    }

    /// A peer is heard again: it may have news of any range.
    pub fn look_soon(&mut self) {
        self.members.values_mut().for_each(Member::look_soon);
    }

    /// Whether the answer to a question is still waited for.
    pub fn still_asks(&self, ticket: Ticket) -> bool {
        let member = self.members.get(&ticket.range);
        member.is_some_and(|member| member.asked.contains_key(&ticket.number))
    }

    /// Time has passed: gives up what was asked too long ago, and looks after each chain.
    pub fn tick(&mut self, context: &mut Context<'_, H>) {
        let hung = self.disk.hangs;
        let hangs = self.disk.look(context.replica, context.now);
        if hangs != hung {
            context.effects.push(Effect::Disk { hangs });
        }
        for member in self.members.values_mut() {
            if hangs {
                member.step_aside(context);
            } else {
                member.tick(context);
            }
            context.chance = context.chance.rotate_left(7).wrapping_mul(0x9E37_79B9);
        }
    }

    /// A member of this epoch, which has not begun, holds this of a key, and this replica holds something else.
    /// Returns whether this replica still waits for that.
    pub fn move_in(
        &mut self,
        range: usize,
        epoch: Epoch,
        key: &Key,
        theirs: Option<&Accepted>,
        replica: &mut dyn Replica,
    ) -> bool {
        self.member(range).move_in(epoch, key, theirs, replica)
    }

    /// All that the others hold was moved in: renews some of it. To be called again until nothing is left, and it
    /// returns true.
    pub fn renew(&mut self, range: usize, epoch: Epoch, replica: &mut dyn Replica) -> bool {
        self.member(range).renew(epoch, replica)
    }

    /// All that the others hold was moved in and renewed, or not all of it could be had.
    pub fn collected(
        &mut self,
        range: usize,
        epoch: Epoch,
        whole: bool,
        mut context: Context<'_, H>,
    ) {
        self.member(range).collected(epoch, whole, &mut context);
    }

    /// Pulls a state from a member while this replica is left out. Returns whether it still is.
    pub fn pull_in(
        &mut self,
        range: usize,
        since: Epoch,
        key: &Key,
        accepted: &Accepted,
        replica: &mut dyn Replica,
    ) -> bool {
        self.member(range).pull_in(since, key, accepted, replica)
    }

    /// A comparison with a member has come to its end.
    pub fn caught_up(&mut self, range: usize, whole: bool, now: Duration) {
        self.member(range).caught_up(whole, now);
    }

    /// A member of the chain of a range does not answer, and is needed.
    pub fn missed(&mut self, range: usize) {
        self.member(range).trouble_with_silence();
    }

    /// Whether this replica takes part in this epoch: it has adopted it in this life, and not stopped it.
    pub fn takes_part(&self, range: usize, epoch: Epoch) -> bool {
        let member = self.members.get(&range);
        member.is_some_and(|member| member.takes_part(epoch))
    }

    /// The epoch of a range that this replica serves with all others.
    pub fn whole_epoch(&self, range: usize) -> Option<Epoch> {
        let member = self.members.get(&range)?;
        let is_whole = member.serves() && member.adopted.members == member.replicas;
        is_whole.then_some(member.adopted.epoch)
    }

    /// Whether tombstones may be dropped that all replicas hold: not while an epoch is beginning.
    pub fn may_drop(&self, range: usize) -> bool {
        let member = self.members.get(&range);
        member.is_none_or(|member| member.part != member::Part::Adopted)
    }

    /// What this replica would say of a range, or none if it does not hold it.
    pub fn status(&self, range: usize) -> Option<Status> {
        self.members.get(&range).map(Member::status)
    }

    fn member(&mut self, range: usize) -> &mut Member<H> {
        let node = self.node;
        let member = self.members.get_mut(&range);
        member.unwrap_or_else(|| panic!("{node} is asked about range {range}, which it holds"))
    }
}
