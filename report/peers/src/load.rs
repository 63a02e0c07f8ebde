//! The load: clients that each keep one request under way.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::figures::{Figures, Seen, cpu_time};
use crate::options::{Options, Target};
use crate::stores::Connection;

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server that has just been started may take to answer.
const STARTING: Duration = Duration::from_secs(30);
/// Clients that put the keys there before the first round.
const FILLING: usize = 32;
/// A client that has seen so many failures gives up.
const MOST_FAILURES: u64 = 100;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// One measurement.
pub async fn run(
    target: &Target,
    kind: Kind,
    connections: usize,
    options: &Options,
) -> Result<Figures, String> {
    let mut open = Vec::new();
    for place in 0..connections {
        open.push(connected(target, place).await?);
    }
    let value = Arc::new("x".repeat(options.value));
    let cpu_before = cpu_time(&target.pids)?;
    let began = Instant::now();
    let until = began + options.time;
    let mut clients = JoinSet::new();
    for (place, connection) in open.into_iter().enumerate() {
        clients.spawn(client(Client {
            connection,
            kind,
            keys: options.keys,
            value: value.clone(),
            chance: Chance::of(place),
            until,
        }));
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
    connection: Connection,
    kind: Kind,
    keys: u64,
    value: Arc<String>,
    chance: Chance,
    until: Instant,
}

async fn client(mut client: Client) -> Seen {
    let mut seen = Seen::new();
    while Instant::now() < client.until && seen.failures < MOST_FAILURES {
        let key = name(client.chance.next() % client.keys);
        let began = Instant::now();
        let done = match client.kind {
            Kind::Write => within(client.connection.write(&key, &client.value)).await,
            Kind::Read => within(client.connection.read(&key)).await,
        };
        match done {
            Ok(()) => seen.record(began.elapsed()),
            Err(error) => seen.failed(error),
        }
    }
    seen
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
