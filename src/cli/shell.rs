//! `dynamo shell`: types requests at a node, like telnet with a prompt.

use std::error::Error;
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use super::arguments::{Argument, Arguments, member, node_id};
use crate::client::Client;

pub const HELP: &str = "\
Sends what is typed to a node and prints its replies.

usage: dynamo shell [ID] [--cluster FILE]

  ID               the node to talk to; the first of the cluster by default
  --cluster FILE   the cluster file; without it, the course's five nodes on 127.0.0.1

examples:
  dynamo shell 5556
  echo 'GET key1' | dynamo shell
";

/// Longer than any request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the subcommand.
pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut id = None;
    while let Some(argument) = arguments.next_own()? {
        match &argument {
            Argument::Option(name) if name == "help" => {
                print!("{HELP}");
                return Ok(());
            }
            Argument::Word(word) if id.is_none() => id = Some(node_id(word)?),
            _ => return Err(argument.unknown("shell").into()),
        }
    }
    let config = arguments.config()?;
    let id = id.unwrap_or(config.nodes[0].id);
    let address = member(&config, id)?.client_address();
    let mut client = Client::connect(&address, PATIENCE)
        .map_err(|error| format!("node {id} at {address}: {error}; is it running?"))?;
    let interactive = io::stdin().is_terminal();
    if interactive {
        println!("node {id} at {address}; HELP lists the commands, QUIT leaves");
    }
    let mut lines = io::stdin().lock().lines();
    loop {
        if interactive {
            print!("{id}> ");
            io::stdout().flush()?;
        }
        let Some(line) = lines.next() else {
            return Ok(());
        };
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let lost = |error: io::Error| format!("node {id} at {address} is gone: {error}");
        for reply in client.list(&line).map_err(lost)? {
            println!("{reply}");
        }
        if line.trim().eq_ignore_ascii_case("quit") {
            return Ok(());
        }
    }
}
