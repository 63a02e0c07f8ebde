//! The program `dynamo`.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use signal_hook::consts::SIGPIPE;
use signal_hook::flag;
use simple_dynamo::cli::{self, Cli, Command};
use simple_dynamo::logging;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = logging::start() {
        eprintln!("dynamo: {error}");
        return ExitCode::FAILURE;
    }
    let code = match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(usage) => usage.exit(),
            Err(error) => {
                logging::print(&format!("dynamo: {error}"));
                ExitCode::FAILURE
            }
        },
    };
    logging::flush();
    code
}

fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    if !matches!(cli.command, Command::Node(_)) {
        // Ends quietly, like other tools, when the reader of its output has gone.
        flag::register_conditional_default(SIGPIPE, Arc::new(AtomicBool::new(true)))?;
    }
    cli::run(cli)
}
