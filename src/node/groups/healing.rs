//! Messages reach the members of this node by hints. What no hint brought is read here.

use std::sync::Arc;
use std::time::Duration;

use super::super::Node;
use crate::error::Failure;
use crate::lock;
use crate::protocol::Outcome;
use crate::protocol::group::{Group, GroupName, Message};
use crate::testing::rules::{self, Rule};

/// How long a message may be missing before the group is read.
const GAP: Duration = Duration::from_millis(20);

impl Node {
    /// Takes messages of a group from the node that appended them.
    pub(in crate::node) fn hear(self: &Arc<Node>, group: &GroupName, messages: Vec<Arc<Message>>) {
        let hear = |audience: &mut super::Audience| audience.hear(group, messages);
        if self.groups.with_audience(group, hear) == Some(true) {
            self.heal_after_gap(group);
        }
    }

    /// Reads the group unless the missing message comes soon.
    pub(super) fn heal_after_gap(self: &Arc<Node>, group: &GroupName) {
        let (node, name) = (self.clone(), group.clone());
        self.after(GAP, move || {
            let now = node.began.elapsed();
            let look = |audience: &mut super::Audience| audience.look_after_gap(now);
            if node.groups.with_audience(&name, look) == Some(true) {
                node.stats.gaps_healed.add(1);
                node.heal(&name);
            }
        });
    }

    /// Time has passed.
    pub(in crate::node) fn tick_groups(self: &Arc<Node>) {
        let now = self.began.elapsed();
        let mut due = Vec::new();
        for (name, audience) in lock(&self.groups.audiences).iter_mut() {
            if audience.tick(name, now) {
                due.push(name.clone());
            }
        }
        due.iter().for_each(|name| self.heal(name));
        self.expire_gathered(now);
    }

    fn heal(self: &Arc<Node>, group: &GroupName) {
        if !rules::holds(Rule::Healed) {
            return;
        }
        let (node, name) = (self.clone(), group.clone());
        self.read_group(group, move |read| {
            let now = node.began.elapsed();
            let take = |audience: &mut super::Audience| audience.read(&name, read.ok(), now);
            if node.groups.with_audience(&name, take) == Some(true) {
                node.heal_after_gap(&name);
            }
        });
    }

    /// Reads the state of a group.
    pub(super) fn read_group(
        self: &Arc<Node>,
        group: &GroupName,
        then: impl FnOnce(Result<Group, Failure>) + Send + 'static,
    ) {
        let name = group.clone();
        let on_result = move |result: Result<Outcome, Failure>| {
            then(result.and_then(|outcome| group_of(&name, &outcome)));
        };
        self.submit(group.key(), None, Box::new(on_result));
    }
}

/// The group that was read.
///
/// # Errors
/// `SYNTAX` if the key holds something else.
pub(super) fn group_of(name: &GroupName, outcome: &Outcome) -> Result<Group, Failure> {
    let value = match outcome {
        Outcome::Found { value, .. } => Some(value),
        _ => None,
    };
    Group::of(value).map_err(|_| no_group(name))
}

pub(super) fn no_group(name: &GroupName) -> Failure {
    Failure::Syntax(format!(
        "the key #{name} holds something else than a group; choose another name"
    ))
}
