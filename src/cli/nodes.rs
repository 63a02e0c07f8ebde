//! `dynamo nodes`: prints the nodes of a cluster file, which has been checked by then.

use std::error::Error;

use crate::config::Config;

/// Runs the subcommand.
pub fn run(config: &Config) -> Result<(), Box<dyn Error>> {
    for member in &config.nodes {
        println!(
            "{} {} {} {}",
            member.id, member.client_port, member.peer_port, member.host
        );
    }
    Ok(())
}
