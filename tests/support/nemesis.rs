//! Faults that are injected while clients ask.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::cluster::Cluster;

/// How often each fault was injected.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    pub crashes: usize,
    pub pauses: usize,
}

/// Crashes and pauses nodes, one at a time and in turn, for a while. The next one waits until
/// the last one has what it missed.
pub fn one_at_a_time(cluster: &Cluster, seed: u64, time: Duration) -> Faults {
    let mut rng = Rng::with_seed(seed);
    let ids: Vec<u32> = cluster.ids().collect();
    let mut faults = Faults::default();
    let began = Instant::now();
    while began.elapsed() < time {
        let id = ids[rng.usize(..ids.len())];
        let lasting = Duration::from_millis(rng.u64(20..400));
        if faults.crashes <= faults.pauses {
            cluster.kill(id);
            thread::sleep(lasting);
            cluster.start_node(id);
            faults.crashes += 1;
        } else {
            cluster.pause(id);
            thread::sleep(lasting);
            cluster.resume(id);
            faults.pauses += 1;
        }
        cluster.await_ready(id);
        thread::sleep(Duration::from_millis(rng.u64(..100)));
    }
    faults
}

/// Cuts, delays and resets links for a while, one fault after the other.
pub fn bad_network(cluster: &Cluster, seed: u64, time: Duration) -> usize {
    let mut rng = Rng::with_seed(seed);
    let ids: Vec<u32> = cluster.ids().collect();
    let network = cluster.network();
    let mut faults = 0;
    let began = Instant::now();
    while began.elapsed() < time {
        let from = rng.usize(..ids.len());
        let to = (from + rng.usize(1..ids.len())) % ids.len();
        let (from, to) = (ids[from], ids[to]);
        match rng.u32(..4) {
            0 => network.cut(from, to),
            1 => network.isolate(from),
            2 => network.delay(from, to, Duration::from_millis(rng.u64(5..150))),
            _ => network.reset(from, to),
        }
        faults += 1;
        thread::sleep(Duration::from_millis(rng.u64(20..500)));
        network.heal();
        thread::sleep(Duration::from_millis(rng.u64(..200)));
    }
    faults
}
