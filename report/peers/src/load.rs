//! The load: clients that each keep so many requests in flight.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::figures::{Figures, Seen, cpu_time};
use crate::options::{Options, Target};
use crate::stores::{Connection, Lines, Nodes, read, write};

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server that has just been started may take to answer.
const STARTING: Duration = Duration::from_secs(30);
/// Clients that put the keys there before the first round.
const FILLING: usize = 32;
/// A client that has seen so many failures gives up.
const MOST_FAILURES: u64 = 100;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Write,
    Read,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Write => "writes",
            Kind::Read => "reads",
        })
    }
}

/// Waits until the servers answer, and writes every key once.
pub async fn fill(target: &Target, options: &Options) -> Result<(), String> {
    let value = Arc::new("x".repeat(options.value));
    let mut clients = JoinSet::new();
    for place in 0..FILLING {
        let mut connection = connected(target, place).await?;
        let (value, keys) = (value.clone(), options.keys);
        clients.spawn(async move {
            for key in (place as u64..keys).step_by(FILLING) {
                within(connection.write(&name(key), &value)).await?;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        let ended = ended.map_err(|error| error.to_string())?;
        ended.map_err(|error| format!("{}: {error}", target.name))?;
    }
    Ok(())
}

/// Connects, and writes once; tries again while the servers start.
async fn connected(target: &Target, place: usize) -> Result<Connection, String> {
    let until = Instant::now() + STARTING;
    loop {
        let tried = async {
            let mut connection = Connection::open(target, place).await?;
            connection.write(&name(0), "x").await?;
            Ok(connection)
        };
        match within(tried).await {
            Ok(connection) => return Ok(connection),
            Err(error) if Instant::now() > until => {
                return Err(format!("{} does not answer: {error}", target.name));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// How many clients there are, and what they do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work {
    pub connections: usize,
    /// Requests in flight per connection.
    pub ahead: usize,
    pub kind: Kind,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.connections == 1 { "" } else { "s" };
        write!(f, "{} connection{plural}, ", self.connections)?;
        if self.ahead > 1 {
            write!(f, "{} ahead, ", self.ahead)?;
        }
        self.kind.fmt(f)
    }
}

/// One measurement.
pub async fn run(target: &Target, work: Work, options: &Options) -> Result<Figures, String> {
    let mut open = Vec::new();
    for place in 0..work.connections {
        open.push(connected(target, place).await?);
    }
    let value = Arc::new("x".repeat(options.value));
    let cpu_before = cpu_time(&target.pids)?;
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for (place, connection) in open.into_iter().enumerate() {
        let client = |number| Client {
            work,
            keys: options.keys,
            value: value.clone(),
            chance: Chance::of(number),
            until: began + Duration::from_secs(options.seconds),
            seen: Seen::new(),
        };
        match connection {
            Connection::Text(lines) => drop(clients.spawn(client(place).pipeline(lines))),
            Connection::Routed(nodes) => drop(clients.spawn(client(place).straight(nodes))),
            Connection::Etcd(etcd) => {
                // The requests of one connection run at the same time: gRPC over HTTP/2.
                for slot in place * work.ahead..(place + 1) * work.ahead {
                    clients.spawn(client(slot).one_by_one(*etcd.clone()));
                }
            }
        }
    }
    let mut seen = Seen::new();
    while let Some(ended) = clients.join_next().await {
        seen.add(ended.map_err(|error| error.to_string())?);
    }
    let took = began.elapsed();
    let cpu = cpu_time(&target.pids)?.saturating_sub(cpu_before);
    seen.figures(took, cpu)
        .map_err(|error| format!("{}: {error}", target.name))
}

struct Client {
    work: Work,
    keys: u64,
    value: Arc<String>,
    chance: Chance,
    until: Instant,
    seen: Seen,
}

impl Client {
    /// Keeps requests in flight on one connection; what has come is taken before more is sent.
    async fn pipeline(mut self, mut connection: Lines) -> Seen {
        let mut in_flight = VecDeque::new();
        while self.goes_on() || !in_flight.is_empty() {
            let mut lines = String::new();
            while self.goes_on() && in_flight.len() < self.work.ahead {
                let key = self.key();
                lines += &(self.line(&key) + "\n");
                in_flight.push_back(Instant::now());
            }
            let mut done = within(connection.send(lines)).await;
            while let Some(began) = in_flight.pop_front() {
                if done.is_ok() {
                    done = within(connection.receive()).await;
                }
                let broken = done.is_err();
                self.record(began, std::mem::replace(&mut done, Ok(())));
                if broken {
                    return self.seen;
                }
                if !connection.has_reply() {
                    break;
                }
            }
        }
        self.seen
    }

    /// Sends as many requests together as may be in flight, each to its coordinator, and waits for all replies.
    async fn straight(mut self, mut nodes: Nodes) -> Seen {
        while self.goes_on() {
            let began = Instant::now();
            if let Err(error) = within(self.batch(&mut nodes)).await {
                self.seen.failed(error);
                break;
            }
            for _ in 0..self.work.ahead {
                self.seen.record(began.elapsed());
            }
        }
        self.seen
    }

    async fn batch(&mut self, nodes: &mut Nodes) -> Result<(), String> {
        for _ in 0..self.work.ahead {
            let key = self.key();
            nodes.of(&key)?.queue(&self.line(&key));
        }
        let mut expected = Vec::new();
        for node in nodes.all() {
            expected.push(node.flush().await?);
        }
        for (node, count) in nodes.all().zip(expected) {
            for _ in 0..count {
                node.receive().await?;
            }
        }
        Ok(())
    }

    /// Sends one request after the other.
    async fn one_by_one(mut self, mut client: etcd_client::Client) -> Seen {
        while self.goes_on() {
            let key = self.key();
            let began = Instant::now();
            let done = match self.work.kind {
                Kind::Write => within(write(&mut client, &key, &self.value)).await,
                Kind::Read => within(read(&mut client, &key)).await,
            };
            self.record(began, done);
        }
        self.seen
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.until && self.seen.failures < MOST_FAILURES
    }

    fn key(&mut self) -> String {
        name(self.chance.next() % self.keys)
    }

    fn line(&self, key: &str) -> String {
        match self.work.kind {
            Kind::Write => format!("PUT {key} {}", self.value),
            Kind::Read => format!("GET {key}"),
        }
    }

    fn record(&mut self, began: Instant, done: Result<(), String>) {
        match done {
            Ok(()) => self.seen.record(began.elapsed()),
            Err(error) => self.seen.failed(error),
        }
    }
}

async fn within<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(format!("no reply within {} s", PATIENCE.as_secs())),
    }
}

fn name(key: u64) -> String {
    format!("peers:{key}")
}

/// Marsaglia's xorshift: the same keys for both stores, in the same order.
struct Chance(u64);

impl Chance {
    fn of(client: usize) -> Chance {
        Chance(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(client as u64 + 1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
