//! `dynamo nodes`: reads a cluster file and prints its nodes.

use std::error::Error;

use super::arguments::{Argument, Arguments};

pub const HELP: &str = "\
Checks a cluster file and prints its nodes: id, port for clients, port for peers, host.

usage: dynamo nodes [--cluster FILE]

  --cluster FILE   the cluster file; without it, the course's five nodes on 127.0.0.1

examples:
  dynamo nodes
  dynamo nodes --cluster seven.json
";

/// Runs the subcommand.
pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    if let Some(argument) = arguments.next_own()? {
        if argument != Argument::Option("help".to_owned()) {
            return Err(argument.unknown("nodes").into());
        }
        print!("{HELP}");
        return Ok(());
    }
    for member in &arguments.config()?.nodes {
        println!(
            "{} {} {} {}",
            member.id, member.client_port, member.peer_port, member.host
        );
    }
    Ok(())
}
