//! `dynamo status`: prints the state of every node of the cluster.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use clap::Args;

use super::arguments::{member, seconds};
use super::ticker::Ticker;
use crate::client::Client;
use crate::config::{Config, Member};
use crate::protocol::ring::NodeId;
use crate::server::startup;

/// Prints whether every key can be read and written, and a line per node: whether it answers, votes and is up to
/// date.
#[derive(Args)]
#[command(after_help = "\
Examples:
  dynamo status
  dynamo status 5554 --wait 10")]
pub struct Options {
    /// Only these nodes.
    #[arg(value_name = "ID")]
    ids: Vec<NodeId>,
    /// Wait until they all answer, vote and are up to date; give up when none of those that are not ready has
    /// made progress for that time.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    wait: Option<Duration>,
}

/// How long to wait for the answer of a node.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long to wait before asking the nodes again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// What one node says of itself.
struct Health {
    id: NodeId,
    /// The state of the node in a few words.
    state: String,
    /// What the node holds and has done, if it answers.
    more: String,
    votes: bool,
    /// Whether all ranges of the node are up to date.
    current: bool,
    headway: Headway,
}

/// How far a node is that is not ready. The first field in which two differ says which is further.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Headway {
    /// Whether the node has read its data, and answers questions.
    up: bool,
    /// How many MiB of its data it has read, while it starts.
    read: Option<u64>,
    /// How many keys it has copied that it had lost.
    copied: u64,
    /// How many keys it has pulled that it had missed.
    pulled: u64,
    /// How many of its ranges are up to date.
    ranges: u64,
}

impl Health {
    /// The health of a node that does not answer, or answers with an error.
    fn down(member: &Member, state: String) -> Health {
        Health {
            id: member.id,
            state,
            more: String::new(),
            votes: false,
            current: false,
            headway: Headway::default(),
        }
    }

    fn ready(&self) -> bool {
        self.votes && self.current
    }

    /// The state of the node and its headway, for whoever waits for it.
    fn sentence(&self) -> String {
        let Health { id, state, .. } = self;
        match self.headway.copied + self.headway.pulled {
            0 => format!("{id} {state}"),
            keys => format!("{id} {state}, {keys} keys so far"),
        }
    }
}

/// Runs the subcommand.
pub fn run(options: Options, config: &Config) -> Result<(), Box<dyn Error>> {
    let (mut asked, wait) = (options.ids, options.wait);
    let all = config.nodes.iter().map(|member| member.id);
    if asked.is_empty() {
        asked.extend(all.clone());
    }
    let members = asked.iter().map(|&id| member(config, id));
    let members = members.collect::<Result<Vec<&Member>, _>>()?;
    let nodes = watch(&members, wait.unwrap_or_default());
    if all.into_iter().all(|id| asked.contains(&id)) {
        println!("{}", verdict(config, &nodes));
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

/// Asks the nodes again and again, until all are ready or none of the others has made headway for this time.
fn watch(members: &[&Member], patience: Duration) -> Vec<Health> {
    let mut furthest = vec![Headway::default(); members.len()];
    let mut until = Instant::now() + patience;
    let mut ticker = Ticker::begin();
    loop {
        let nodes = ask_all(members);
        for (node, furthest) in nodes.iter().zip(&mut furthest) {
            // A node that crashes again and again gets no further than the last time.
            if !node.ready() && node.headway > *furthest {
                *furthest = node.headway;
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
        std::thread::sleep(ASK_AGAIN);
    }
}

/// What the states of all nodes mean for the keys.
fn verdict(config: &Config, nodes: &[Health]) -> String {
    let up = nodes.iter().filter(|node| node.headway.up).count();
    let ring = config.ring();
    // The number of such replicas in the range that has the fewest of them.
    let least = |is_such: fn(&Health) -> bool| {
        let is_such = |id: &&NodeId| nodes.iter().any(|node| node.id == **id && is_such(node));
        let ranges = (0..ring.members().len()).map(|range| ring.replicas_of_range(range));
        let counts = ranges.map(|replicas| replicas.iter().filter(is_such).count());
        counts.min().unwrap_or(0)
    };
    let quorums = config.quorums();
    let (replicas, needed) = (quorums.replicas, quorums.agreeing());
    let (voting, copies) = (least(|node| node.votes), least(Health::ready));
    let keys = if voting < needed {
        format!(
            "some keys can be neither read nor written: only {voting} of their {replicas} replicas vote, \
             and {needed} must"
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

/// Asks all nodes at once, since a paused one takes all of the patience.
fn ask_all(members: &[&Member]) -> Vec<Health> {
    std::thread::scope(|scope| {
        let start = |member| scope.spawn(move || ask(member));
        let threads = Vec::from_iter(members.iter().copied().map(start));
        let healths = threads.into_iter().filter_map(|thread| thread.join().ok());
        healths.collect()
    })
}

fn ask(member: &Member) -> Health {
    let address = member.client_address();
    let stats = Client::connect(&address, PATIENCE).and_then(|mut client| client.list("STATS"));
    match stats {
        Ok(lines) if lines[0].starts_with("ERROR") => refused(member, &lines[0]),
        Ok(lines) => describe(member, &lines),
        Err(error) => {
            let state = match error.kind() {
                io::ErrorKind::ConnectionRefused => "down".to_owned(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "silent".to_owned(),
                _ => error.to_string(),
            };
            Health::down(member, state)
        }
    }
}

/// The health of a node that answers with an error.
fn refused(member: &Member, reply: &str) -> Health {
    let Some(read) = startup::progress_in(reply) else {
        return Health::down(member, format!("answers {reply}"));
    };
    let mib = read.split(' ').next().and_then(|mib| mib.parse().ok());
    let mut health = Health::down(member, format!("starting, {read} read"));
    health.headway.read = Some(mib.unwrap_or(0));
    health
}

fn describe(member: &Member, lines: &[String]) -> Health {
    let stats = lines.iter().filter_map(|line| line.split_once(' '));
    let stats: HashMap<&str, &str> = stats.collect();
    let stat = |name: &str| stats.get(name).copied().unwrap_or("?");
    let number = |name: &str| stat(name).parse().unwrap_or(0);
    let votes = stat("votes") == "yes";
    let current = stat("ranges_up_to_date") == stat("ranges");
    let (keys, requests, uptime) = (stat("keys"), stat("requests"), stat("uptime_seconds"));
    let state = match (votes, current) {
        (false, _) => "up, does not vote yet",
        (true, false) => "up, copies what it missed",
        (true, true) if stat("full") == "yes" => "up, full",
        (true, true) => "up",
    };
    Health {
        id: member.id,
        state: state.to_owned(),
        more: format!("{keys} keys, {requests} requests, {uptime} s"),
        votes,
        current,
        headway: Headway {
            up: true,
            read: None,
            copied: number("keys_copied"),
            pulled: number("keys_pulled"),
            ranges: number("ranges_up_to_date"),
        },
    }
}
