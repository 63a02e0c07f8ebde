//! A replica's records and its disk: what is durable, what is not yet durable, and the replies that wait.

use std::collections::VecDeque;
use std::sync::Arc;

use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::chain::epoch::{Adopted, Epoch};
use simple_dynamo::protocol::chain::{LogPlace, Replica};
use simple_dynamo::protocol::ring::{NodeId, Position, Ring};
use simple_dynamo::protocol::{
    Accepted, Ballot, Fence, Record, Update, VoteReply, VoteRequest, takeover,
};
use simple_dynamo::storage::records::Records;
use simple_dynamo::storage::{Page, Scan};

use super::copying::all_of;

/// The records of one node. `T` is a reply on its way.
pub struct Store<T> {
    ring: Arc<Ring>,
    durable: Records,
    /// The durable records with every vote in the log applied.
    live: Records,
    /// What is not durable yet, oldest first.
    log: VecDeque<(Key, Entry)>,
    /// How many entries were ever written to the log, and how many of them are durable.
    written: u64,
    synced: u64,
    held: Vec<(u64, T)>,
}

#[derive(Clone)]
enum Entry {
    Vote(Update),
    Drop(Ballot),
    Fence(usize, Fence),
    Adopted(usize, Adopted),
}

/// How an entry that became durable changed a record on the disk.
pub struct Change {
    pub key: Key,
    pub before: Record,
    pub after: Record,
    /// The ballot of the tombstone that was dropped, if that was it.
    pub dropped: Option<Ballot>,
    /// The epoch of the key's range that the disk had adopted by then.
    pub epoch: Epoch,
}

impl<T> Store<T> {
    pub fn new(ring: &Arc<Ring>) -> Store<T> {
        Store {
            ring: ring.clone(),
            durable: Records::new(ring.clone()),
            live: Records::new(ring.clone()),
            log: VecDeque::new(),
            written: 0,
            synced: 0,
            held: Vec::new(),
        }
    }

    pub fn vote(&mut self, key: &Key, request: &VoteRequest) -> VoteReply {
        let (update, reply, _) = self.live.vote(key, request);
        if let Some(update) = update {
            self.append(key, Entry::Vote(update.clone()));
            self.live.apply(key, update, self.written);
        }
        reply
    }

    fn append(&mut self, key: &Key, entry: Entry) {
        self.log.push_back((key.clone(), entry));
        self.written += 1;
    }

    pub fn promised(&self, key: &Key) -> Ballot {
        self.live.get(key).0.promised
    }

    pub fn durable(&self, key: &Key) -> Record {
        self.durable.get(key).0.clone()
    }

    /// A key's record, if it has no value and is durable, so that it might be dropped.
    pub fn without_value(&self, key: &Key) -> Option<Record> {
        let own = self.live.get(key).0;
        (own.value().is_none() && self.is_durable(key)).then(|| own.clone())
    }

    pub fn holds_tombstone(&self, key: &Key, tombstone: &Accepted) -> bool {
        self.live.holds_tombstone(key, tombstone).0
    }

    pub fn drop_tombstone(&mut self, key: &Key, ballot: Ballot) {
        if self.live.has_tombstone(key, ballot) {
            self.append(key, Entry::Drop(ballot));
            self.live.drop_tombstone(key, ballot, self.written);
        }
    }

    /// Whether all that a reply about this key may reveal is durable.
    pub fn is_durable(&self, key: &Key) -> bool {
        self.live.get(key).1 <= self.synced
    }

    /// Keeps a reply until all that it may reveal is durable.
    pub fn hold(&mut self, key: &Key, reply: T) {
        self.hold_until(self.live.get(key).1, reply);
    }

    pub fn hold_until(&mut self, entry: u64, reply: T) {
        self.held.push((entry, reply));
    }

    /// The next page of a scan, and the entry after which it is durable.
    pub fn scan(&self, scan: &Scan) -> (Page, u64) {
        self.live.scan(scan)
    }

    pub fn highest_number(&self, origin: NodeId) -> u64 {
        self.live.numbers().get(origin)
    }

    pub fn absorb(&mut self, key: &Key, record: Record) {
        let own = self.live.get(key).0.clone();
        for update in takeover::updates(&own, record) {
            self.append(key, Entry::Vote(update.clone()));
            self.live.apply(key, update, self.written);
        }
    }

    pub fn merge_fence(&mut self, range: usize, fence: &Fence) {
        self.append(&Key::from(""), Entry::Fence(range, fence.clone()));
        self.live.merge_fence(range, fence, self.written);
    }

    /// The keys of a range, with the states that are accepted.
    pub fn of_range(&self, range: usize) -> Vec<(Key, Accepted)> {
        let (page, _) = self.live.scan(&all_of(range));
        let entries = page.entries.into_iter();
        entries
            .filter_map(|entry| Some((entry.key, entry.record?.accepted?)))
            .collect()
    }

    pub fn durable_epoch(&self, range: usize) -> Epoch {
        self.durable.adopted(range).epoch
    }

    /// Adopts the highest epoch that other replicas have adopted, and proposes none below this floor.
    pub fn copy_adopted(&mut self, range: usize, adopted: Adopted, start: u64) {
        let adopted = adopted.copied(start);
        self.append(&Key::from(""), Entry::Adopted(range, adopted.clone()));
        self.live.adopt(range, adopted);
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Makes the log durable up to this entry. Returns what became durable, and the replies that may leave
    /// now.
    pub fn sync(&mut self, upto: u64) -> (Vec<Change>, Vec<T>) {
        let mut changes = Vec::new();
        while self.synced < upto {
            let Some((key, entry)) = self.log.pop_front() else {
                break;
            };
            self.synced += 1;
            let before = self.durable(&key);
            let dropped = match entry {
                Entry::Vote(update) => {
                    self.durable.apply(&key, update, 0);
                    None
                }
                Entry::Drop(ballot) => {
                    self.durable.drop_tombstone(&key, ballot, 0);
                    Some(ballot)
                }
                Entry::Fence(range, fence) => {
                    self.durable.merge_fence(range, &fence, 0);
                    continue;
                }
                Entry::Adopted(range, adopted) => {
                    self.durable.adopt(range, adopted);
                    continue;
                }
            };
            let after = self.durable(&key);
            let range = self.ring.range_at(Position::of_key(&key));
            changes.push(Change {
                key,
                before,
                after,
                dropped,
                epoch: self.durable_epoch(range),
            });
        }
        let (free, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(last, _)| *last <= self.synced);
        self.held = held;
        let free: Vec<(u64, T)> = free;
        (changes, free.into_iter().map(|(_, reply)| reply).collect())
    }

    /// Loses the memory, and with it all that was not durable and every reply that waited for it.
    pub fn crash(&mut self) {
        self.log.clear();
        self.held.clear();
        self.written = self.synced;
        self.live = self.durable.clone();
    }
}

impl<T> Replica for Store<T> {
    fn adopted(&self, range: usize) -> Adopted {
        self.live.adopted(range).clone()
    }

    fn adopt(&mut self, range: usize, adopted: &Adopted) -> LogPlace {
        self.append(&Key::from(""), Entry::Adopted(range, adopted.clone()));
        self.live.adopt(range, adopted.clone());
        self.written
    }

    fn record(&self, key: &Key) -> (Record, LogPlace) {
        let (record, place) = self.live.get(key);
        (record.clone(), place)
    }

    fn fence(&self, range: usize) -> Fence {
        self.live.fence(range).clone()
    }

    fn take(&mut self, key: &Key, accepted: &Accepted) -> LogPlace {
        let update = Update::Accept(accepted.clone());
        self.append(key, Entry::Vote(update.clone()));
        self.live.apply(key, update, self.written);
        self.written
    }

    fn written(&self) -> LogPlace {
        self.written
    }

    fn durable(&self) -> LogPlace {
        self.synced
    }
}
