//! Feeds the members that do not keep up, each at its own pace, and reads what is older than the state of a group.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, select};

use super::super::Node;
use super::super::drive::await_outcome;
use super::audience::{Audience, Fed};
use crate::error::Failure;
use crate::lock;
use crate::protocol::Outcome;
use crate::protocol::group::{Group, GroupName, Item, Page, ReadStep, Reader, page_of};
use crate::transport;

/// How many pages are read at a time.
const PAGES_AT_A_TIME: usize = 4;
/// How many pages are kept, which never change.
const PAGES_KEPT: usize = 256;
/// How long to wait before a member is offered more.
const PACE: Duration = Duration::from_millis(5);
/// How long to wait if nobody is behind.
const IDLE: Duration = Duration::from_secs(3600);

/// The pages that were read last, of all groups.
#[derive(Default)]
pub struct PageCache(VecDeque<(GroupName, Arc<Page>)>);

impl PageCache {
    fn get(&self, group: &GroupName, page: u64) -> Option<Arc<Page>> {
        let found = self
            .0
            .iter()
            .find(|(name, kept)| name == group && kept.page == page);
        found.map(|(_, page)| page.clone())
    }

    fn keep(&mut self, group: &GroupName, page: Arc<Page>) {
        if self.0.len() >= PAGES_KEPT {
            self.0.pop_front();
        }
        self.0.push_back((group.clone(), page));
    }
}

/// A page that is here, or is being read.
enum Asked {
    Here(Arc<Page>),
    Coming(Receiver<Result<Outcome, Failure>>),
}

/// Feeds members until the node ends.
pub fn run(node: &Arc<Node>) {
    while !node.ending() {
        let behind = node.groups.behind();
        let mut fed = false;
        for (group, connection) in &behind {
            fed |= transport::batch(|| node.feed(group, *connection));
        }
        if !fed {
            let patience = if behind.is_empty() { IDLE } else { PACE };
            select! {
                recv(node.groups.woken) -> _ => {},
                recv(node.ending) -> _ => {},
                default(patience) => {},
            }
        }
    }
}

impl super::Groups {
    /// The members that have to be fed and whose group can be read.
    fn behind(&self) -> Vec<(GroupName, u64)> {
        let audiences = lock(&self.audiences);
        let readable = audiences
            .iter()
            .filter(|(_, audience)| audience.is_readable());
        let members = readable.flat_map(|(name, audience)| {
            audience
                .behind()
                .map(|connection| (name.clone(), connection))
        });
        members.collect()
    }
}

impl Node {
    /// Feeds one member. Returns whether it was sent something.
    fn feed(self: &Arc<Node>, name: &GroupName, connection: u64) -> bool {
        let feed = |audience: &mut Audience| audience.feed(name, connection);
        let (from, group) = match self.groups.with_audience(name, feed) {
            Some(Fed::NeedsReading(from, group)) => (from, group),
            fed => return matches!(fed, Some(Fed::Some)),
        };
        let (mut reader, mut items) = (Reader::new(from), Vec::new());
        let mut step = reader.group(&group, &mut items);
        while items.is_empty() && matches!(step, ReadStep::ReadPage(_)) {
            match self.read_pages(name, &group, &mut reader, step, &mut items) {
                Ok(next) => step = next,
                Err(_) => break,
            }
        }
        let give = |audience: &mut Audience| {
            if items.is_empty() {
                // What is known of the group is too old.
                audience.read_soon(self.began.elapsed());
                return Fed::Nothing;
            }
            audience.give(name, connection, from, &items, reader.told())
        };
        matches!(self.groups.with_audience(name, give), Some(Fed::Some))
    }

    /// Reads the messages of a group after a number, as many as `wanted`. What is not kept any more is told,
    /// and does not count.
    ///
    /// # Errors
    /// The group cannot be read.
    pub fn read_history(
        self: &Arc<Node>,
        name: &GroupName,
        after: Option<u64>,
        wanted: usize,
        emit: &mut dyn FnMut(&[Item]) -> Result<(), Failure>,
    ) -> Result<usize, Failure> {
        let mut group = self.read_group_and_wait(name)?;
        let after = after.unwrap_or((group.next - 1).saturating_sub(wanted as u64));
        let (mut reader, mut count) = (Reader::new(after + 1), 0);
        let mut items = Vec::new();
        let mut step = reader.group(&group, &mut items);
        loop {
            step = self.read_pages(name, &group, &mut reader, step, &mut items)?;
            let is_message = |item: &Item| matches!(item, Item::Message(_));
            while count + items.iter().filter(|item| is_message(item)).count() > wanted {
                items.pop();
            }
            count += items.iter().filter(|item| is_message(item)).count();
            emit(&items)?;
            items.clear();
            match step {
                _ if count >= wanted => return Ok(count),
                ReadStep::End => return Ok(count),
                ReadStep::ReadGroup => {
                    group = self.read_group_and_wait(name)?;
                    step = reader.group(&group, &mut items);
                }
                ReadStep::ReadPage(_) => {}
            }
        }
    }

    /// Reads some pages, if that is what comes next.
    fn read_pages(
        self: &Arc<Node>,
        name: &GroupName,
        group: &Group,
        reader: &mut Reader,
        mut step: ReadStep,
        items: &mut Vec<Item>,
    ) -> Result<ReadStep, Failure> {
        let ReadStep::ReadPage(first) = step else {
            return Ok(step);
        };
        let pages = first..page_of(group.first_open()).max(first + 1);
        let ask = |page| (page, self.ask_for_page(name, page));
        let asked: Vec<_> = transport::batch(|| pages.take(PAGES_AT_A_TIME).map(ask).collect());
        for (page, asked) in asked {
            let found = self.await_page(name, page, asked)?;
            if step == ReadStep::ReadPage(page) {
                step = reader.page(found.as_deref(), items);
            }
        }
        Ok(step)
    }

    fn ask_for_page(self: &Arc<Node>, name: &GroupName, page: u64) -> Asked {
        match lock(&self.groups.pages).get(name, page) {
            Some(page) => Asked::Here(page),
            None => Asked::Coming(self.begin(name.page_key(page), None)),
        }
    }

    fn await_page(
        &self,
        name: &GroupName,
        page: u64,
        asked: Asked,
    ) -> Result<Option<Arc<Page>>, Failure> {
        let coming = match asked {
            Asked::Here(page) => return Ok(Some(page)),
            Asked::Coming(coming) => coming,
        };
        let Outcome::Found { value, .. } = await_outcome(&coming)? else {
            return Ok(None);
        };
        let found = Page::of(Some(&value)).map(Arc::new);
        if let Some(own) = found.as_ref().filter(|found| found.page == page) {
            lock(&self.groups.pages).keep(name, own.clone());
        }
        Ok(found)
    }
}
