//! The command line: `dynamo SUBCOMMAND`.

mod arguments;
pub mod bench;
pub mod chat;
pub mod node;
pub mod nodes;
pub mod shell;
mod shutdown;
pub mod status;
mod ticker;

use std::error::Error;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Parser, Subcommand};

use crate::config::Config;

/// A simplified Amazon Dynamo that is linearizable and available at the same time.
#[derive(Parser)]
#[command(name = "dynamo", version, args_override_self = true)]
#[command(after_help = "Each has its own --help with examples. \
                        To start five nodes at once: ./run.sh")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// The cluster file (JSON); without it, the course's five nodes on 127.0.0.1, with the strategy that
    /// DYNAMO_STRATEGY names (quorum or chain).
    #[arg(long, global = true, value_name = "FILE", display_order = 100)]
    #[arg(value_parser = PathBufValueParser::new().try_map(arguments::read_config))]
    cluster: Option<Config>,
}

/// A subcommand with its options.
#[derive(Subcommand)]
pub enum Command {
    Node(node::Options),
    Shell(shell::Options),
    Chat(chat::Options),
    Status(status::Options),
    Bench(bench::Load),
    /// Checks a cluster file and prints its nodes: id, port for clients, port for peers, host.
    #[command(after_help = "Example: dynamo nodes --cluster seven.json")]
    Nodes,
}

/// Runs a subcommand.
///
/// # Errors
/// What the subcommand failed in. It is a [`clap::Error`] if the command line is wrong.
pub fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    let config = match (cli.cluster, std::env::var("DYNAMO_STRATEGY")) {
        (Some(config), _) => config,
        (None, Ok(strategy)) => {
            let wrong = |error| arguments::wrong(&format!("DYNAMO_STRATEGY: {error}"));
            Config::course_with(strategy.parse().map_err(wrong)?)
        }
        (None, Err(_)) => Config::course(),
    };
    match cli.command {
        Command::Node(options) => node::run(options, config),
        Command::Shell(options) => shell::run(&options, &config),
        Command::Chat(options) => chat::run(options, &config),
        Command::Status(options) => status::run(options, &config),
        Command::Bench(load) => bench::run(load, &config),
        Command::Nodes => nodes::run(&config),
    }
}
