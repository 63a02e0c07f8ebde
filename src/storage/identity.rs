//! Whose folder this is, and whether its votes can be trusted.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use super::disk::{self, Disk};
use super::files::{self, IDENTITY};
use crate::protocol::ring::NodeId;

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

/// One start of a node: of two processes that say they are the same node, the one with the higher
/// number began later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Counted upwards durably, over all folders of the node. 0 while the folder is new: its node does
    /// not vote, and has not been told yet which numbers were used.
    pub number: u64,
    /// Tells two processes apart that took the same number, since one of their folders is a copy.
    pub random: String,
}

impl Start {
    /// A process that takes this number.
    pub fn numbered(number: u64) -> Start {
        let random = format!("{:016x}", fastrand::u64(..));
        Start { number, random }
    }

    /// Whether these are starts of one process: it may have taken its number in between.
    pub fn is_of_same_process(&self, other: &Start) -> bool {
        self.random == other.random
    }

    /// Whether a process that has noted the other start knows of a later one than this, or of another
    /// process of the same number. The folder of this one is then a copy, or was put back from an older
    /// copy, and lacks votes.
    pub fn is_outdated(&self, noted: &Start) -> bool {
        self.number > 0 && self.number <= noted.number && !self.is_of_same_process(noted)
    }
}

/// A random name that all nodes of a cluster agree on when they first meet. Without it two clusters
/// whose files have the same name and ids would mix through one wrong port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(String);

impl ClusterId {
    pub fn random() -> ClusterId {
        ClusterId(format!("{:016x}", fastrand::u64(..)))
    }
}

impl fmt::Display for ClusterId {
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
    /// There once the node has met all others; folders of the first releases have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
    pub storage: StorageId,
    pub standing: Standing,
    /// The start of the process that has the folder now, or had it last.
    #[serde(default = "before_the_first")]
    pub start: Start,
    /// The storage id that each peer told first, or votes under since.
    pub peers: BTreeMap<NodeId, StorageId>,
    /// The last start of each peer that was told.
    #[serde(default)]
    pub starts: BTreeMap<NodeId, Start>,
    /// Whether each log that another follows ends with a [frame that says so](super::frame::END).
    /// The first releases wrote none.
    #[serde(default)]
    pub logs_end: bool,
}

fn before_the_first() -> Start {
    Start::numbered(0)
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
    /// It is a copy, or was put back from an older copy, and lacks votes that its node has given. What
    /// it holds is discarded before anything else, and is lost then.
    Outdated,
}

impl Identity {
    /// Reads the identity of a folder, or gives an empty folder a new one.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if it cannot be read, or if there are data without it.
    pub fn open(disk: &dyn Disk, node: NodeId, cluster: &str) -> io::Result<Identity> {
        let names = disk.list()?;
        if names.iter().any(|name| name == IDENTITY) {
            let content = disk.read(IDENTITY)?;
            return serde_json::from_slice(&content).map_err(|error| {
                let text = format!("{IDENTITY} cannot be read: {error}. {REBUILD}");
                io::Error::new(io::ErrorKind::InvalidData, text)
            });
        }
        if names.iter().any(|name| files::is_data(name)) {
            let text = format!("there are data here, but no {IDENTITY}. {REBUILD}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let identity = Identity::of_empty(node, cluster, Standing::New);
        identity.save(disk)?;
        Ok(identity)
    }

    /// The identity of a folder without data, and with a name of its own.
    fn of_empty(node: NodeId, cluster: &str, standing: Standing) -> Identity {
        Identity {
            node,
            cluster: cluster.to_owned(),
            cluster_id: None,
            storage: StorageId::random(),
            standing,
            start: before_the_first(),
            peers: BTreeMap::new(),
            starts: BTreeMap::new(),
            logs_end: true,
        }
    }

    /// Takes the number of a new process. One whose folder is new gets one from the others first.
    pub fn start_anew(&mut self) {
        let is_numbered = self.start.number > 0 || self.standing == Standing::Whole;
        self.start = Start::numbered(self.start.number + u64::from(is_numbered));
    }

    /// Notes that the folder lacks votes of its node. Whatever it holds counts no more.
    pub fn outdate(&mut self) {
        self.storage = StorageId::random();
        self.standing = Standing::Outdated;
        self.start.number = 0;
    }

    /// Makes the identity durable.
    pub fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        disk::replace(disk, IDENTITY, &serde_json::to_vec_pretty(self)?)
    }

    /// Empties a folder of the node's, and notes that what it held is lost.
    ///
    /// The note comes first: a folder that is emptied in part must not vote with the rest.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if the folder is another node's.
    pub fn discard(disk: &dyn Disk, node: NodeId, cluster: &str) -> io::Result<()> {
        let names = disk.list()?;
        let before: Option<Identity> = match names.iter().any(|name| name == IDENTITY) {
            true => serde_json::from_slice(&disk.read(IDENTITY)?).ok(),
            false => None,
        };
        if let Some(other) = before.as_ref().filter(|before| before.node != node) {
            let text = format!("this folder is node {}'s, not {node}'s", other.node);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut lost = Identity::of_empty(node, cluster, Standing::Lost);
        if let Some(before) = before {
            lost.cluster_id = before.cluster_id;
            lost.peers = before.peers;
            lost.starts = before.starts;
        }
        lost.save(disk)?;
        for name in names.iter().filter(|name| files::is_data(name)) {
            disk.remove(name)?;
        }
        disk.sync_folder()
    }
}
