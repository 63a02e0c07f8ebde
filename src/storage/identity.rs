//! The identity of a data folder: which node it belongs to, and whether its votes can be trusted.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use super::disk::{self, Disk};
use super::files::{self, IDENTITY};
use crate::protocol::ring::NodeId;

/// A random name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RandomName(String);

impl RandomName {
    pub fn draw() -> RandomName {
        RandomName(format!("{:016x}", fastrand::u64(..)))
    }
}

impl fmt::Display for RandomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a data folder. A node that comes back with another one has forgotten its votes.
pub type StorageId = RandomName;
/// The name that all nodes of a cluster agree on when they first meet. Without it, one wrong port would mix
/// two clusters whose files have the same name and ids.
pub type ClusterId = RandomName;

/// One start of a node. If two processes claim to be the same node, the one with the higher number
/// was started later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Counts the starts durably, over all folders of the node. It is 0 while the folder is new: the
    /// node does not vote, and does not know yet which numbers it has used.
    pub number: u64,
    /// Distinguishes two processes that took the same number because the folder of one is a copy.
    pub random: RandomName,
}

impl Start {
    /// The start of a new process, with this number.
    pub fn numbered(number: u64) -> Start {
        let random = RandomName::draw();
        Start { number, random }
    }

    /// Whether both are starts of one process, which may have changed its number in between.
    pub fn is_of_same_process(&self, other: &Start) -> bool {
        self.random == other.random
    }

    /// Whether a process with this start is too old for a peer that has noted another one: the noted
    /// one is later, or another process of the same number. The folder is then a copy, or was put back
    /// from an older copy, and lacks votes.
    pub fn is_outdated(&self, noted: &Start) -> bool {
        self.number > 0 && self.number <= noted.number && !self.is_of_same_process(noted)
    }
}

/// What a person can do about a folder that cannot be used.
pub(super) const REBUILD: &str = "To discard the folder and copy everything from the other replicas, \
                                  start the node once with --rebuild";

/// The content of `identity.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub node: NodeId,
    /// The fingerprint of the cluster: placement and quorums depend on it.
    pub cluster: String,
    /// `None` until the node has met all others, and in folders of the first releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
    pub storage: StorageId,
    pub standing: Standing,
    /// The start of the process that uses the folder, or used it last.
    #[serde(default = "before_the_first")]
    pub start: Start,
    /// The storage id under which each peer votes. A peer that has not voted yet is missing.
    pub peers: BTreeMap<NodeId, StorageId>,
    /// The last start of each peer that this node knows of.
    #[serde(default)]
    pub starts: BTreeMap<NodeId, Start>,
    /// Whether each log that is followed by another ends with the [end frame](super::frame::END). The
    /// first releases did not write it.
    #[serde(default)]
    pub logs_end: bool,
}

fn before_the_first() -> Start {
    Start::numbered(0)
}

/// Whether a folder holds every vote that its node has given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It does, and the node votes.
    Whole,
    /// It is empty, and the peers have not said yet whether they knew an older one.
    New,
    /// An older folder was lost. The node copies its ranges before it votes.
    Lost,
    /// It is a copy, or was put back from an older copy, and lacks votes that its node has given. Its
    /// content is discarded first, and then it counts as lost.
    Outdated,
}

impl Identity {
    /// Reads the identity of a folder, or gives an empty folder a new one.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if it cannot be read, or if there are data without an identity.
    pub fn open(disk: &dyn Disk, node: NodeId, cluster: &str) -> io::Result<Identity> {
        let names = disk.list()?;
        let invalid =
            |text: String| io::Error::new(io::ErrorKind::InvalidData, format!("{text}. {REBUILD}"));
        if let Some(read) = Identity::read(disk, &names)? {
            return read.map_err(|error| invalid(format!("{IDENTITY} cannot be read: {error}")));
        }
        if names.iter().any(|name| files::is_data(name)) {
            return Err(invalid(format!("there are data here, but no {IDENTITY}")));
        }
        let identity = Identity::of_empty(node, cluster, Standing::New);
        identity.save(disk)?;
        Ok(identity)
    }

    /// The content of the file, if it is among `names`, or why it has no meaning.
    fn read(disk: &dyn Disk, names: &[String]) -> io::Result<Option<serde_json::Result<Identity>>> {
        let is_there = names.iter().any(|name| name == IDENTITY);
        let content = is_there.then(|| disk.read(IDENTITY)).transpose()?;
        Ok(content.map(|content| serde_json::from_slice(&content)))
    }

    /// The identity of an empty folder, with a new storage id.
    fn of_empty(node: NodeId, cluster: &str, standing: Standing) -> Identity {
        Identity {
            node,
            cluster: cluster.to_owned(),
            cluster_id: None,
            storage: StorageId::draw(),
            standing,
            start: before_the_first(),
            peers: BTreeMap::new(),
            starts: BTreeMap::new(),
            logs_end: true,
        }
    }

    /// Takes the number of a new process. If the folder is new, the other nodes supply the number.
    pub fn start_anew(&mut self) {
        let is_numbered = self.start.number > 0 || self.standing == Standing::Whole;
        self.start = Start::numbered(self.start.number + u64::from(is_numbered));
    }

    /// Notes that the folder lacks votes of its node, so that its content counts no more.
    pub fn outdate(&mut self) {
        self.storage = StorageId::draw();
        self.standing = Standing::Outdated;
        self.start.number = 0;
    }

    /// Makes the identity durable.
    pub fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        disk::replace(disk, IDENTITY, &serde_json::to_vec_pretty(self)?)
    }

    /// Empties a folder of this node, and notes that its content is lost. The note is written first: a
    /// folder that was emptied only in part must not vote with the rest.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if the folder belongs to another node.
    pub fn discard(disk: &dyn Disk, node: NodeId, cluster: &str) -> io::Result<()> {
        let names = disk.list()?;
        let mut lost = Identity::of_empty(node, cluster, Standing::Lost);
        if let Some(Ok(before)) = Identity::read(disk, &names)? {
            if before.node != node {
                let text = format!("this folder is node {}'s, not {node}'s", before.node);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
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
