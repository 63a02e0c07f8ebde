//! Parses the arguments that subcommands have in common.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::config::{Config, Member};
use crate::protocol::ring::NodeId;

/// The longest time in an option, in seconds: a day.
const LONGEST: f64 = 86_400.0;

/// The command line is wrong; the text says what to write instead.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError(error.to_string())
    }
}

/// Reads the arguments of one subcommand one by one.
pub struct Arguments {
    parser: Parser,
    cluster: Option<PathBuf>,
}

/// One argument.
#[derive(Debug, PartialEq, Eq)]
pub enum Argument {
    /// `--name`, or `-n`.
    Option(String),
    /// Any other argument.
    Word(String),
}

impl Arguments {
    /// The arguments that this parser has left.
    pub fn new(parser: Parser) -> Arguments {
        Arguments {
            parser,
            cluster: None,
        }
    }

    /// The next argument of this subcommand. `--cluster`, which all have, is handled here.
    pub fn next_own(&mut self) -> Result<Option<Argument>, UsageError> {
        loop {
            match self.parser.next()? {
                Some(Arg::Long("cluster")) => self.cluster = Some(self.path()?),
                Some(Arg::Long(name)) => return Ok(Some(Argument::Option(name.to_owned()))),
                Some(Arg::Short('h')) => return Ok(Some(Argument::Option("help".to_owned()))),
                Some(Arg::Short(name)) => return Ok(Some(Argument::Option(name.to_string()))),
                Some(Arg::Value(word)) => return Ok(Some(Argument::Word(word.string()?))),
                None => return Ok(None),
            }
        }
    }

    /// The value of the last option, which is called `name`.
    pub fn value<T: FromStr>(&mut self, name: &str) -> Result<T, UsageError>
    where
        T::Err: fmt::Display,
    {
        let word = self.parser.value()?.string()?;
        let wrong = |error| UsageError(format!("--{name} {word}: {error}"));
        word.parse().map_err(wrong)
    }

    /// The value of the last option as the name of a file or folder.
    pub fn path(&mut self) -> Result<PathBuf, UsageError> {
        Ok(self.parser.value()?.into())
    }

    /// The value of the last option as a time in seconds.
    pub fn seconds(&mut self, name: &str) -> Result<Duration, UsageError> {
        let seconds: f64 = self.value(name)?;
        if (0.0..=LONGEST).contains(&seconds) {
            Ok(Duration::from_secs_f64(seconds))
        } else {
            let text = format!("--{name} must be from 0 to {LONGEST} seconds, not {seconds}");
            Err(UsageError(text))
        }
    }

    /// The cluster of `--cluster`, or the course's five nodes without that option.
    ///
    /// # Errors
    /// The cluster file cannot be read, or is wrong.
    pub fn config(&self) -> Result<Config, UsageError> {
        match &self.cluster {
            Some(path) => {
                check_links(path).map_err(UsageError)?;
                Config::read(path).map_err(UsageError)
            }
            None => Ok(Config::course()),
        }
    }
}

impl Argument {
    /// The error for an argument that the subcommand does not have.
    pub fn unknown(&self, command: &str) -> UsageError {
        let text = match self {
            Argument::Option(name) if name.len() == 1 => format!("-{name}"),
            Argument::Option(name) => format!("--{name}"),
            Argument::Word(word) => word.clone(),
        };
        UsageError(format!(
            "{text} is not understood; see dynamo {command} --help"
        ))
    }
}

/// Fails if a path goes through a link whose target does not exist. The errors of the system would not name the
/// link.
pub fn check_links(path: &Path) -> Result<(), String> {
    let dangling = |part: &&Path| part.is_symlink() && !part.exists();
    match path.ancestors().find(dangling) {
        Some(link) => {
            let target = link.read_link().unwrap_or_default();
            let (link, target) = (link.display(), target.display());
            Err(format!("{link} is a link to {target}, which is not there"))
        }
        None => Ok(()),
    }
}

/// Reads the id of a node.
pub fn node_id(word: &str) -> Result<NodeId, UsageError> {
    let wrong = |_| {
        UsageError(format!(
            "{word:?} is not a node id; an id is a number such as 5554"
        ))
    };
    word.parse().map_err(wrong)
}

/// The node of the cluster with this id.
pub fn member(config: &Config, id: NodeId) -> Result<&Member, UsageError> {
    config.member(id).ok_or_else(|| {
        UsageError(format!(
            "node {id} is not in the cluster; its nodes are {}",
            config.ids()
        ))
    })
}
