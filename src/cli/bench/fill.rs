//! Putting every key before any is read: what a read takes that finds nothing is not the question.
//! And deleting them at the end.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Load, PATIENCE, PAUSE, connect};
use crate::cli::ticker::Ticker;

/// Connections, if the load itself has fewer: a node works on one request of each at a time.
const LEAST_CONNECTIONS: usize = 32;
/// How often to look how far it is.
const LOOK: Duration = Duration::from_millis(20);

/// Puts all keys once; tells how many.
///
/// # Errors
/// The first refusal, but for a node that is `BUSY` for a while only, or why no node could be reached.
pub fn put_all(load: &Load) -> Result<u64, Box<dyn Error>> {
    let value = load.written_value();
    let request = |key| format!("PUT bench:{key} {value}");
    let put = for_each(load, 0..load.keys, "put", request);
    put.map_err(|error| format!("putting the keys that will be read: {error}").into())
}

/// Deletes all keys, or if not all were put first, those that were put; tells how many.
///
/// # Errors
/// As [`put_all`].
pub fn delete(load: &Load, put: &BTreeSet<u64>) -> Result<u64, Box<dyn Error>> {
    let request = |key| format!("DEL bench:{key}");
    let deleted = if load.reads > 0 {
        for_each(load, 0..load.keys, "deleted", request)
    } else {
        for_each(load, put.iter().copied(), "deleted", request)
    };
    deleted.map_err(|error| format!("deleting the keys, of which some stay: {error}").into())
}

/// Sends a request for each of the keys over many connections. Returns how many keys there are.
fn for_each(
    load: &Load,
    keys: impl Iterator<Item = u64> + Clone + Send,
    done_word: &str,
    request: impl Fn(u64) -> String + Sync,
) -> Result<u64, String> {
    let count = keys.clone().count() as u64;
    let clients = load.connections.max(LEAST_CONNECTIONS);
    let (done, request) = (&AtomicU64::new(0), &request);
    let mut ticker = Ticker::begin();
    thread::scope(|scope| {
        let all: Vec<_> = (0..clients)
            .map(|client| {
                let share = keys.clone().skip(client).step_by(clients);
                scope.spawn(move || take_share(load, client, share, done, request))
            })
            .collect();
        while all.iter().any(|thread| !thread.is_finished()) {
            ticker.tell(|| {
                let done = done.load(Ordering::Relaxed);
                format!("{done_word} {done} of {count} keys")
            });
            thread::sleep(LOOK);
        }
        let mut ends = all.into_iter().map(|thread| thread.join());
        ends.try_for_each(|end| end.unwrap_or_else(|_| Err("a client panicked".to_owned())))?;
        Ok(count)
    })
}

/// One client's share of the keys, through its node, or the next ones if that ends.
fn take_share(
    load: &Load,
    client: usize,
    keys: impl Iterator<Item = u64>,
    done: &AtomicU64,
    request: impl Fn(u64) -> String,
) -> Result<(), String> {
    let mut keys = keys.peekable();
    if keys.peek().is_none() {
        return Ok(());
    }
    let (mut lost, mut began) = (0, Instant::now());
    let mut connection = connect(load, client)?;
    while let Some(&key) = keys.peek() {
        match connection.call(&request(key)) {
            Ok(reply) if reply.starts_with("ERROR BUSY") && began.elapsed() < PATIENCE => {
                thread::sleep(PAUSE);
                connection = connect(load, client + lost)?;
            }
            Ok(reply) if reply.starts_with("ERROR") => return Err(reply),
            Ok(_) => {
                keys.next();
                done.fetch_add(1, Ordering::Relaxed);
                began = Instant::now();
            }
            // A put is the same twice, and so is a deletion.
            Err(error) if lost == load.addresses.len() => return Err(error.to_string()),
            Err(_) => {
                lost += 1;
                connection = connect(load, client + lost)?;
            }
        }
    }
    Ok(())
}
