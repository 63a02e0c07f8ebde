//! What clients of this node say is gathered while the node's one append is in flight, and goes out together.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::Node;
use super::MOST_GATHERED;
use super::healing::no_group;
use crate::error::Failure;
use crate::lock;
use crate::protocol::group::{Fate, Group, GroupName, Message, Said, Say, Saying, Sender, Settled};
use crate::protocol::{Change, Outcome, Verdict};
use crate::transport::Request;

/// How long to wait after a failure before the group is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receipt {
    /// It is in the group, with this number if that is known.
    Done(Option<u64>),
    /// This request did not append it: the message before it in its session is missing, or another text was
    /// sent under its name.
    Conflict,
    /// Its session is forgotten. It is not in the group if its client had been shown this number before it
    /// said it.
    Gone(u64),
    /// Nobody can have been shown as many messages as it says.
    Beyond,
}

/// Gets a client's receipt. It runs exactly once, on any thread.
pub type OnReceipt = Box<dyn FnOnce(Result<Receipt, Failure>) + Send>;

impl Node {
    /// Says something in a group. `on_receipt` runs exactly once, on any thread.
    pub fn say(
        self: &Arc<Node>,
        group: &GroupName,
        sender: Option<Sender>,
        nick: String,
        text: String,
        on_receipt: OnReceipt,
    ) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let saying = Saying {
            sender,
            nick,
            text,
            time: since_1970.map_or(0, |time| time.as_millis() as u64),
        };
        let now = self.began.elapsed();
        let has_room = self.groups.gathered.load(Ordering::Relaxed) < MOST_GATHERED;
        let turned_away = self.groups.with_gather(group, |gather| {
            if !has_room || gather.is_crowded() {
                return Some(on_receipt);
            }
            gather.add(on_receipt, saying, now);
            None
        });
        match turned_away {
            Some(on_receipt) => on_receipt(Err(Failure::Busy(format!(
                "too much waits to be said at node {}; nothing was said: try again later",
                self.id
            )))),
            None => self.go_on_saying(group),
        }
    }

    /// Sends the next append of a group, and stores a page, if either is due.
    fn go_on_saying(self: &Arc<Node>, group: &GroupName) {
        let (page_due, append) = self.groups.with_gather(group, |gather| {
            (gather.take_page_due(), gather.next_append())
        });
        if page_due {
            self.store_page(group);
        }
        if let Some(say) = append {
            self.append(group, say);
        }
    }

    fn append(self: &Arc<Node>, group: &GroupName, say: Say) {
        let (node, name) = (self.clone(), group.clone());
        let on_result = move |result| match said(&name, result) {
            Ok(said) => node.appended(&name, &said),
            Err(failure) => node.not_appended(&name, &failure),
        };
        let change = Change::Say(Arc::new(say));
        self.submit(group.key(), Some(change), Box::new(on_result));
    }

    fn appended(self: &Arc<Node>, group: &GroupName, said: &Said) {
        let full = said
            .fates
            .iter()
            .filter(|fate| **fate == Fate::Full)
            .count();
        self.stats.group_full.add(full as u64);
        let answered = |gather: &mut super::Gather<OnReceipt>| gather.answered(said);
        let (settled, messages) = self.groups.with_gather(group, answered);
        self.go_on_saying(group);
        self.multicast(group, messages);
        self.give_receipts(group, settled);
    }

    fn not_appended(self: &Arc<Node>, group: &GroupName, failure: &Failure) {
        for handle in self.groups.with_gather(group, super::Gather::failed) {
            handle(Err(failure.clone()));
        }
        self.go_on_later(group);
    }

    fn go_on_later(self: &Arc<Node>, group: &GroupName) {
        let (node, name) = (self.clone(), group.clone());
        self.after(AGAIN, move || node.go_on_saying(&name));
    }

    /// Tells all nodes of new messages (B-multicast). They are hints: a node that misses one reads the group.
    fn multicast(self: &Arc<Node>, group: &GroupName, messages: Vec<Arc<Message>>) {
        if messages.is_empty() {
            return;
        }
        self.stats.group_messages.add(messages.len() as u64);
        for link in self.peers.links() {
            let (group, messages) = (group.clone(), messages.clone());
            link.hint(Request::Said { group, messages });
        }
        self.hear(group, messages);
    }

    fn give_receipts(self: &Arc<Node>, group: &GroupName, settled: Vec<Settled<OnReceipt>>) {
        let mut unclear = Vec::new();
        for own in settled {
            let receipt = match own.fate {
                Fate::Appended => Receipt::Done(own.number),
                Fate::Gap | Fate::Conflict => Receipt::Conflict,
                Fate::Beyond => Receipt::Beyond,
                // An answer is too short for their numbers.
                Fate::Before | Fate::Gone => {
                    unclear.push(own);
                    continue;
                }
                Fate::Full => unreachable!("such a message goes out again"),
            };
            (own.handle)(Ok(receipt));
        }
        if !unclear.is_empty() {
            self.read_group(group, move |group| {
                for own in unclear {
                    let receipt = receipt_in(&group, &own.saying, own.fate);
                    (own.handle)(receipt);
                }
            });
        }
    }

    /// Stores the page that `open` begins with, so that the next append can cut it off.
    fn store_page(self: &Arc<Node>, group: &GroupName) {
        let (node, name) = (self.clone(), group.clone());
        self.read_group(group, move |group| {
            let Some(page) = group.ok().and_then(|group| group.front_page()) else {
                return node.page_stored(&name, None);
            };
            let (key, number) = (name.page_key(page.page), page.page);
            let (same_node, same_name) = (node.clone(), name.clone());
            // It may be there already. Then this is refused, and it is stored all the same.
            let on_result = move |result: Result<Outcome, Failure>| {
                same_node.page_stored(&same_name, result.ok().map(|_| number));
            };
            node.submit(
                key,
                Some(Change::PutPage(Arc::new(page))),
                Box::new(on_result),
            );
        });
    }

    fn page_stored(self: &Arc<Node>, group: &GroupName, page: Option<u64>) {
        self.groups
            .with_gather(group, |gather| gather.page_stored(page));
        match page {
            Some(_) => self.go_on_saying(group),
            None => self.go_on_later(group),
        }
    }

    /// Takes out what has waited too long to be appended.
    pub(super) fn expire_gathered(&self, now: Duration) {
        let gathers = lock(&self.groups.gathers);
        let waiting = gathers.iter().filter(|(_, gather)| gather.bytes() > 0);
        let groups: Vec<GroupName> = waiting.map(|(group, _)| group.clone()).collect();
        drop(gathers);
        for group in groups {
            let expire =
                |gather: &mut super::Gather<OnReceipt>| (gather.is_full(), gather.expire(now));
            let (is_full, late) = self.groups.with_gather(&group, expire);
            for handle in late {
                handle(Err(not_in_time(&group, is_full)));
            }
        }
    }
}

fn not_in_time(group: &GroupName, is_full: bool) -> Failure {
    if is_full {
        let text = format!("the messages of #{group} cannot be stored as fast; nothing was said");
        Failure::Busy(text)
    } else {
        let text = format!("the messages before it in #{group} take too long; nothing was said");
        Failure::Unavailable(text)
    }
}

/// The answer of an append.
fn said(group: &GroupName, result: Result<Outcome, Failure>) -> Result<Said, Failure> {
    match result? {
        Outcome::Decided(Verdict::Answered(answer)) => answer.parse().map_err(|_| no_group(group)),
        _ => {
            let text = "it was appended or refused, but the answer is not known any more";
            Err(Failure::Unknown(text.to_owned()))
        }
    }
}

/// What became of a message whose answer did not say it all.
fn receipt_in(
    group: &Result<Group, Failure>,
    saying: &Saying,
    fate: Fate,
) -> Result<Receipt, Failure> {
    let Some(sender) = saying.sender.as_ref().filter(|_| fate == Fate::Before) else {
        let group = group.as_ref().map_err(Failure::clone)?;
        return Ok(Receipt::Gone(group.horizon));
    };
    let last = group
        .as_ref()
        .ok()
        .and_then(|group| group.senders.get(&sender.id));
    let number = last
        .filter(|(seq, _)| *seq == sender.seq)
        .map(|(_, number)| *number);
    Ok(Receipt::Done(number))
}
