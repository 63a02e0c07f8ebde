//! Who is a member of which group.

use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::super::Node;
use super::super::drive::await_outcome;
use super::audience::Audience;
use super::healing::group_of;
use super::{Groups, MOST_GROUPS, Participant};
use crate::error::Failure;
use crate::lock;
use crate::protocol::group::{Group, GroupName};
use crate::protocol::ring::NodeId;
use crate::transport::{Reply, Request};

/// From where on a new member is told messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// Only what is said from now on.
    Now,
    /// So many of the last messages, too.
    Last(u64),
    /// All messages after this number.
    After(u64),
}

/// How a request to join ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joined {
    Yes,
    /// No: nobody can have been shown the number. This is the last one.
    Beyond(u64),
}

/// A member of a group, or a node that does not say which members it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Presence {
    Member(NodeId, String),
    Silent(NodeId),
}

impl Node {
    /// Makes a client a member of a group. It is sent what `print` makes of the number before its first message,
    /// and then the messages.
    ///
    /// # Errors
    /// The group cannot be read, or this node has no room for one more.
    pub fn join_group(
        self: &Arc<Node>,
        name: &GroupName,
        participant: &Arc<Participant>,
        since: Since,
        print: impl FnOnce(u64) -> String,
    ) -> Result<Joined, Failure> {
        self.groups.check_room()?;
        let group = self.read_group_and_wait(name)?;
        let end = group.next - 1;
        let after = match since {
            Since::Now => end,
            Since::Last(count) => end.saturating_sub(count),
            Since::After(number) if number > end => return Ok(Joined::Beyond(end)),
            Since::After(number) => number,
        };
        let now = self.began.elapsed();
        self.groups.open_audience(name, &group, now, |audience| {
            audience.read(name, Some(group.clone()), now);
            participant.reply(&print(after));
            audience.join(name, participant.clone(), after);
        })?;
        Ok(Joined::Yes)
    }

    /// Ends a client's membership. It is sent no message of the group after this. Returns whether it was a
    /// member.
    pub fn leave_group(&self, name: &GroupName, participant: &Participant) -> bool {
        let leave = |audience: &mut Audience| audience.leave(participant.connection);
        self.groups.with_audience(name, leave) == Some(true)
    }

    /// The members of a group at all nodes.
    pub fn who(&self, name: &GroupName) -> Vec<Presence> {
        let questions = self
            .peers
            .ids()
            .map(|peer| (peer, Request::Members(name.clone())));
        let replies = self.peers.ask_together(questions);
        let own = Some(Reply::Members(self.groups.members(name)));
        let mut nodes: Vec<_> = self
            .peers
            .ids()
            .zip(replies)
            .chain([(self.id, own)])
            .collect();
        nodes.sort_by_key(|(node, _)| *node);
        let presences = nodes.into_iter().map(|(node, reply)| match reply {
            Some(Reply::Members(nicks)) => {
                let member = |nick| Presence::Member(node, nick);
                nicks.into_iter().map(member).collect()
            }
            _ => vec![Presence::Silent(node)],
        });
        presences.flatten().collect()
    }

    /// Reads the state of a group, and waits for it.
    pub(super) fn read_group_and_wait(
        self: &Arc<Node>,
        name: &GroupName,
    ) -> Result<Group, Failure> {
        group_of(name, &await_outcome(&self.begin(name.key(), None))?)
    }
}

impl Groups {
    /// The nicks of a group's members here.
    pub fn members(&self, name: &GroupName) -> Vec<String> {
        let nicks = |audience: &mut Audience| audience.nicks().collect();
        self.with_audience(name, nicks).unwrap_or_default()
    }

    /// The groups that have members here: name, number of the last message, and how many members.
    pub fn list(&self) -> Vec<(GroupName, u64, usize)> {
        let audiences = lock(&self.audiences);
        let groups = audiences.iter();
        groups
            .map(|(name, audience)| (name.clone(), audience.last(), audience.count()))
            .collect()
    }

    /// Works on the members of a group, which may have had none here. `work` adds one.
    fn open_audience(
        &self,
        name: &GroupName,
        group: &Group,
        now: Duration,
        work: impl FnOnce(&mut Audience),
    ) -> Result<(), Failure> {
        let mut audiences = lock(&self.audiences);
        let count = audiences.len();
        if let Entry::Vacant(place) = audiences.entry(name.clone()) {
            if count >= MOST_GROUPS {
                return Err(Failure::Busy(format!(
                    "{MOST_GROUPS} groups have members at node {}, which is the most; join at another node",
                    self.node
                )));
            }
            place.insert(Audience::new(group.clone(), now));
        }
        self.work_on(&mut audiences, name, work);
        Ok(())
    }
}
