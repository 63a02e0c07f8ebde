//! Putting every key before any is read: what a read takes that finds nothing is not the question.

use std::error::Error;
use std::thread;
use std::time::Instant;

use super::{Load, PATIENCE, PAUSE, connect};

/// Connections that put keys, if the load itself has fewer: a node works on one request of each
/// at a time.
const LEAST_CONNECTIONS: usize = 32;

/// Puts all keys once.
///
/// # Errors
/// The first refusal, but for a node that is `BUSY` for a while only, or why no node could be reached.
pub fn put_all(load: &Load) -> Result<(), Box<dyn Error>> {
    let clients = load.connections.max(LEAST_CONNECTIONS);
    let put = thread::scope(|scope| {
        let all: Vec<_> = (0..clients)
            .map(|client| scope.spawn(move || put_share(load, client, clients)))
            .collect();
        let mut ends = all.into_iter().map(|thread| thread.join());
        ends.try_for_each(|end| end.unwrap_or_else(|_| Err("a client panicked".to_owned())))
    });
    put.map_err(|error| format!("putting the keys that will be read: {error}").into())
}

/// Puts one client's share of the keys, through its node, or the next ones if that ends.
fn put_share(load: &Load, client: usize, clients: usize) -> Result<(), String> {
    let mut keys = (client as u64..load.keys).step_by(clients).peekable();
    if keys.peek().is_none() {
        return Ok(());
    }
    let value = load.written_value();
    let (mut lost, mut began) = (0, Instant::now());
    let mut connection = connect(load, client)?;
    while let Some(&key) = keys.peek() {
        match connection.call(&format!("PUT bench:{key} {value}")) {
            Ok(reply) if reply.starts_with("ERROR BUSY") && began.elapsed() < PATIENCE => {
                thread::sleep(PAUSE);
                connection = connect(load, client + lost)?;
            }
            Ok(reply) if reply.starts_with("ERROR") => return Err(reply),
            Ok(_) => {
                keys.next();
                began = Instant::now();
            }
            // A put is the same twice.
            Err(error) if lost == load.addresses.len() => return Err(error.to_string()),
            Err(_) => {
                lost += 1;
                connection = connect(load, client + lost)?;
            }
        }
    }
    Ok(())
}
