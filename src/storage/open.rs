//! Opens a data folder, or says why it must not be used.

use std::fmt;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::disk::Disk;
use super::files;
use super::frame::Broken;
use super::identity::{Identity, REBUILD, Standing};
use super::log::{GroupCommit, Hooks, SyncMode};
use super::{LOG_AHEAD, Progress, Store, recovery};
use crate::protocol::ring::{NodeId, Ring};

/// Why a folder cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    Io(io::Error),
    /// The folder is another node's, or another cluster's.
    Foreign(String),
    Damaged {
        file: String,
        broken: Broken,
    },
}

impl OpenError {
    pub(super) fn damaged(file: &str, broken: Broken) -> OpenError {
        OpenError::Damaged {
            file: file.to_owned(),
            broken,
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Io(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io(error) => write!(f, "{error}"),
            OpenError::Foreign(text) => f.write_str(text),
            OpenError::Damaged { file, broken } => write!(
                f,
                "{file}: {broken}. This node may have forgotten votes, so it does not start. \
                 {REBUILD}"
            ),
        }
    }
}

impl std::error::Error for OpenError {}

impl Store {
    /// Opens a folder: reads it, cuts a torn tail off, and starts a new log. `progress` tells how far
    /// that is.
    pub fn open(
        disk: Arc<dyn Disk>,
        node: NodeId,
        cluster: &str,
        ring: Arc<Ring>,
        sync: SyncMode,
        hooks: Hooks,
        progress: &Progress,
    ) -> Result<Store, OpenError> {
        let mut identity = Identity::open(disk.as_ref(), node, cluster)?;
        if identity.node != node {
            let text = format!(
                "this folder is node {}'s, not {node}'s: name its own with --data",
                identity.node
            );
            return Err(OpenError::Foreign(text));
        }
        if identity.cluster != cluster {
            let text = format!(
                "this folder belongs to cluster {}, and the cluster file says {cluster}: name, node \
                 ids, N, R and W must be those that the folder was made with",
                identity.cluster
            );
            return Err(OpenError::Foreign(text));
        }
        if identity.standing == Standing::Outdated {
            Identity::discard(disk.as_ref(), node, cluster)?;
            identity = Identity::open(disk.as_ref(), node, cluster)?;
        }
        let recovered = recovery::recover(disk.as_ref(), ring, &identity, progress)?;
        if !identity.logs_end {
            identity.logs_end = true;
            identity.save(disk.as_ref())?;
        }
        let first = files::FIRST_GENERATION;
        if identity.standing == Standing::Whole && recovered.generation == first {
            // Whoever has voted has at least one log.
            return Err(OpenError::damaged(&files::log_name(first), Broken::Missing));
        }
        // What is not synced gains nothing by them.
        let log_ahead = match sync {
            SyncMode::Always => LOG_AHEAD,
            SyncMode::Os => 0,
        };
        let log = disk.create(&files::log_name(recovered.generation), log_ahead)?;
        disk.sync_folder()?;
        Ok(Store {
            node,
            records: Arc::new(Mutex::new(recovered.records)),
            commit: GroupCommit::start(
                log,
                recovered.generation,
                sync,
                hooks,
                recovered.log_bytes,
            )?,
            recovered: recovered.position,
            identity: Mutex::new(identity),
            changing_identity: Mutex::default(),
            taking_snapshot: Mutex::default(),
            log_ahead,
            generation: AtomicU64::new(recovered.generation),
            sequences: AtomicU64::new(recovered.sequences),
            snapshot_bytes: AtomicU64::new(0),
            pages: Arc::default(),
            disk,
        })
    }
}
