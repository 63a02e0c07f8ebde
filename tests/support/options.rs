//! The command lines of the test programs that have options of their own.

use std::env;
use std::ffi::OsString;
use std::process::exit;

use clap::{Arg, ArgAction, Parser};

/// The exit code for a wrong command line. The programs have others for what they find.
const USAGE: i32 = 64;

/// Reads the command line. Ends the program if it asks for help, is wrong, or names tests.
pub fn parse<T: Parser>() -> T {
    let options = read(env::args_os()).unwrap_or_else(|error| {
        // An error would say that nobody reads this.
        let _ = error.print();
        exit(if error.use_stderr() { USAGE } else { 0 })
    });
    options.unwrap_or_else(|| exit(0))
}

/// Reads the words of a command line. Returns `None` if they name tests: `cargo test NAME -- OPTIONS` looks for
/// tests of that name in every target, and these programs have none.
///
/// # Errors
/// A wish for help, or what is wrong.
pub fn read<T: Parser>(
    words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Option<T>, clap::Error> {
    // What follows the name of a test is for the harness of the tests.
    let names = Arg::new("names").num_args(0..).trailing_var_arg(true);
    // These programs capture no output.
    let nocapture = Arg::new("nocapture").long("nocapture");
    let nocapture = nocapture.action(ArgAction::SetTrue);
    let command = T::command().args_override_self(true);
    let command = command.args([names.hide(true), nocapture.hide(true)]);
    let matches = command.try_get_matches_from(words)?;
    match matches.contains_id("names") {
        true => Ok(None),
        false => T::from_arg_matches(&matches).map(Some),
    }
}
