//! What the options of several subcommands have in common.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;

use crate::config::{Config, Member};
use crate::protocol::ring::NodeId;

/// Reads a cluster file.
pub fn read_config(path: PathBuf) -> Result<Config, Box<dyn Error + Send + Sync>> {
    check_links(&path)?;
    Ok(Config::read(&path)?)
}

/// Reads a time in seconds, of a day at most.
pub fn seconds(word: &str) -> Result<Duration, &'static str> {
    match word.parse() {
        Ok(seconds @ 0.0..=86_400.0) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("seconds are a number from 0 to 86400"),
    }
}

/// The error for options that are wrong together, or wrong for the cluster.
pub fn wrong(text: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{text}\n"))
}

/// The node of the cluster with this id.
pub fn member(config: &Config, id: NodeId) -> Result<&Member, clap::Error> {
    config.member(id).ok_or_else(|| {
        let ids = config.ids();
        wrong(&format!(
            "node {id} is not in the cluster; its nodes are {ids}"
        ))
    })
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
