//! Whose folder this is, and whether its votes can be trusted.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use super::disk::{self, Disk};
use super::recovery;
use crate::ring::NodeId;

/// The name of its file.
pub(super) const FILE: &str = "identity.json";

/// A random name for one life of a data folder. A node that comes back with another one has
/// forgotten its votes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StorageId(String);

impl StorageId {
    fn random() -> StorageId {
        StorageId(format!("{:016x}", fastrand::u64(..)))
    }
}

impl fmt::Display for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to do about a folder that cannot be used.
pub(super) const REBUILD: &str = "To discard the folder and copy everything from the other replicas, \
                                  start the node once with --rebuild";

/// The content of `identity.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub node: NodeId,
    /// The fingerprint of the cluster: placement and quorums depend on it.
    pub cluster: String,
    pub storage: StorageId,
    pub standing: Standing,
    /// The storage id that each peer told first, or votes under since.
    pub peers: BTreeMap<NodeId, StorageId>,
    /// Whether each log that another follows ends with a [frame that says so](super::frame::END).
    /// The first releases wrote none.
    #[serde(default)]
    pub logs_end: bool,
}

/// Whether this folder holds every vote that its node ever gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It does: the node votes.
    Whole,
    /// It is empty, and the peers have not been asked yet whether they knew an older one.
    New,
    /// An older one was lost: the node copies its ranges before it votes.
    Lost,
}

impl Identity {
    /// Reads the identity of a folder, or gives an empty folder a new one.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if it cannot be read, or if there are data without it.
    pub fn open(disk: &dyn Disk, node: NodeId, cluster: &str) -> io::Result<Identity> {
        let names = disk.list()?;
        if names.iter().any(|name| name == FILE) {
            let content = disk.read(FILE)?;
            return serde_json::from_slice(&content).map_err(|error| {
                let text = format!("{FILE} cannot be read: {error}. {REBUILD}");
                io::Error::new(io::ErrorKind::InvalidData, text)
            });
        }
        if names.iter().any(|name| recovery::is_data(name)) {
            let text = format!("there are data here, but no {FILE}. {REBUILD}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let identity = Identity {
            node,
            cluster: cluster.to_owned(),
            storage: StorageId::random(),
            standing: Standing::New,
            peers: BTreeMap::new(),
            logs_end: true,
        };
        identity.save(disk)?;
        Ok(identity)
    }

    /// Makes the identity durable.
    pub fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        disk::replace(disk, FILE, &serde_json::to_vec_pretty(self)?)
    }

    /// Empties a folder of the node's, and notes that what it held is lost.
    ///
    /// The note comes first: a folder that is emptied in part must not vote with the rest.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if the folder is another node's.
    pub fn discard(disk: &dyn Disk, node: NodeId, cluster: &str) -> io::Result<()> {
        let names = disk.list()?;
        let before: Option<Identity> = match names.iter().any(|name| name == FILE) {
            true => serde_json::from_slice(&disk.read(FILE)?).ok(),
            false => None,
        };
        if let Some(other) = before.as_ref().filter(|before| before.node != node) {
            let text = format!("this folder is node {}'s, not {node}'s", other.node);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let lost = Identity {
            node,
            cluster: cluster.to_owned(),
            storage: StorageId::random(),
            standing: Standing::Lost,
            peers: before.map(|before| before.peers).unwrap_or_default(),
            logs_end: true,
        };
        lost.save(disk)?;
        for name in names.iter().filter(|name| recovery::is_data(name)) {
            disk.remove(name)?;
        }
        disk.sync_folder()
    }
}
