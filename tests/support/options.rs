//! The command lines of the test programs that have options of their own.

use std::process::exit;

use clap::{Arg, ArgAction, Parser};

/// The exit code for a wrong command line. The programs have others for what they find.
const USAGE: i32 = 64;

/// Reads the command line. Ends the program if it asks for help, is wrong, or names tests: `cargo test NAME` looks
/// for tests of that name in every target, and these have none.
pub fn parse<T: Parser>() -> T {
    let is_name = |word: String| !word.starts_with('-');
    if std::env::args().nth(1).is_some_and(is_name) {
        exit(0);
    }
    // These programs capture no output.
    let nocapture = Arg::new("nocapture").long("nocapture");
    let nocapture = nocapture.action(ArgAction::SetTrue).hide(true);
    let command = T::command().args_override_self(true);
    let parsed = command.arg(nocapture).try_get_matches();
    let parsed = parsed.and_then(|matches| T::from_arg_matches(&matches));
    parsed.unwrap_or_else(|error| {
        // An error would say that nobody reads this.
        let _ = error.print();
        exit(if error.use_stderr() { USAGE } else { 0 })
    })
}
