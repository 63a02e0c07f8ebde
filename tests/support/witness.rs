//! A store on a faulty disk, and a witness who remembers what the store has revealed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::ring::{NodeId, Ring};
use simple_dynamo::protocol::version::Dot;
use simple_dynamo::protocol::{Accepted, Ballot, Record, State, VoteReply, VoteRequest};
use simple_dynamo::storage::disk::Disk;
use simple_dynamo::storage::{Hooks, OpenError, Page, Progress, Scan, Store, SyncMode};

use super::faulty_disk::{FaultyDisk, Loss};

pub const NODE: NodeId = NodeId(5554);
pub const CLUSTER: &str = "five nodes, three replicas";
/// How long a test waits before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open store, and what it reports.
pub struct Opened {
    pub store: Arc<Store>,
    sender: Sender<Report>,
    reports: Receiver<Report>,
    failed: Arc<AtomicBool>,
}

/// What a store reports.
#[derive(Debug)]
pub enum Report {
    Reply {
        key: Key,
        request: VoteRequest,
        reply: VoteReply,
    },
    Reserved(u64),
    /// The disk failed, with this text.
    Failed(String),
}

pub fn ring() -> Arc<Ring> {
    Arc::new(Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3))
}

/// Opens the folder of [`NODE`].
pub fn open(disk: Arc<dyn Disk>) -> Result<Opened, OpenError> {
    let (sender, reports) = unbounded();
    let failed = Arc::new(AtomicBool::new(false));
    let (failures, has_failed) = (sender.clone(), failed.clone());
    let hooks = Hooks {
        deliver: Box::new(|group| group.into_iter().for_each(|callback| callback())),
        failed: Box::new(move |error| {
            has_failed.store(true, Ordering::SeqCst);
            let _ = failures.send(Report::Failed(error.to_string()));
        }),
    };
    let store = Store::open(
        disk,
        NODE,
        CLUSTER,
        ring(),
        SyncMode::Always,
        hooks,
        &Progress::default(),
    )?;
    Ok(Opened {
        store: Arc::new(store),
        sender,
        reports,
        failed,
    })
}

/// Opens a folder that is whole.
pub fn opened(disk: &FaultyDisk) -> Opened {
    open(disk.power_on()).expect("the folder is whole")
}

/// Ends the process as a loss of power does, and starts it again.
pub fn after_a_loss_of_power(disk: &FaultyDisk, opened_before: &Opened) -> Opened {
    disk.lose_power(Loss::Everything);
    opened_before.store.close();
    opened(disk)
}

impl Opened {
    /// Asks for the first page of a range, and calls `reply` with it.
    pub fn scan(&self, range: usize, reply: impl FnOnce(Page) + Send + 'static) {
        let scan = Scan {
            range,
            buckets: None,
            after: None,
            states: true,
            within: None,
        };
        self.store.scan(&scan, reply);
    }

    /// Asks for a vote. [`Opened::next_report`] returns the reply.
    pub fn ask(&self, key: &Key, request: VoteRequest) {
        let (sender, asked, about) = (self.sender.clone(), request.clone(), key.clone());
        let say = move |reply| {
            let report = Report::Reply {
                key: about,
                request: asked,
                reply,
            };
            let _ = sender.send(report);
        };
        if let Some(now) = self.store.vote(key, &request, say.clone()) {
            say(now);
        }
    }

    pub fn reserve(&self, upto: u64) {
        let sender = self.sender.clone();
        let reserved = move || drop(sender.send(Report::Reserved(upto)));
        self.store.reserve(upto, reserved);
    }

    /// Waits for the store's next report.
    pub fn next_report(&self) -> Report {
        let report = self.reports.recv_timeout(PATIENCE);
        report.expect("the store owes a reply or a failure")
    }

    /// Takes the reports that have come and that nobody has taken yet.
    pub fn reports_so_far(&self) -> Vec<Report> {
        self.reports.try_iter().collect()
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Asks for a vote, and waits for the reply.
    pub fn vote(&self, key: &Key, request: VoteRequest) -> VoteReply {
        self.ask(key, request);
        match self.next_report() {
            Report::Reply { reply, .. } => reply,
            other => panic!("{other:?} instead of a reply"),
        }
    }

    /// All records, once they are durable.
    pub fn records(&self) -> BTreeMap<Key, Record> {
        let page = self.store.page(None, usize::MAX).recv_timeout(PATIENCE);
        let page = page.expect("all of it is durable");
        page.into_iter().collect()
    }
}

pub fn ballot(round: u64) -> Ballot {
    Ballot::first(round, NODE)
}

/// The one proposal that is made for a key at a ballot. Every third round proposes a tombstone. The
/// proposal's size depends on the ballot, so that frames begin and end anywhere in a sector.
pub fn proposal(key: &Key, ballot: Ballot) -> Accepted {
    let size = (ballot.round * 131 % 700) as usize;
    let value = format!("{key} {ballot:?} {}", "x".repeat(size));
    let mut state = State {
        value: (!is_tombstone(ballot)).then(|| value.into()),
        ..State::default()
    };
    state.clock.set(Dot {
        origin: ballot.node,
        sequence: ballot.round,
    });
    Accepted {
        ballot,
        state: Arc::new(state),
    }
}

pub fn is_tombstone(ballot: Ballot) -> bool {
    ballot.round.is_multiple_of(3)
}

pub fn prepare(round: u64) -> VoteRequest {
    VoteRequest::Prepare(ballot(round))
}

pub fn accept(key: &Key, round: u64) -> VoteRequest {
    VoteRequest::Accept(proposal(key, ballot(round)))
}

/// Remembers the highest ballots that a store has revealed, over all its lives.
#[derive(Default)]
pub struct Witness {
    /// For each key the highest promise and the highest accepted ballot.
    revealed: BTreeMap<Key, (Ballot, Ballot)>,
    /// The highest tombstone of each key that was to be dropped.
    dropped: BTreeMap<Key, Ballot>,
    reserved: u64,
}

impl Witness {
    pub fn note(&mut self, report: Report) {
        match report {
            Report::Reply {
                key,
                request,
                reply,
            } => self.note_reply(&key, &request, reply),
            Report::Reserved(upto) => self.reserved = self.reserved.max(upto),
            Report::Failed(_) => {}
        }
    }

    fn note_reply(&mut self, key: &Key, request: &VoteRequest, reply: VoteReply) {
        let (promised, accepted) = match (reply, request) {
            (VoteReply::Promised(promise), VoteRequest::Prepare(ballot)) => {
                let accepted = promise.accepted;
                (*ballot, accepted.map_or(Ballot::ZERO, |own| own.ballot))
            }
            (VoteReply::Taken, VoteRequest::Accept(taken)) => (taken.ballot, taken.ballot),
            (VoteReply::Rejected(promised), _) => (promised, Ballot::ZERO),
            (VoteReply::Seen(seen), _) => (seen.ballot, seen.ballot),
            (reply, request) => panic!("{reply:?} to {request:?}"),
        };
        self.raise(key, promised, accepted);
    }

    /// Drops a key's tombstone, if it has one.
    pub fn drop_tombstone(&mut self, opened: &Opened, key: &Key) {
        let ballot = opened.store.accepted(key);
        if ballot > Ballot::ZERO && is_tombstone(ballot) {
            self.dropped.insert(key.clone(), ballot);
            opened.store.drop_tombstones(&[(key.clone(), ballot)]);
        }
    }

    fn raise(&mut self, key: &Key, promised: Ballot, accepted: Ballot) {
        let revealed = self.revealed.entry(key.clone());
        let revealed = revealed.or_insert((Ballot::ZERO, Ballot::ZERO));
        *revealed = (revealed.0.max(promised), revealed.1.max(accepted));
    }

    /// Checks that every vote that was revealed holds, and that nothing was accepted that nobody
    /// proposed. What the store shows here counts as revealed from now on.
    ///
    /// # Panics
    /// If the store has taken anything back. The message begins with `when`.
    pub fn check(&mut self, opened: &Opened, when: &str) {
        let records = opened.records();
        for (key, (promised, accepted)) in &self.revealed {
            let nothing = Record {
                promised: opened.store.promised(key),
                accepted: None,
            };
            let record = records.get(key).cloned().unwrap_or(nothing);
            let dropped = self.dropped.get(key).filter(|_| record.accepted.is_none());
            let kept = record
                .accepted_ballot()
                .max(dropped.copied().unwrap_or_default());
            assert!(
                record.promised >= *promised && kept >= *accepted,
                "{when}: of {key:?} the promise {promised:?} and the accepted {accepted:?} were \
                 revealed, and the store holds {record:?}"
            );
        }
        for (key, record) in records {
            let (promised, accepted) = (record.promised, record.accepted_ballot());
            assert!(promised >= accepted, "{when}: {record:?}");
            let proposed = record.accepted.iter();
            let proposed = proposed.map(|own| proposal(&key, own.ballot));
            assert!(
                record.accepted.iter().cloned().eq(proposed),
                "{when}: {record:?}"
            );
            self.raise(&key, promised, accepted);
        }
        let reserved = opened.store.sequences();
        assert!(
            reserved >= self.reserved,
            "{when}: {} numbers were reserved, and the store knows of fewer",
            self.reserved
        );
        self.reserved = reserved;
    }
}
