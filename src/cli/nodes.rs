//! `dynamo nodes`: reads a cluster file and prints its nodes.

use std::error::Error;

use super::arguments::{Argument, Arguments};

pub const HELP: &str = "\
Checks a cluster file and prints its nodes: id, port for clients, port for peers, host.

usage: dynamo nodes [--cluster FILE]
";

/// Runs the subcommand.
pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    while let Some(argument) = arguments.next()? {
        match &argument {
            Argument::Option(name) if name == "help" => {
                print!("{HELP}");
                return Ok(());
            }
            _ => return Err(argument.unknown("nodes").into()),
        }
    }
    for member in &arguments.config()?.nodes {
        println!(
            "{} {} {} {}",
            member.id, member.client_port, member.peer_port, member.host
        );
    }
    Ok(())
}
