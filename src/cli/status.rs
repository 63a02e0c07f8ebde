//! `dynamo status`: how every node of the cluster is.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use super::arguments::{Argument, Arguments, member, node_id};
use super::ticker::Ticker;
use crate::client::Client;
use crate::config::{Config, Member};
use crate::protocol::ring::NodeId;
use crate::server::startup;

pub const HELP: &str = "\
Prints whether every key can be read and written, and a line per node: whether it answers, votes and is
up to date.

usage: dynamo status [ID...] [--wait SECONDS] [--cluster FILE]

  ID...            only these nodes
  --wait SECONDS   wait until they all answer, vote and are up to date; give up when none of those
                   that are not ready has made progress for that time
  --cluster FILE   the cluster file; without it, the course's five nodes on 127.0.0.1

examples:
  dynamo status
  dynamo status 5554 --wait 10
";

const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What one node says of itself.
struct Health {
    id: NodeId,
    /// In a few words.
    state: String,
    /// What it holds and has done, if it tells.
    more: String,
    up: bool,
    votes: bool,
    /// Has what it missed.
    current: bool,
    progress: Progress,
}

/// How far a node is that is not ready: greater if it is further. Reads its data (how many MiB), then
/// copies what it lost and pulls what it missed (how many keys, and ranges that are up to date).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Progress {
    #[default]
    None,
    Reads(u64),
    Copies {
        copied: u64,
        pulled: u64,
        ranges: u64,
    },
}

impl Health {
    fn without_answer(member: &Member, state: String) -> Health {
        Health {
            id: member.id,
            state,
            more: String::new(),
            up: false,
            votes: false,
            current: false,
            progress: Progress::None,
        }
    }

    fn ready(&self) -> bool {
        self.votes && self.current
    }

    /// What it is waited for, in a few words.
    fn sentence(&self) -> String {
        match self.progress {
            Progress::Copies { copied, pulled, .. } if copied + pulled > 0 => {
                format!(
                    "{} {}, {} keys so far",
                    self.id,
                    self.state,
                    copied + pulled
                )
            }
            _ => format!("{} {}", self.id, self.state),
        }
    }
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
    let nodes = watch(&members, wait.unwrap_or_default());
    let asked = |node| nodes.iter().any(|health: &Health| health.id == node);
    if config.nodes.iter().all(|member| asked(member.id)) {
        println!("{}", verdict(&config, &nodes));
    }
    println!("{:<6} {:<22} state", "node", "address");
    for (member, node) in members.iter().zip(&nodes) {
        let (address, state) = (member.client_address(), &node.state);
        let line = format!("{:<6} {address:<22} {state:<26} {}", node.id, node.more);
        println!("{}", line.trim_end());
    }
    match wait {
        Some(time) if !nodes.iter().all(Health::ready) => {
            let time = time.as_secs_f64();
            Err(format!("not all nodes are ready, and none has made progress for {time} s").into())
        }
        _ => Ok(()),
    }
}

/// Looks at the nodes until all are ready, or none of the others has made progress for that long.
fn watch(members: &[&Member], patience: Duration) -> Vec<Health> {
    let mut furthest = vec![Progress::None; members.len()];
    let mut until = Instant::now() + patience;
    let mut ticker = Ticker::begin();
    loop {
        let nodes = look(members);
        for (node, furthest) in nodes.iter().zip(&mut furthest) {
            // Who starts again and again gets no further than the last time.
            if !node.ready() && node.progress > *furthest {
                *furthest = node.progress;
                until = Instant::now() + patience;
            }
        }
        let missing: Vec<_> = nodes.iter().filter(|node| !node.ready()).collect();
        if missing.is_empty() || Instant::now() >= until {
            return nodes;
        }
        ticker.tell(|| {
            let sentences: Vec<_> = missing.iter().map(|node| node.sentence()).collect();
            format!("waiting for {}", sentences.join("; "))
        });
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// What the states of all nodes mean for the keys.
fn verdict(config: &Config, nodes: &[Health]) -> String {
    let up = nodes.iter().filter(|node| node.up).count();
    let ring = config.ring();
    // How many replicas are so of the keys of which the fewest are.
    let least = |is_so: fn(&Health) -> bool| {
        let is_so = |id: &&NodeId| nodes.iter().any(|node| node.id == **id && is_so(node));
        let ranges = (0..ring.members().len()).map(|range| ring.replicas_of_range(range));
        let counts = ranges.map(|replicas| replicas.iter().filter(is_so).count());
        counts.min().unwrap_or(0)
    };
    let quorums = config.quorums();
    let (voting, copies) = (least(|node| node.votes), least(Health::ready));
    let wanted = quorums.read.max(quorums.write);
    let replicas = quorums.replicas;
    let keys = if voting < wanted {
        format!(
            "some keys can be neither read nor written: only {voting} of their {replicas} replicas vote, and {wanted} must"
        )
    } else if copies < replicas {
        format!(
            "every key can be read and written; some have only {copies} of {replicas} copies up to date"
        )
    } else {
        format!("every key has {replicas} copies")
    };
    format!("{up} of {} up, {keys}", nodes.len())
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
    let stats = Client::connect(&address, PATIENCE).and_then(|mut client| client.list("STATS"));
    match stats {
        Ok(lines) if lines[0].starts_with("ERROR") => refused(member, &lines[0]),
        Ok(lines) => describe(member, &lines),
        Err(error) => {
            let trouble = match error.kind() {
                io::ErrorKind::ConnectionRefused => "down".to_owned(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "silent".to_owned(),
                _ => error.to_string(),
            };
            Health::without_answer(member, trouble)
        }
    }
}

/// A node that tells nothing else of itself.
fn refused(member: &Member, reply: &str) -> Health {
    let Some(read) = startup::progress_in(reply) else {
        return Health::without_answer(member, format!("answers {reply}"));
    };
    let mib = read.split(' ').next().and_then(|mib| mib.parse().ok());
    Health {
        progress: Progress::Reads(mib.unwrap_or(0)),
        ..Health::without_answer(member, format!("starting, {read} read"))
    }
}

fn describe(member: &Member, lines: &[String]) -> Health {
    let stats: HashMap<&str, &str> = lines
        .iter()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let stat = |name: &str| stats.get(name).copied().unwrap_or("?");
    let number = |name: &str| stat(name).parse().unwrap_or(0);
    let votes = stat("votes") == "yes";
    let current = stat("ranges_up_to_date") == stat("ranges");
    let state = match (votes, current) {
        (false, _) => "up, does not vote yet",
        (true, false) => "up, copies what it missed",
        (true, true) if stat("full") == "yes" => "up, full",
        (true, true) => "up",
    };
    Health {
        id: member.id,
        state: state.to_owned(),
        more: format!(
            "{} keys, {} requests, {} s",
            stat("keys"),
            stat("requests"),
            stat("uptime_seconds"),
        ),
        up: true,
        votes,
        current,
        progress: Progress::Copies {
            copied: number("keys_copied"),
            pulled: number("keys_pulled"),
            ranges: number("ranges_up_to_date"),
        },
    }
}
