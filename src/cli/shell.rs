//! `dynamo shell`: sends typed requests to a node, like telnet with a prompt.

use std::error::Error;
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::Args;

use super::arguments::member;
use crate::client::{Client, is_about_all};
use crate::config::Config;
use crate::protocol::ring::NodeId;

/// Sends what is typed to a node and prints its replies.
///
/// GET and DEL of @ and * may take long; Ctrl-C ends them.
#[derive(Args)]
#[command(after_help = "\
Examples:
  dynamo shell 5556
  echo 'GET key1' | dynamo shell")]
pub struct Options {
    /// The node to talk to; the first of the cluster by default.
    id: Option<NodeId>,
}

/// Runs the subcommand.
pub fn run(options: &Options, config: &Config) -> Result<(), Box<dyn Error>> {
    let id = options.id.unwrap_or(config.nodes[0].id);
    let address = member(config, id)?.client_address();
    let node = format!("node {id} at {address}");
    // A healthy node answers within the deadline.
    let patience = 2 * config.request_deadline();
    let mut client = Client::connect(&address, patience)
        .map_err(|error| format!("{node}: {error}; is it running?"))?;
    let interactive = io::stdin().is_terminal();
    if interactive {
        println!("{node}; HELP lists the commands, QUIT leaves");
    }
    let mut lines = io::stdin().lock().lines();
    loop {
        if interactive {
            print!("{id}> ");
            io::stdout().flush()?;
        }
        let Some(line) = lines.next() else {
            if interactive {
                println!();
            }
            return Ok(());
        };
        let line = line.map_err(|error| format!("cannot read what is typed: {error}"))?;
        if line.trim().is_empty() {
            continue;
        }
        client.wait_for((!is_about_all(&line)).then_some(patience))?;
        let replies = client.list(&line);
        for reply in replies.map_err(|error| lost(&node, patience, error))? {
            println!("{reply}");
        }
        if line.trim().eq_ignore_ascii_case("quit") {
            return Ok(());
        }
    }
}

fn lost(node: &str, patience: Duration, error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("{node} has not answered for {patience:?}; is it paused?")
        }
        _ => format!("{node} is gone: {error}"),
    }
}
