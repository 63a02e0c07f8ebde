//! What a client does in groups.

use super::{Next, Session};
use crate::error::Failure;
use crate::node::groups::{Joined, News, Since};
use crate::protocol::group::GroupName;
use crate::server::group_command::GroupCommand;
use crate::server::{group_text, text};

/// The most groups that one connection may be a member of.
const MOST_GROUPS: usize = 16;

impl Session<'_> {
    pub(super) fn execute_group(&mut self, command: GroupCommand) -> Next {
        match command {
            GroupCommand::Nick(nick) => {
                self.participant.set_nick(nick);
                self.reply("OK\n");
            }
            GroupCommand::Join { group, since } => self.join(group, since),
            GroupCommand::Leave(group) => {
                self.node.leave_group(&group, &self.participant);
                self.joined.remove(&group);
                self.reply("OK\n");
            }
            GroupCommand::History {
                group,
                after,
                count,
            } => return self.history(&group, after, count),
            GroupCommand::Who(group) => {
                let presences = self.node.who(&group);
                let lines = presences.iter().map(group_text::presence);
                self.reply(&text::listing(lines));
            }
            GroupCommand::List => {
                let groups = self.node.groups.list().into_iter();
                let lines =
                    groups.map(|(name, last, count)| format!("GROUP {name} {last} {count}"));
                self.reply(&text::listing(lines));
            }
            GroupCommand::Trim(group) => match self.node.trim(&group) {
                Ok(last) => self.reply(&format!("OK {last}\n")),
                Err(failure) => self.reply(&text::failure(&failure)),
            },
        }
        Next::Serve
    }

    /// Joins a group. The reply is sent together with becoming a member, so that it comes before all messages.
    fn join(&mut self, group: GroupName, since: Since) {
        if self.joined.len() >= MOST_GROUPS && !self.joined.contains(&group) {
            let text = format!(
                "a connection is in at most {MOST_GROUPS} groups; LEAVE one, or connect again"
            );
            return self.reply(&text::failure(&Failure::Busy(text)));
        }
        let print = |number| format!("JOINED {group} {number}\n");
        match self
            .node
            .join_group(&group, &self.participant, since, print)
        {
            Ok(Joined::Yes) => drop(self.joined.insert(group)),
            Ok(Joined::Beyond(end)) => self.reply(&format!("CONFLICT {end}\n")),
            // The connection goes on, whatever is lacking.
            Err(failure) => self.reply(&text::failure(&failure)),
        }
    }

    fn history(&self, group: &GroupName, after: Option<u64>, count: usize) -> Next {
        self.serve_many("read groups", || {
            let found = self.node.read_history(group, after, count, &mut |items| {
                self.send_part(&group_text::news(group, News::Items(items)))
            })?;
            Ok(text::end(found as u64))
        })
    }

    /// Ends all memberships.
    pub(super) fn leave_all(&self) {
        for group in &self.joined {
            self.node.leave_group(group, &self.participant);
        }
    }
}
