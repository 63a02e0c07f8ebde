//! Opening a data folder.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::disk::Disk;
use super::files;
use super::frame::FrameError;
use super::identity::{Identity, Standing};
use super::progress::Progress;
use super::recovery::{self, OpenError};
use super::wal::{Hooks, SyncMode, WriteAheadLog};
use super::{LOG_ZEROS, SnapshotState, Store};
use crate::protocol::Strategy;
use crate::protocol::ring::{NodeId, Ring};

impl Store {
    /// Opens a folder: reads it, cuts a torn frame off, and starts a new log. `progress` shows how much
    /// has been read.
    ///
    /// # Errors
    /// If the disk fails, or if the folder is damaged or belongs to another node or cluster.
    pub fn open(
        disk: Arc<dyn Disk>,
        node: NodeId,
        cluster: &str,
        ring: Arc<Ring>,
        sync: SyncMode,
        hooks: Hooks,
        progress: &Progress,
    ) -> Result<Store, OpenError> {
        let mut identity = own_identity(disk.as_ref(), node, cluster)?;
        let recovered = recovery::recover(disk.as_ref(), ring, &identity, progress)?;
        if !identity.logs_end {
            // Recovery has written the end frames that were missing.
            identity.logs_end = true;
            identity.save(disk.as_ref())?;
        }
        let generation = recovered.generation;
        let name = files::log_name(generation);
        if identity.standing == Standing::Whole && generation == files::FIRST_GENERATION {
            // A node that has voted has a log at least.
            return Err(OpenError::Damaged(name, FrameError::Missing));
        }
        // Zeros make syncs cheaper, and nothing else.
        let log_zeros = match sync {
            SyncMode::Always => LOG_ZEROS,
            SyncMode::Os => 0,
        };
        let log = disk.create(&name, log_zeros)?;
        disk.sync_folder()?;
        Ok(Store {
            records: Mutex::new(recovered.records),
            wal: WriteAheadLog::start(log, generation, sync, hooks, recovered.log_bytes)?,
            recovered: recovered.position,
            identity: Mutex::new(identity),
            changing_identity: Mutex::default(),
            log_zeros,
            snapshots: Mutex::new(SnapshotState { generation, due: 0 }),
            sequences: AtomicU64::new(recovered.sequences),
            has_voted: AtomicBool::new(false),
            pages: Arc::default(),
            disk,
        })
    }
}

/// The identity of a folder of this node, which is emptied first if it is outdated.
fn own_identity(disk: &dyn Disk, node: NodeId, cluster: &str) -> Result<Identity, OpenError> {
    let identity = Identity::open(disk, node, cluster)?;
    if identity.node != node {
        return Err(OpenError::Foreign(format!(
            "this folder is node {}'s, not {node}'s: name its own with --data",
            identity.node
        )));
    }
    let (made, now) = (Strategy::of(&identity.cluster), Strategy::of(cluster));
    if made != now {
        return Err(OpenError::Foreign(format!(
            "this folder was made with the strategy {made}, and the cluster file says {now}: each strategy needs \
             folders of its own"
        )));
    }
    if identity.cluster != cluster {
        return Err(OpenError::Foreign(format!(
            "this folder belongs to cluster {}, and the cluster file says {cluster}: name, node \
             ids, N, R and W must be those that the folder was made with",
            identity.cluster
        )));
    }
    if identity.standing != Standing::Outdated {
        return Ok(identity);
    }
    Identity::discard(disk, node, cluster)?;
    Ok(Identity::open(disk, node, cluster)?)
}
