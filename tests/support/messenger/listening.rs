//! A member: it is shown what is said, and goes on after the last message at another node when its node fails.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::chronicle::{Member, Shown, Stay};
use super::connection::{ANSWER, Connection};
use super::seat::Seat;

/// How long it waits for a line before it looks whether the run is over.
const LOOK: Duration = Duration::from_millis(50);

/// Listens until the run is over. The number of the last message goes to `last` as it is shown.
pub fn run(mut seat: Seat, last: &AtomicU64) -> Member {
    let mut stays = Vec::new();
    while !seat.is_over() {
        if let Ok((mut connection, after)) = join(&seat, last.load(Ordering::Relaxed)) {
            let mut stay = Stay {
                node: seat.node,
                after,
                shown: Vec::new(),
                behind: false,
            };
            // An error says that the node has failed.
            let _ = listen(&seat, &mut connection, &mut stay, last);
            stays.push(stay);
        }
        // Half of the time it waits until its first node is back.
        if seat.node != seat.home || seat.rng.bool() {
            seat.go_on();
        }
        seat.rest();
    }
    Member {
        home: seat.home,
        stays,
    }
}

/// Joins after a number. Returns the number that the node says it goes on after.
fn join(seat: &Seat, last: u64) -> io::Result<(Connection, u64)> {
    let mut connection = seat.connect()?;
    connection.send(&format!("JOIN {} AFTER {last}", seat.group))?;
    let reply = connection.answer(ANSWER)?;
    let words: Vec<&str> = reply.split(' ').collect();
    let after = match words[..] {
        ["JOINED", group, after] if group == seat.group => after.parse(),
        ["CONFLICT", end] => end.parse(),
        _ => return Err(io::Error::other(reply)),
    };
    Ok((connection, after.expect("a number")))
}

/// Takes down what comes, until the node fails or cannot read the group, or the run is over.
fn listen(
    seat: &Seat,
    connection: &mut Connection,
    stay: &mut Stay,
    last: &AtomicU64,
) -> io::Result<()> {
    let mut heard = Instant::now();
    let mut asked = None;
    while !seat.is_over() {
        let line = connection.line(LOOK)?;
        match (&line, asked) {
            (Some(line), _) if *line == format!("BEHIND {}", seat.group) => {
                stay.behind = true;
                return Ok(());
            }
            (Some(line), _) if line == "PONG" => asked = None,
            (Some(line), _) => {
                let shown = Shown::parse(line, seat.group);
                let shown = shown.unwrap_or_else(|| panic!("a member is told {line:?}"));
                last.store(shown.last(), Ordering::Relaxed);
                stay.shown.push(shown);
            }
            (None, Some(since)) if Instant::now() - since >= ANSWER => return Ok(()),
            (None, None) if heard.elapsed() >= ANSWER => {
                connection.send("PING")?;
                asked = Some(Instant::now());
            }
            (None, _) => {}
        }
        if line.is_some() {
            heard = Instant::now();
        }
    }
    Ok(())
}
