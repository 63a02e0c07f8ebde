//! `dynamo bench --group`: how fast a group takes messages, and how soon its members have them.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use hdrhistogram::Histogram;

use super::{Load, PATIENCE, connect, report_progress};
use crate::client::Client;
use crate::protocol::group::GroupName;

/// The text of the last message.
const THE_END: &str = "end";

/// What all senders and members have in common.
struct Course<'a> {
    load: &'a Load,
    group: &'a GroupName,
    began: Instant,
    /// How many messages were acknowledged.
    done: AtomicU64,
}

/// Runs senders and members to their end, and prints what they have seen.
pub fn run(load: &Load, group: &GroupName) -> Result<(), Box<dyn Error>> {
    let full_before = count_full(load)?;
    let members: Result<Vec<_>, _> = (0..load.members)
        .map(|place| join(load, group, place))
        .collect();
    let senders: Result<Vec<_>, _> = (0..load.connections)
        .map(|place| connect(load, place))
        .collect();
    let (members, senders) = (members?, senders?);
    let mut last = connect(load, 0)?;
    let course = &Course {
        load,
        group,
        began: Instant::now(),
        done: AtomicU64::new(0),
    };
    let (acknowledged, delivered) = thread::scope(|scope| {
        let speak = |sender| scope.spawn(move || course.speak(sender));
        let listen = |(member, number)| scope.spawn(move || course.listen(member, number));
        let senders: Vec<_> = senders.into_iter().map(speak).collect();
        let members: Vec<_> = members.into_iter().map(listen).collect();
        report_progress(load, &course.done, course.began);
        let acknowledged = add_up(senders.into_iter().map(|sender| sender.join()));
        let ended = last.call(&format!("SAY {group} {THE_END}"));
        let delivered = add_up(members.into_iter().map(|member| member.join()));
        ended.map_err(|error| error.to_string())?;
        Ok::<_, String>((acknowledged?, delivered?))
    })?;
    let (seconds, appended) = (load.duration.as_secs_f64(), acknowledged.len());
    let rate = appended as f64 / seconds;
    println!("{appended} messages acknowledged in {seconds:.1} s: {rate:.0} per second");
    print_times("acknowledged", &acknowledged);
    print_times("delivered", &delivered);
    let (members, told) = (load.members, delivered.len());
    println!("{members} members were told {told} messages");
    let full = count_full(load)? - full_before;
    println!("{full} times a message had to wait for a page to be stored");
    if let Ok(average) = std::fs::read_to_string("/proc/loadavg") {
        println!(
            "load average {}",
            average.split(' ').next().unwrap_or_default()
        );
    }
    if !load.keep {
        last.call(&format!("TRIM {group}"))?;
    }
    Ok(())
}

/// A member, and the number before its first message.
fn join(load: &Load, group: &GroupName, place: usize) -> Result<(Client, u64), Box<dyn Error>> {
    let mut member = connect(load, place)?;
    let joined = member.call(&format!("JOIN {group}"))?;
    let number = joined.strip_prefix(&format!("JOINED {group} "));
    let number = number.and_then(|number| number.parse().ok());
    Ok((member, number.ok_or(joined)?))
}

impl Course<'_> {
    /// Says something, waits until it is acknowledged, and goes on so.
    fn speak(&self, mut sender: Client) -> Result<Histogram<u64>, String> {
        let mut times = new_times()?;
        while self.began.elapsed() < self.load.duration {
            let said = self.micros();
            // The text says when it was said. Dots fill it up.
            let text = format!("{said:.<width$}", width = self.load.value);
            let reply = sender.call(&format!("SAY {} {text}", self.group));
            let reply = reply.map_err(|error| format!("a sender lost its node: {error}"))?;
            if !reply.starts_with("OK ") {
                return Err(reply);
            }
            times += self.micros() - said;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(times)
    }

    /// Takes the messages after `number`, which must come in order, until the last one.
    fn listen(&self, mut member: Client, mut number: u64) -> Result<Histogram<u64>, String> {
        let mut times = new_times()?;
        loop {
            let silent = |_| {
                let seconds = PATIENCE.as_secs();
                format!("a member was told nothing for {seconds} s after message {number}")
            };
            let line = member.receive().map_err(silent)?;
            let words: Vec<&str> = line.splitn(6, ' ').collect();
            number += 1;
            let said = match words[..] {
                ["MSG", _, told, _, _, THE_END] if told.parse() == Ok(number) => return Ok(times),
                ["MSG", _, told, _, _, text] if told.parse() == Ok(number) => {
                    text.trim_end_matches('.').parse().ok()
                }
                _ => None,
            };
            let said: u64 =
                said.ok_or_else(|| format!("message {number} should have come, not: {line}"))?;
            times += self.micros().saturating_sub(said);
        }
    }

    fn micros(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

/// In microseconds.
fn new_times() -> Result<Histogram<u64>, String> {
    Histogram::new(3).map_err(|error| error.to_string())
}

fn add_up(
    ended: impl Iterator<Item = thread::Result<Result<Histogram<u64>, String>>>,
) -> Result<Histogram<u64>, String> {
    let mut total = new_times()?;
    for one in ended {
        total += one.map_err(|_| "a client panicked")??;
    }
    Ok(total)
}

fn print_times(what: &str, times: &Histogram<u64>) {
    let [p50, p99] = [0.5, 0.99].map(|q| times.value_at_quantile(q) as f64 / 1000.0);
    println!("{what:<12} p50 {p50:.1} ms, p99 {p99:.1} ms");
}

/// How often a message had to wait for a page, at all nodes together.
fn count_full(load: &Load) -> Result<u64, Box<dyn Error>> {
    let mut total = 0;
    for place in 0..load.addresses.len() {
        let lines = connect(load, place)?.list("STATS")?;
        let counts = lines
            .iter()
            .filter_map(|line| line.strip_prefix("group_full "));
        for count in counts {
            total += count.parse::<u64>()?;
        }
    }
    Ok(total)
}
