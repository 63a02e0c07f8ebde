//! A steady load: requests are due at a fixed rate, whatever became of those before them.
//!
//! The time of a request counts from the moment at which it was due. A client that waits for one slow reply
//! delays the requests behind it, and their delay is counted. Measured from the moment at which they were
//! sent, an outage would be one slow request for each client.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use simple_dynamo::client::Client;

use crate::support::cluster::Cluster;

/// Clients, each with one connection.
pub const CLIENTS: u32 = 40;
/// How many requests of all clients are due in a second: under half of what two cores can do.
pub const RATE: u32 = 4_000;
/// How many requests a client sends on average before it connects to another node, so that the load also
/// reaches a node that has returned.
const STAY: u32 = 50;
/// How long the load runs before its requests count.
const WARM_UP: Duration = Duration::from_secs(2);
/// Longer than any request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The clients, and what they ask for. Half of the requests read.
pub struct Load<'a> {
    pub cluster: &'a Cluster,
    /// The nodes that clients connect to, while they live.
    pub nodes: &'a [u32],
    pub keys: &'a [String],
    /// How long the load goes on.
    pub time: Duration,
    pub seed: u64,
}

/// A request that has ended.
pub struct Sample {
    /// When its reply came, counted from the end of the warm-up.
    pub ended: Duration,
    pub took: Duration,
    /// False after an error, and if the connection ended before the reply came.
    pub well: bool,
}

/// The time of the samples.
pub struct Clock(Instant);

impl Clock {
    pub fn now(&self) -> Duration {
        self.0.elapsed()
    }

    pub fn wait_until(&self, moment: Duration) {
        thread::sleep(moment.saturating_sub(self.now()));
    }
}

impl Load<'_> {
    /// Keeps the load up while `meanwhile` runs and until the time is over. Returns every request that ended in
    /// this time.
    pub fn run<T>(&self, meanwhile: impl FnOnce(&Clock) -> T) -> (Vec<Sample>, T) {
        let zero = Instant::now() + WARM_UP;
        thread::scope(|scope| {
            let ask = |client| scope.spawn(move || self.ask(client, zero));
            let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
            thread::sleep(zero.saturating_duration_since(Instant::now()));
            let result = meanwhile(&Clock(zero));
            let samples = clients
                .into_iter()
                .flat_map(|client| client.join().expect("a client does not panic"));
            (samples.collect(), result)
        })
    }

    /// One client.
    fn ask(&self, client: u32, zero: Instant) -> Vec<Sample> {
        let mut rng = Rng::with_seed(self.seed ^ (u64::from(client) << 32));
        let mut connection = None;
        let mut samples = Vec::new();
        let period = Duration::from_secs(1) * CLIENTS / RATE;
        let mut due = zero - WARM_UP + period * client / CLIENTS;
        while due < zero + self.time {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if rng.u32(..STAY) == 0 {
                connection = None;
            }
            let well = self.request(&mut connection, &mut rng);
            let ended = Instant::now();
            if let Some(moment) = ended
                .checked_duration_since(zero)
                .filter(|m| *m < self.time)
            {
                samples.push(Sample {
                    ended: moment,
                    took: ended - due,
                    well,
                });
            }
            due += period;
        }
        samples
    }

    fn request(&self, connection: &mut Option<Client>, rng: &mut Rng) -> bool {
        let key = &self.keys[rng.usize(..self.keys.len())];
        let request = match rng.bool() {
            true => format!("GET {key}"),
            false => put(key, rng.u32(..)),
        };
        if connection.is_none() {
            *connection = self.connect(rng);
        }
        let reply = connection.as_mut().map(|client| client.call(&request));
        match reply {
            Some(Ok(reply)) => !reply.starts_with("ERROR"),
            _ => {
                *connection = None;
                false
            }
        }
    }

    /// Connects to a node, or to the first after it that lives.
    fn connect(&self, rng: &mut Rng) -> Option<Client> {
        let first = rng.usize(..self.nodes.len());
        let (later, sooner) = (&self.nodes[first..], &self.nodes[..first]);
        later
            .iter()
            .chain(sooner)
            .find_map(|&id| Client::connect(self.cluster.address(id), PATIENCE).ok())
    }
}

/// Writes each of the keys, with many requests on the way at a time.
pub fn write_all(cluster: &Cluster, through: &[u32], keys: &[String], seed: u64) {
    /// Requests that a client sends ahead.
    const AHEAD: usize = 100;
    let share = keys.len().div_ceil(through.len() * 2).max(1);
    thread::scope(|scope| {
        for (keys, &id) in keys.chunks(share).zip(through.iter().cycle()) {
            scope.spawn(move || {
                let mut client = cluster.client(id);
                for keys in keys.chunks(AHEAD) {
                    let lines: String = keys
                        .iter()
                        .map(|key| put(key, seed as u32) + "\n")
                        .collect();
                    client.send(lines.as_bytes()).expect("the node lives");
                    for key in keys {
                        let reply = client.receive().expect("the node lives");
                        assert!(reply.starts_with("OK "), "PUT {key}: {reply}");
                    }
                }
            });
        }
    });
}

/// A request that writes a value of 100 bytes.
fn put(key: &str, number: u32) -> String {
    format!("PUT {key} {number:0>100}")
}
