//! The command line: `dynamo SUBCOMMAND`.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lexopt::Arg;
use signal_hook::consts::SIGPIPE;
use signal_hook::flag;
use simple_dynamo::cli::{self, Arguments, UsageError};
use simple_dynamo::logging;

const HELP: &str = "\
A simplified Amazon Dynamo that is linearizable and available at the same time.

usage: dynamo COMMAND [options]

  node     run one node of a cluster
  shell    type requests at a node
  status   how every node is
  bench    measure a running cluster
  nodes    check a cluster file and print its nodes

Each has its own --help with examples. To start five nodes at once: ./run.sh
";

fn main() -> ExitCode {
    if let Err(error) = logging::start() {
        eprintln!("dynamo: {error}");
        return ExitCode::FAILURE;
    }
    let code = match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::print(&format!("dynamo: {error}"));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    };
    logging::flush();
    code
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut parser = lexopt::Parser::from_env();
    let command = match parser.next()? {
        Some(Arg::Value(word)) => word.to_string_lossy().into_owned(),
        Some(Arg::Long("help") | Arg::Short('h')) | None => "help".to_owned(),
        Some(Arg::Long("version") | Arg::Short('V')) => "version".to_owned(),
        Some(other) => return Err(UsageError(other.unexpected().to_string()).into()),
    };
    if command != "node" {
        // Ends quietly, like other tools, when the reader of its output has gone.
        flag::register_conditional_default(SIGPIPE, Arc::new(AtomicBool::new(true)))?;
    }
    let arguments = Arguments::new(parser);
    match command.as_str() {
        "node" => cli::node::run(arguments),
        "shell" => cli::shell::run(arguments),
        "status" => cli::status::run(arguments),
        "bench" => cli::bench::run(arguments),
        "nodes" => cli::nodes::run(arguments),
        "help" => {
            print!("{HELP}");
            Ok(())
        }
        "version" => {
            println!("dynamo {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        other => {
            let text = format!("unknown command {other:?}; see dynamo --help");
            Err(UsageError(text).into())
        }
    }
}
