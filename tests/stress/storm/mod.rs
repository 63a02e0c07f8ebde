//! A storm: clients send requests to a cluster of five processes, others speak and listen in groups, and a nemesis
//! injects faults. Then all is healed, every key and every group is read through every node, and what the clients
//! saw is judged.
//!
//! - [`nemesis`]: which faults are injected, and when. [`fault`]: how, and whether they did anything.
//! - [`verdict`]: the results, for people and in files. [`groups`]: those about groups.
//! - [`availability`]: how long each key was without service that it should have had.
//! - [`disk`]: whether the machine's own disk stood still.
//! - [`shrink`] and [`piece`]: the smallest piece of a history that cannot be ordered.
//! - [`reason`]: why that piece is impossible, in words.
//! - [`picture`]: a run, and an offending key, as pictures.

pub mod availability;
pub mod disk;
pub mod fault;
pub mod groups;
pub mod nemesis;
pub mod picture;
pub mod piece;
pub mod reason;
pub mod shrink;
pub mod verdict;

use std::any::Any;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::support::cluster::{Cluster, FIVE, Plan};
use crate::support::history::Operation;
use crate::support::messenger::Conversation;
use crate::support::messenger::chronicle::Chronicle;
use crate::support::workload::{Habits, Workload};
use disk::Stall;
use nemesis::{AtWork, Event, Nemesis};
use verdict::Verdict;

/// Bytes of the log after which a node takes a snapshot: so few that it takes one after the other.
const SNAPSHOT_AFTER: &str = "200000";
/// A client's longest pause between two requests.
const THINK: Duration = Duration::from_millis(30);
/// The groups. In each of them there is a member at each node, three senders, and two clients without a session.
pub const GROUPS: [&str; 2] = ["storm1", "storm2"];
/// A speaker's longest pause between two messages.
const TALK: Duration = Duration::from_millis(60);

/// The options of a storm.
pub struct Storm {
    pub seed: u64,
    pub nemesis: Nemesis,
    pub time: Duration,
    pub clients: u32,
    pub keys: u32,
    /// Where the history, the faults, the logs of the nodes, the verdict and the pictures go.
    pub out: PathBuf,
    /// Switches of `simple_dynamo::testing::rules` and `simple_dynamo::testing::faults` for every node.
    pub switches: Vec<(&'static str, String)>,
}

/// What is known after a storm.
pub struct Seen {
    pub history: Vec<Operation>,
    /// What the clients of each group saw. Empty if the run did not come to its end.
    pub chronicles: Vec<Chronicle>,
    pub events: Vec<Event>,
    /// When the machine's disk stood still by itself.
    pub stalls: Vec<Stall>,
    /// When the nemesis had finished, in microseconds of the history.
    pub end: u64,
    /// Why the run did not come to its end. Mostly a node ended by itself.
    pub failure: Option<String>,
}

impl Storm {
    /// Runs the storm, judges it, and writes all of it down.
    ///
    /// # Errors
    /// The folder is somebody else's, or cannot be written.
    pub fn run(&self, interrupted: &AtomicBool) -> io::Result<Verdict> {
        empty(&self.out)?;
        let seen = self.rage(interrupted)?;
        let verdict = Verdict::of(self, &seen);
        verdict.write(&self.out, &seen)?;
        Ok(verdict)
    }

    fn rage(&self, interrupted: &AtomicBool) -> io::Result<Seen> {
        let own = self.switches.iter();
        let own: Vec<(&str, &str)> = own.map(|(name, value)| (*name, value.as_str())).collect();
        let plan = Plan::of(&FIVE)
            .set("anti_entropy_ms", 1_000)
            .set("tombstone_age_ms", 4_000)
            .proxied()
            .kept_in(self.out.join("nodes"))
            .switched(&[("DYNAMO_SNAPSHOT_AFTER", SNAPSHOT_AFTER)])
            .switched(&own);
        let cluster = plan.start();
        let keys: Vec<String> = (0..self.keys)
            .map(|number| format!("key{number}"))
            .collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let workload = Workload {
            cluster: &cluster,
            clients: self.clients,
            keys: &keys,
            seed: self.seed,
        };
        let habits = Habits {
            think: THINK,
            settled: true,
        };
        let conversation = Conversation {
            cluster: &cluster,
            groups: &GROUPS,
            senders: &FIVE[..3],
            sayers: &FIVE[3..],
            members: &FIVE,
            think: TALK,
            seed: self.seed,
        };
        let mut events = Vec::new();
        let (observed, (ended, stalls, end)) = workload.run_with(habits, |progress| {
            let now = || progress.now().as_micros() as u64;
            let at_work = AtWork {
                nemesis: self.nemesis,
                cluster: &cluster,
                progress,
                keys: &keys,
                rng: Rng::with_seed(self.seed),
                until: progress.now() + self.time,
                interrupted,
                events: &mut events,
            };
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let watch = scope.spawn(|| disk::watch(&self.out, now, &stop));
                let mut end = None;
                let ended = catch_unwind(AssertUnwindSafe(|| {
                    conversation.run(|_| {
                        at_work.run();
                        end = Some(now());
                        // Ctrl-C reaches the nodes, too.
                        let goes_on = !interrupted.load(Ordering::Relaxed);
                        goes_on.then_some(()).ok_or(())
                    })
                }));
                let end = end.unwrap_or_else(now);
                stop.store(true, Ordering::Relaxed);
                (ended, watch.join().expect("it does not panic"), end)
            })
        });
        let (chronicles, failure) = match ended {
            Ok(seen) => {
                let unread = || self.unread(&observed.history);
                (seen.unwrap_or_default(), broken(&cluster).or_else(unread))
            }
            Err(payload) => (Vec::new(), Some(text_of(payload.as_ref()))),
        };
        Ok(Seen {
            history: observed.history,
            chronicles,
            events,
            stalls: stalls?,
            end,
            failure: failure.filter(|_| !interrupted.load(Ordering::Relaxed)),
        })
    }

    /// Which of the reads at the end did not end well. By then all is healed, so each key must be read through
    /// each node.
    fn unread(&self, history: &[Operation]) -> Option<String> {
        let last = history
            .iter()
            .filter(|operation| operation.client == self.clients);
        let well = last
            .clone()
            .filter(|read| read.returned().is_some())
            .count();
        let expected = FIVE.len() * self.keys as usize;
        let failed = last.filter(|read| read.returned().is_none());
        (well != expected).then(|| {
            let failed: Vec<String> = failed.map(Operation::to_string).collect();
            format!("{well} of {expected} reads after the healing ended well: {failed:?}")
        })
    }
}

/// The line of a node's log that reports a broken invariant.
fn broken(cluster: &Cluster) -> Option<String> {
    cluster.ids().find_map(|id| {
        let log = cluster.log(id);
        let line = log.lines().find(|line| line.contains("BROKEN INVARIANT"))?;
        Some(format!("node {id} has logged: {line}"))
    })
}

/// What a panic said.
fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// Empties the folder for a run. It may hold an earlier run, and nothing else.
fn empty(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        let own = folder.join("verdict.json").exists() || folder.join("nodes").exists();
        if !own && fs::read_dir(folder)?.next().is_some() {
            let text = format!("{} holds something else", folder.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)
}
