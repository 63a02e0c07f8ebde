//! The load of a soak run: clients, faults, and keys that come and go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::support::cluster::Cluster;
use crate::support::linearizability::{Verdict, check};
use crate::support::nemesis;
use crate::support::workload::Workload;

/// An epoch has its own keys and its own history, so that neither the nodes nor the checker have
/// more and more to remember.
const EPOCH: Duration = Duration::from_secs(8);
const CLIENTS: u32 = 8;
const KEYS: usize = 8;
/// How many keys beside those of the clients are written and deleted once in each epoch.
const PASSING: usize = 300;
/// How many of the nodes crash, in turn. The others live for the whole run.
const CRASHING: usize = 2;
/// One node crashes in every so many epochs.
const CRASH_EVERY: u64 = 6;
/// Steps of the checker's search for one key.
const BUDGET: u64 = 5_000_000;

/// The load, and how long it lasts.
pub struct Load<'a> {
    pub cluster: &'a Cluster,
    pub seed: u64,
    pub time: Duration,
    /// Starts the process of a node.
    pub start: &'a dyn Fn(u32),
    /// Ends the run after the epoch that is under way.
    pub interrupted: &'a AtomicBool,
}

/// What was done.
#[derive(Default)]
pub struct Done {
    pub epochs: u64,
    pub requests: usize,
    pub refused: usize,
    pub longest: Duration,
    pub crashes: u64,
    pub pauses: u64,
    pub network_faults: usize,
    /// Keys that were written and deleted again.
    pub keys: usize,
    /// The first history that was not certainly linearizable.
    pub violation: Option<String>,
}

impl Load<'_> {
    pub fn run(&self) -> Done {
        let began = Instant::now();
        let mut done = Done::default();
        let over = || began.elapsed() >= self.time || self.interrupted.load(Ordering::Relaxed);
        while !over() && done.violation.is_none() {
            self.epoch(&mut done);
            done.epochs += 1;
        }
        done
    }

    fn epoch(&self, done: &mut Done) {
        let seed = self.seed.wrapping_mul(1_000_000) + done.epochs;
        let keys: Vec<String> = (0..KEYS).map(|n| format!("{}-{n}", done.epochs)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let workload = Workload {
            cluster: self.cluster,
            clients: CLIENTS,
            keys: &keys,
            seed,
        };
        let (observed, ()) = workload.run(|_| self.do_harm(seed, done));
        done.requests += observed.history.len();
        done.refused += observed.refused;
        done.longest = done.longest.max(observed.longest);
        let verdict = check(&observed.history, BUDGET);
        if verdict != Verdict::Linearizable {
            done.violation = Some(format!("epoch {}: {verdict:?}", done.epochs));
        }
        self.pass(done, &keys);
    }

    fn do_harm(&self, seed: u64, done: &mut Done) {
        let mut rng = Rng::with_seed(seed);
        let ids: Vec<u32> = self.cluster.ids().collect();
        let began = Instant::now();
        if done.epochs % CRASH_EVERY == CRASH_EVERY - 1 {
            let crashing = ids[(done.epochs / CRASH_EVERY) as usize % CRASHING];
            self.cluster.kill(crashing);
            thread::sleep(Duration::from_millis(rng.u64(..1000)));
            (self.start)(crashing);
            self.cluster.await_ready(crashing);
            done.crashes += 1;
        }
        while began.elapsed() < EPOCH {
            let paused = ids[rng.usize(..ids.len())];
            self.cluster.pause(paused);
            thread::sleep(Duration::from_millis(rng.u64(20..400)));
            self.cluster.resume(paused);
            done.pauses += 1;
            let a_while = Duration::from_secs(1);
            done.network_faults += nemesis::bad_network(self.cluster, rng.u64(..), a_while);
        }
        self.cluster.await_all_ready();
    }

    /// Writes some keys, and deletes them and those of the epoch.
    fn pass(&self, done: &mut Done, keys: &[&str]) {
        let ids: Vec<u32> = self.cluster.ids().collect();
        let mut client = self.cluster.client(ids[done.epochs as usize % ids.len()]);
        let passing: Vec<String> = (0..PASSING)
            .map(|number| format!("passing-{}-{number}", done.epochs))
            .collect();
        let puts = passing.iter().map(|key| format!("PUT {key} {key}\n"));
        let own = keys.iter().copied();
        let deletes = own.chain(passing.iter().map(String::as_str));
        let deletes = deletes.map(|key| format!("DEL {key}\n"));
        let requests: Vec<String> = puts.chain(deletes).collect();
        client.send(requests.concat().as_bytes()).unwrap();
        for request in &requests {
            let reply = client.receive().unwrap();
            let deleted = request.starts_with("DEL ") && reply.starts_with("OK ");
            done.keys += usize::from(deleted);
            done.refused += usize::from(reply.starts_with("ERROR "));
        }
    }
}
