//! A node that lost its folder tells all others, copies from them, and votes again. This plays the thread
//! that does so, event by event. The code under test decides what is taken over.

use std::collections::{BTreeMap, BTreeSet};

use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::Ballot;
use simple_dynamo::protocol::chain::Replica;
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::{Operation, Record, Strategy, takeover};
use simple_dynamo::storage::{Page, Scan};

use super::machine::{Caller, Condition};
use super::network::{Body, Envelope};
use super::plan::{Fault, MILLISECOND, Micros, Sabotage};
use super::world::{Local, World};

/// How long a node waits before it asks those again that did not answer.
const ASK_AGAIN: Micros = 30 * MILLISECOND;
/// How many numbers a folder may have used in writes that left no trace. None here numbers so many.
const UNSEEN_NUMBERS: u64 = 100;

/// How far the copy is.
#[derive(Default)]
pub struct Copying {
    /// The others that know of the loss, and the highest number that each has seen.
    joined: BTreeMap<usize, u64>,
    /// Ranges to be copied.
    left: Vec<usize>,
    /// The pages of the other replicas of the first of these ranges.
    pages: BTreeMap<usize, Page>,
    /// The keys of that range on which the others differ, and whether the state of each was refreshed.
    differing: BTreeMap<Key, bool>,
}

impl World {
    /// A node dies, and its disk is lost. Only one node copies at a time: with two lost disks of three a key
    /// could be lost.
    pub(super) fn lose_folder(&mut self, node: usize) {
        let is_up = self.machines[node].condition != Condition::Down;
        if !is_up
            || self
                .machines
                .iter()
                .any(|machine| machine.copying.is_some())
        {
            return;
        }
        self.crash(node, Fault::LostFolder);
        let machine = &mut self.machines[node];
        machine.lose_folder(&self.ring, &self.plan);
        self.invariants.forget_promises(machine.id);
    }

    /// Asks for whatever is missing, now and again later.
    pub(super) fn copy_on(&mut self, node: usize) {
        if self.machines[node].copying.is_some() {
            self.at(node, ASK_AGAIN, Local::CopyOn);
        }
        let Some(copying) = &self.machines[node].copying else {
            return;
        };
        let others: Vec<usize> = (0..self.machines.len()).filter(|it| *it != node).collect();
        let unaware = |other: &usize| !copying.joined.contains_key(other);
        if others.iter().any(unaware) {
            let unaware: Vec<usize> = others.into_iter().filter(unaware).collect();
            let folder = self.machines[node].folder;
            return self.tell_all(node, unaware, &Body::Join { folder });
        }
        let Some(&range) = copying.left.first() else {
            let machine = &mut self.machines[node];
            if machine.store.synced() == machine.store.written() {
                machine.copying = None;
                self.start_chain(node);
            }
            return self.start_sync(node);
        };
        let others = self.other_replicas(node, range);
        let to_refresh: Vec<Key> = copying
            .differing
            .iter()
            .filter(|(_, refreshed)| !**refreshed)
            .map(|(key, _)| key.clone())
            .collect();
        if to_refresh.is_empty() {
            let asked = others
                .into_iter()
                .filter(|it| !copying.pages.contains_key(it));
            let asked = asked.collect();
            let again = !copying.differing.is_empty();
            let life = self.machines[node].life;
            return self.tell_all(node, asked, &Body::Scan { life, range, again });
        }
        let at = others[self.rng.usize(..others.len())];
        for key in to_refresh {
            self.tell_all(node, vec![at], &Body::Refresh { key });
        }
    }

    fn tell_all(&mut self, from: usize, to: Vec<usize>, body: &Body) {
        for to in to {
            let body = body.clone();
            self.send(Envelope {
                from,
                to,
                to_life: None,
                body,
            });
        }
    }

    fn other_replicas(&self, node: usize, range: usize) -> Vec<usize> {
        let replicas = self.ring.replicas_of_range(range);
        let is_other =
            |place: &usize| *place != node && replicas.contains(&self.machines[*place].id);
        (0..self.machines.len()).filter(is_other).collect()
    }

    /// A node hears of another node's new folder, and ends the requests that may have counted votes of the
    /// old one.
    pub(super) fn joined(&mut self, node: usize, from: usize, folder: u64) {
        let origin = self.machines[from].id;
        let machine = &mut self.machines[node];
        if machine.folders.insert(from, folder) != Some(folder) {
            machine.inquiries = Default::default();
            self.local(node, Local::Abandon);
        }
        let number = self.machines[node].store.highest_number(origin);
        self.tell_all(node, vec![from], &Body::Known { folder, number });
    }

    pub(super) fn known(&mut self, node: usize, from: usize, folder: u64, number: u64) {
        let others = self.machines.len() - 1;
        let machine = &mut self.machines[node];
        let id = machine.id;
        let Some(copying) = machine
            .copying
            .as_mut()
            .filter(|_| machine.folder == folder)
        else {
            return;
        };
        let is_news = copying.joined.insert(from, number).is_none();
        if !is_news || copying.joined.len() < others {
            return;
        }
        let used = copying
            .joined
            .values()
            .max()
            .map_or(0, |most| most + folder * UNSEEN_NUMBERS);
        copying.left = self.ring.ranges_of(id);
        machine.number_writes(used);
        let machines = &self.machines;
        let held = |other: NodeId, key: &Key| {
            let other = machines.iter().find(|machine| machine.id == other);
            other.map_or(Ballot::ZERO, |it| it.store.record(key).0.accepted_ballot())
        };
        self.invariants.forget_accepts(id, held);
    }

    /// A replica sends the page that it holds of a range, once that is durable.
    pub(super) fn scanned(&mut self, envelope: Envelope) {
        let Envelope { from, to: node, .. } = envelope;
        let Body::Scan { life, range, again } = envelope.body else {
            return;
        };
        let machine = &mut self.machines[node];
        let (page, durable) = machine.store.scan(&all_of(range));
        let body = Body::Page { range, again, page };
        let answer = Envelope {
            from: node,
            to: from,
            to_life: Some(life),
            body,
        };
        if durable <= machine.store.synced() {
            self.send(answer);
        } else {
            machine.store.hold_until(durable, answer);
            self.start_sync(node);
        }
    }

    pub(super) fn page(&mut self, envelope: Envelope) {
        let Envelope { from, to: node, .. } = envelope;
        let Body::Page { range, again, page } = envelope.body else {
            return;
        };
        let wanted = self.other_replicas(node, range).len();
        let machine = &mut self.machines[node];
        let Some(copying) = &mut machine.copying else {
            return;
        };
        let all_refreshed = copying.differing.values().all(|refreshed| *refreshed);
        let awaited = all_refreshed && again != copying.differing.is_empty();
        if copying.left.first() != Some(&range) || !awaited {
            return;
        }
        machine.store.merge_fence(range, &page.fence);
        let is_chain = self.plan.strategy == Strategy::Chain;
        if is_chain {
            machine
                .store
                .copy_adopted(range, page.adopted.clone(), machine.folder);
        }
        copying.pages.insert(from, page);
        if copying.pages.len() == wanted {
            let pages = std::mem::take(&mut copying.pages);
            let refreshed = std::mem::take(&mut copying.differing);
            for key in keys_of(&pages) {
                let records: Vec<Record> = pages.values().map(|page| record(page, &key)).collect();
                if again && !refreshed.contains_key(&key) {
                    continue;
                }
                let found = if again || is_chain || self.sabotage == Sabotage::CopiedUnchosen {
                    Some(takeover::highest(&records))
                } else {
                    takeover::agreed(&records)
                };
                match found {
                    Some(record) => machine.store.absorb(&key, record),
                    None => drop(copying.differing.insert(key, false)),
                }
            }
            if copying.differing.is_empty() {
                copying.left.remove(0);
            }
        }
        self.start_sync(node);
    }

    /// A node that copies asks another one to refresh a key's state.
    pub(super) fn asked_to_refresh(&mut self, node: usize, from: usize, key: Key) {
        let life = self.machines[from].life;
        let caller = Caller::Copying {
            node: from,
            life,
            key: key.clone(),
        };
        self.request(node, caller, key, Operation::Refresh, None);
    }

    pub(super) fn refreshed(&mut self, node: usize, key: &Key) {
        let copying = self.machines[node].copying.as_mut();
        if let Some(refreshed) = copying.and_then(|copying| copying.differing.get_mut(key)) {
            *refreshed = true;
        }
    }
}

pub(super) fn all_of(range: usize) -> Scan {
    Scan {
        range,
        buckets: None,
        after: None,
        states: true,
        within: None,
    }
}

fn keys_of(pages: &BTreeMap<usize, Page>) -> BTreeSet<Key> {
    let entries = pages.values().flat_map(|page| &page.entries);
    entries.map(|entry| entry.key.clone()).collect()
}

fn record(page: &Page, key: &Key) -> Record {
    let entry = page.entries.iter().find(|entry| entry.key == *key);
    let own = entry.and_then(|entry| entry.record.clone());
    own.unwrap_or_else(|| page.fence.record())
}
