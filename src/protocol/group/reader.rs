//! Reads the messages of a group from a number on: from its state where they are new, else from pages.
//!
//! Each read is linearizable, and a page is cut out of the state only once it is stored. So a page that is
//! not there after the state had passed it was emptied by [`trim`](super::trim).

use std::sync::Arc;

use super::sizes::sizes;
use super::state::{Group, Message, Page, last_of_page, page_of};

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadStep {
    /// Read the group's state, and report it with [`Reader::group`].
    ReadGroup,
    /// Read the key of this page, and report it with [`Reader::page`].
    ReadPage(u64),
    /// All is read up to the group's end at the time of the last read of its state.
    End,
}

/// What was found, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    Message(Arc<Message>),
    /// The messages with these numbers, both included, are not kept any more.
    Missed(u64, u64),
}

/// Reads a group from a number on.
pub struct Reader {
    /// The number of the next message that is wanted.
    next: u64,
    /// The first number in `open` when the state was last read.
    first_open: Option<u64>,
    /// The first of the numbers before `next` that were not found.
    missed_from: Option<u64>,
}

impl Reader {
    /// Reads from the message `next` on. It begins with [`ReadStep::ReadGroup`].
    pub fn new(next: u64) -> Reader {
        Reader {
            next,
            first_open: None,
            missed_from: None,
        }
    }

    /// The number of the first message that was not handed out, and of which it was not said that it is missed.
    pub fn told(&self) -> u64 {
        self.missed_from.unwrap_or(self.next)
    }

    /// Takes the state of the group, and adds what is found to `items`.
    pub fn group(&mut self, group: &Group, items: &mut Vec<Item>) -> ReadStep {
        self.first_open = Some(group.first_open());
        if self.next < group.first_open() {
            return ReadStep::ReadPage(page_of(self.next));
        }
        self.found(&group.open, items);
        if let Some(from) = self.missed_from.take() {
            items.push(Item::Missed(from, self.next - 1));
        }
        ReadStep::End
    }

    /// Takes what the key of the wanted page holds, and adds what is found to `items`.
    pub fn page(&mut self, slot: Option<&Page>, items: &mut Vec<Item>) -> ReadStep {
        let wanted = page_of(self.next);
        match slot {
            Some(page) if page.page == wanted => {
                self.found(&page.messages, items);
                self.skip_to(last_of_page(wanted) + 1);
            }
            // The ring of pages has come round: this is the oldest page that may be there.
            Some(page) if page.page > wanted => {
                let oldest = page.page - sizes().pages + 1;
                self.skip_to(last_of_page(oldest) - sizes().page + 1);
            }
            _ => match self.first_open {
                Some(first_open) if first_open > last_of_page(wanted) => {
                    self.skip_to(last_of_page(wanted) + 1);
                }
                Some(first_open) => self.skip_to(first_open),
                None => {}
            },
        }
        match self.first_open {
            Some(first_open) if self.next < first_open => ReadStep::ReadPage(page_of(self.next)),
            _ => ReadStep::ReadGroup,
        }
    }

    /// Hands out those of these messages that are wanted.
    fn found(&mut self, messages: &[Arc<Message>], items: &mut Vec<Item>) {
        for message in messages {
            if message.number < self.next {
                continue;
            }
            self.skip_to(message.number);
            if let Some(from) = self.missed_from.take() {
                items.push(Item::Missed(from, message.number - 1));
            }
            items.push(Item::Message(message.clone()));
            self.next = message.number + 1;
        }
    }

    /// Notes that nothing before this number can be found.
    fn skip_to(&mut self, number: u64) {
        if number > self.next {
            self.missed_from.get_or_insert(self.next);
            self.next = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 32;
    const PAGES: u64 = 1024;

    fn messages(numbers: impl IntoIterator<Item = u64>) -> Vec<Arc<Message>> {
        let message = |number: u64| {
            Arc::new(Message {
                number,
                nick: "ann".to_owned(),
                text: number.to_string(),
                time: 0,
            })
        };
        numbers.into_iter().map(message).collect()
    }

    /// A group whose messages before `first_open` are on pages, as far as `pages` has them.
    struct Kept {
        group: Group,
        pages: Vec<Page>,
    }

    impl Kept {
        fn new(pages: &[u64], open: std::ops::Range<u64>) -> Kept {
            let page = |&page: &u64| Page {
                page,
                messages: messages(page * PAGE + 1..=last_of_page(page)),
            };
            let group = Group {
                next: open.end,
                open: messages(open),
                ..Group::default()
            };
            Kept {
                group,
                pages: pages.iter().map(page).collect(),
            }
        }

        /// What a reader finds from a number on: the numbers, and what it missed.
        fn read(&self, from: u64) -> (Vec<u64>, Vec<(u64, u64)>) {
            let (mut reader, mut items) = (Reader::new(from), Vec::new());
            let mut step = ReadStep::ReadGroup;
            while step != ReadStep::End {
                step = match step {
                    ReadStep::ReadPage(wanted) => {
                        let same_slot = |page: &&Page| page.page % PAGES == wanted % PAGES;
                        let slot = self.pages.iter().rev().find(same_slot);
                        reader.page(slot, &mut items)
                    }
                    _ => reader.group(&self.group, &mut items),
                };
            }
            let (mut found, mut missed, mut next) = (Vec::new(), Vec::new(), from);
            for item in items {
                match item {
                    Item::Message(message) => {
                        assert_eq!(message.number, next);
                        found.push(message.number);
                        next += 1;
                    }
                    Item::Missed(first, last) => {
                        assert_eq!(first, next);
                        missed.push((first, last));
                        next = last + 1;
                    }
                }
            }
            assert_eq!(next, self.group.next);
            (found, missed)
        }
    }

    #[test]
    fn what_is_new_comes_from_the_state_and_the_rest_from_pages() {
        let kept = Kept::new(&[0, 1], 65..70);
        assert_eq!(kept.read(1), ((1..70).collect(), vec![]));
        assert_eq!(kept.read(40), ((40..70).collect(), vec![]));
        assert_eq!(kept.read(68), ((68..70).collect(), vec![]));
        assert_eq!(kept.read(70), (vec![], vec![]));
        assert_eq!(Kept::new(&[], 1..1).read(1), (vec![], vec![]));
    }

    #[test]
    fn only_what_a_later_page_has_taken_the_place_of_is_missed() {
        // The ring has come round to the slots of pages 0 to 2.
        let pages: Vec<u64> = (0..=1026).collect();
        let kept = Kept::new(&pages, 1027 * PAGE + 1..1027 * PAGE + 3);
        let end = 1027 * PAGE + 3;
        let first_kept = 3 * PAGE + 1;
        assert_eq!(
            kept.read(5),
            ((first_kept..end).collect(), vec![(5, first_kept - 1)])
        );
        assert_eq!(kept.read(first_kept), ((first_kept..end).collect(), vec![]));
    }

    #[test]
    fn what_was_trimmed_is_missed_as_a_whole() {
        // Trimmed after 70, in the middle of page 2, which has filled since.
        let mut kept = Kept::new(&[2, 3], 129..131);
        kept.pages[0].messages.retain(|message| message.number > 70);
        assert_eq!(kept.read(1), ((71..131).collect(), vec![(1, 70)]));
        assert_eq!(kept.read(66), ((71..131).collect(), vec![(66, 70)]));
        // Trimmed after 70, and nothing was said since, or a little.
        assert_eq!(Kept::new(&[], 71..71).read(3), (vec![], vec![(3, 70)]));
        assert_eq!(
            Kept::new(&[], 71..73).read(3),
            (vec![71, 72], vec![(3, 70)])
        );
    }
}
