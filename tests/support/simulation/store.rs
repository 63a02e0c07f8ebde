//! A replica's records and its disk: what is durable, what is not yet, and the replies that wait.

use std::collections::{HashMap, VecDeque};

use simple_dynamo::bytes::Key;
use simple_dynamo::register::{Ballot, Record, Update, VoteReply, VoteRequest};

/// The records of one node. `T` is a reply on its way.
pub struct Store<T> {
    durable: HashMap<Key, Record>,
    /// The durable records with everything in the log applied.
    live: HashMap<Key, Record>,
    /// What is not durable yet, oldest first.
    log: VecDeque<(Key, Update)>,
    /// How many updates were ever written to the log, and how many of them are durable.
    written: u64,
    synced: u64,
    /// Per key, the number of its last update.
    touched: HashMap<Key, u64>,
    held: Vec<(u64, T)>,
}

impl<T> Store<T> {
    pub fn new() -> Store<T> {
        Store {
            durable: HashMap::new(),
            live: HashMap::new(),
            log: VecDeque::new(),
            written: 0,
            synced: 0,
            touched: HashMap::new(),
            held: Vec::new(),
        }
    }

    pub fn vote(&mut self, key: &Key, request: &VoteRequest) -> VoteReply {
        let record = self.live.entry(key.clone()).or_default();
        let (update, reply) = record.vote(request);
        if let Some(update) = update {
            record.apply(update.clone());
            self.log.push_back((key.clone(), update));
            self.written += 1;
            self.touched.insert(key.clone(), self.written);
        }
        reply
    }

    pub fn promised(&self, key: &Key) -> Ballot {
        self.live
            .get(key)
            .map_or(Ballot::ZERO, |record| record.promised)
    }

    pub fn durable(&self, key: &Key) -> Record {
        self.durable.get(key).cloned().unwrap_or_default()
    }

    /// Whether all that a reply about this key may reveal is durable.
    pub fn is_durable(&self, key: &Key) -> bool {
        self.touched
            .get(key)
            .is_none_or(|&last| last <= self.synced)
    }

    /// Keeps a reply until all that it may reveal is durable.
    pub fn hold(&mut self, key: &Key, reply: T) {
        let last = self.touched.get(key).copied().unwrap_or(0);
        self.held.push((last, reply));
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// The log is durable up to this update. Returns what became durable (with the record before
    /// and after), and the replies that may leave now.
    pub fn sync(&mut self, upto: u64) -> (Vec<(Key, Record, Record)>, Vec<T>) {
        let mut changes = Vec::new();
        while self.synced < upto {
            let Some((key, update)) = self.log.pop_front() else {
                break;
            };
            self.synced += 1;
            let record = self.durable.entry(key.clone()).or_default();
            let before = record.clone();
            record.apply(update);
            changes.push((key, before, record.clone()));
        }
        let (free, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(last, _)| *last <= self.synced);
        self.held = held;
        let free: Vec<(u64, T)> = free;
        (changes, free.into_iter().map(|(_, reply)| reply).collect())
    }

    /// The memory is lost, and with it what was not durable and every reply that waited for it.
    pub fn crash(&mut self) {
        self.log.clear();
        self.held.clear();
        self.touched.clear();
        self.written = self.synced;
        self.live = self.durable.clone();
    }
}
