//! The members that a group has at this node, and what they are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::participant::{News, Participant};
use crate::protocol::group::{Delivery, Group, GroupName, Item, Message};

/// How often a group with members is read though no message seems to be missing.
const HEAL_EVERY: Duration = Duration::from_secs(1);
/// How soon it is read again after that has failed.
const HEAL_AGAIN: Duration = Duration::from_millis(200);
/// Members learn that their node cannot read the group when that has lasted for so long.
const UNREAD: Duration = Duration::from_secs(1);
/// About how many bytes a member that is behind is fed at a time.
const MOUTHFUL: usize = 64 << 10;

/// The members of one group at this node.
pub struct Audience {
    delivery: Delivery,
    /// The group when it was last read.
    group: Arc<Group>,
    /// By the numbers of their connections.
    members: BTreeMap<u64, Member>,
    reading: Reading,
    /// Whether a member has to be fed that had not to be before.
    to_feed: bool,
}

/// When the group is read again. Times are those since the start of the node.
struct Reading {
    /// Whether a read is under way.
    under_way: bool,
    next: Duration,
    /// Since when the group could not be read, if it cannot be.
    failing_since: Option<Duration>,
    /// Whether the members know that.
    told: bool,
    /// Whether the gap will be looked after.
    gap_noticed: bool,
}

struct Member {
    participant: Arc<Participant>,
    /// The number of the next message for it.
    next: u64,
    /// Whether it does not keep up, so that it has to be fed.
    behind: bool,
}

/// What feeding a member came to.
pub enum Fed {
    /// It was sent something.
    Some,
    /// It cannot be sent anything now, or is not behind.
    Nothing,
    /// What it needs is not here. This is the number of the message, and the group when it was last read.
    NeedsReading(u64, Arc<Group>),
}

impl Audience {
    /// Nobody yet, and a group that was just read.
    pub fn new(group: Group, now: Duration) -> Audience {
        Audience {
            delivery: Delivery::new(&group),
            group: Arc::new(group),
            members: BTreeMap::new(),
            reading: Reading {
                under_way: false,
                next: now + HEAL_EVERY,
                failing_since: None,
                told: false,
                gap_noticed: false,
            },
            to_feed: false,
        }
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.delivery.bytes()
    }

    /// Keeps no messages: members are told what is read.
    pub fn forget(&mut self) {
        self.delivery.forget();
    }

    /// How many members there are.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// The number of the last message that is known here.
    pub fn last(&self) -> u64 {
        self.delivery.delivered()
    }

    /// The nicks of the members.
    pub fn nicks(&self) -> impl Iterator<Item = String> {
        self.members
            .values()
            .map(|member| member.participant.nick())
    }

    /// Whether a member has to be fed that had not to be when this was asked last.
    pub fn take_to_feed(&mut self) -> bool {
        std::mem::take(&mut self.to_feed)
    }

    /// The connections of the members that have to be fed.
    pub fn behind(&self) -> impl Iterator<Item = u64> {
        let behind = self.members.iter().filter(|(_, member)| member.behind);
        behind.map(|(connection, _)| *connection)
    }

    /// Takes a member, or takes it anew. It is told the messages after this number.
    pub fn join(&mut self, name: &GroupName, participant: Arc<Participant>, after: u64) {
        let connection = participant.connection;
        let member = Member {
            participant,
            next: after + 1,
            behind: false,
        };
        self.members.insert(connection, member);
        self.deliver(name);
    }

    /// A member leaves. Returns whether it was one.
    pub fn leave(&mut self, connection: u64) -> bool {
        self.members.remove(&connection).is_some()
    }

    /// Takes messages in any order. Returns whether one is missing, and nobody has noticed it before.
    pub fn hear(&mut self, name: &GroupName, messages: Vec<Arc<Message>>) -> bool {
        self.delivery.push(messages);
        self.deliver(name);
        self.notice_gap()
    }

    fn notice_gap(&mut self) -> bool {
        let is_new = self.delivery.has_gap() && !self.reading.gap_noticed;
        self.reading.gap_noticed |= is_new;
        is_new
    }

    /// A gap was noticed a while ago. Returns whether the group is to be read for it.
    pub fn look_after_gap(&mut self, now: Duration) -> bool {
        self.reading.gap_noticed = false;
        self.delivery.has_gap() && self.begin_reading(now)
    }

    /// Returns whether the group is to be read now: if that is not under way.
    fn begin_reading(&mut self, now: Duration) -> bool {
        let begins = !self.reading.under_way;
        self.reading.under_way = true;
        self.reading.failing_since.get_or_insert(now);
        begins
    }

    /// Time has passed. Returns whether the group is to be read.
    pub fn tick(&mut self, name: &GroupName, now: Duration) -> bool {
        let reading = &mut self.reading;
        if let Some(since) = reading.failing_since.filter(|_| !reading.told)
            && now >= since + UNREAD
        {
            reading.told = true;
            for member in self.members.values() {
                let line = (member.participant.print)(name, News::Unreadable);
                member.participant.send(&line);
            }
        }
        now >= self.reading.next && self.begin_reading(now)
    }

    /// The group was read, or could not be. Returns whether a message is missing, and nobody has noticed
    /// it before.
    pub fn read(&mut self, name: &GroupName, group: Option<Group>, now: Duration) -> bool {
        self.reading.under_way = false;
        let Some(group) = group else {
            self.reading.next = now + HEAL_AGAIN;
            return false;
        };
        self.reading.next = now + HEAL_EVERY;
        self.reading.failing_since = None;
        self.reading.told = false;
        self.delivery.heal(&group);
        if group.next >= self.group.next {
            self.group = Arc::new(group);
        }
        self.deliver(name);
        let is_behind = self.behind().next().is_some();
        self.to_feed |= is_behind;
        self.notice_gap()
    }

    /// Sends each member that keeps up what is new. Another one is behind from now on.
    fn deliver(&mut self, name: &GroupName) {
        let end = self.delivery.delivered();
        let mut printed: BTreeMap<u64, Option<String>> = BTreeMap::new();
        for member in self.members.values_mut() {
            if member.behind || member.next > end {
                continue;
            }
            let lines = printed.entry(member.next).or_insert_with(|| {
                let messages = self.delivery.from(member.next)?;
                let items: Vec<Item> = messages.cloned().map(Item::Message).collect();
                Some((member.participant.print)(name, News::Items(&items)))
            });
            match lines {
                Some(lines) if member.participant.send(lines) => member.next = end + 1,
                _ => (member.behind, self.to_feed) = (true, true),
            }
        }
    }

    /// Feeds a member that is behind from what is kept here.
    pub fn feed(&mut self, name: &GroupName, connection: u64) -> Fed {
        let Some(member) = self.members.get(&connection) else {
            return Fed::Nothing;
        };
        if !member.behind || !member.participant.keeps_up() {
            return Fed::Nothing;
        }
        let Some(messages) = self.delivery.from(member.next) else {
            return Fed::NeedsReading(member.next, self.group.clone());
        };
        let mut bytes = 0;
        let mouthful: Vec<Item> = messages
            .take_while(|message| {
                bytes += message.text.len();
                bytes <= MOUTHFUL
            })
            .cloned()
            .map(Item::Message)
            .collect();
        let (from, next) = (member.next, member.next + mouthful.len() as u64);
        self.give(name, connection, from, &mouthful, next)
    }

    /// Gives a member that waits for the message `from` what comes next, up to before the message `next`.
    pub fn give(
        &mut self,
        name: &GroupName,
        connection: u64,
        from: u64,
        items: &[Item],
        next: u64,
    ) -> Fed {
        let Some(member) = self.members.get_mut(&connection) else {
            return Fed::Nothing;
        };
        let lines = (member.participant.print)(name, News::Items(items));
        if member.next != from || !member.participant.send(&lines) {
            return Fed::Nothing;
        }
        member.next = next;
        member.behind = next <= self.delivery.delivered();
        Fed::Some
    }

    /// The group is to be read as soon as possible, since a member needs it.
    pub fn read_soon(&mut self, now: Duration) {
        self.reading.next = self.reading.next.min(now);
    }

    /// Whether the group could be read when it was last tried.
    pub fn is_readable(&self) -> bool {
        !self.reading.told
    }
}
