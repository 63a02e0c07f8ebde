//! `dynamo status`: how every node of the cluster is.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use super::arguments::{Argument, Arguments, member, node_id};
use crate::client::Client;
use crate::config::Member;

pub const HELP: &str = "\
Prints a line per node: whether it answers, votes and is up to date.

usage: dynamo status [ID...] [--wait SECONDS] [--cluster FILE]

  ID...            only these nodes
  --wait SECONDS   wait until they all answer, vote and are up to date; fail after that time
  --cluster FILE   the cluster file; without it, the course's five nodes on 127.0.0.1

examples:
  dynamo status
  dynamo status 5554 --wait 10
";

const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What one node says of itself.
struct Health {
    line: String,
    ready: bool,
}

/// Runs the subcommand.
pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let (mut wait, mut ids) = (None, Vec::new());
    while let Some(argument) = arguments.next_own()? {
        match &argument {
            Argument::Option(name) if name == "wait" => wait = Some(arguments.seconds("wait")?),
            Argument::Option(name) if name == "help" => {
                print!("{HELP}");
                return Ok(());
            }
            Argument::Word(word) => ids.push(node_id(word)?),
            Argument::Option(_) => return Err(argument.unknown("status").into()),
        }
    }
    let config = arguments.config()?;
    let members: Vec<&Member> = match ids[..] {
        [] => config.nodes.iter().collect(),
        _ => ids
            .iter()
            .map(|&id| member(&config, id))
            .collect::<Result<_, _>>()?,
    };
    let until = Instant::now() + wait.unwrap_or_default();
    loop {
        let nodes = look(&members);
        let ready = nodes.iter().all(|node| node.ready);
        if ready || Instant::now() >= until {
            nodes.iter().for_each(|node| println!("{}", node.line));
            return match wait {
                Some(time) if !ready => {
                    Err(format!("not all were ready within {} s", time.as_secs_f64()).into())
                }
                _ => Ok(()),
            };
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Asks all nodes at once: a paused one takes as long as the patience lasts.
fn look(members: &[&Member]) -> Vec<Health> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = members
            .iter()
            .map(|member| scope.spawn(move || ask(member)))
            .collect();
        asked
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    })
}

fn ask(member: &Member) -> Health {
    let address = member.client_address();
    let told = Client::connect(&address, PATIENCE).and_then(|mut client| client.list("STATS"));
    match told {
        Ok(lines) if lines.first().is_some_and(|line| line.starts_with("ERROR")) => Health {
            line: format!("{:<6} {address:<22} answers {}", member.id, lines[0]),
            ready: false,
        },
        Ok(lines) => describe(member, &lines),
        Err(error) => {
            let trouble = match error.kind() {
                io::ErrorKind::ConnectionRefused => "down".to_owned(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "silent".to_owned(),
                _ => error.to_string(),
            };
            Health {
                line: format!("{:<6} {address:<22} {trouble}", member.id),
                ready: false,
            }
        }
    }
}

fn describe(member: &Member, lines: &[String]) -> Health {
    let stats: HashMap<&str, &str> = lines
        .iter()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let stat = |name: &str| stats.get(name).copied().unwrap_or("?");
    let votes = stat("votes") == "yes";
    let current = stat("ranges_up_to_date") == stat("ranges");
    let state = match (votes, current) {
        (false, _) => "up, does not vote yet",
        (true, false) => "up, copies what it missed",
        (true, true) if stat("full") == "yes" => "up, full",
        (true, true) => "up",
    };
    let line = format!(
        "{:<6} {:<22} {state:<26} {} keys, {} requests, {} s",
        member.id,
        member.client_address(),
        stat("keys"),
        stat("requests"),
        stat("uptime_seconds"),
    );
    Health {
        line,
        ready: votes && current,
    }
}
