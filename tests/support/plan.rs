//! What a cluster of a test is like, and the files for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::{Map, Value, json};
use simple_dynamo::protocol::ring::{NodeId, Ring};

use super::cluster::{Cluster, Node};
use super::folder::temporary;
use super::ports;
use super::proxy::Network;

/// What a cluster of a test is like.
pub struct Plan {
    ids: Vec<u32>,
    settings: Map<String, Value>,
    switches: Vec<(String, String)>,
    proxied: bool,
    folder: Option<PathBuf>,
}

impl Plan {
    pub fn of(ids: &[u32]) -> Plan {
        Plan {
            ids: ids.to_vec(),
            settings: Map::new(),
            switches: Vec::new(),
            proxied: false,
            folder: None,
        }
    }

    /// Sets a value of the cluster file.
    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Plan {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// Starts every node, each time, with switches of `simple_dynamo::testing::rules` and
    /// `simple_dynamo::testing::faults` in its environment.
    pub fn switched(mut self, switches: &[(&str, &str)]) -> Plan {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.switches.extend(switches.iter().map(owned));
        self
    }

    /// Puts a proxy on the way from each node to each other, see [`Cluster::network`].
    pub fn proxied(mut self) -> Plan {
        self.proxied = true;
        self
    }

    /// Keeps data and logs in this folder, which stays when the cluster has ended.
    pub fn kept_in(mut self, folder: PathBuf) -> Plan {
        self.folder = Some(folder);
        self
    }

    /// Writes the files, and starts no node.
    pub fn lay_out(self) -> Cluster {
        let kept = self.folder.is_some();
        let folder = self.folder.unwrap_or_else(temporary);
        fs::create_dir_all(&folder).unwrap();
        let ports: BTreeMap<u32, u16> = self
            .ids
            .iter()
            .map(|&id| (id, ports::free_pair()))
            .collect();
        let peer_ports = ports.iter().map(|(&id, port)| (id, port + 1)).collect();
        let network = self.proxied.then(|| Network::new(&peer_ports));
        for &own in &self.ids {
            let member = |id: &u32| {
                let proxy = network.as_ref().and_then(|network| network.port(own, *id));
                json!({"id": id, "client_port": ports[id], "peer_port": proxy.unwrap_or(peer_ports[id])})
            };
            let mut file = self.settings.clone();
            if let Ok(strategy) = std::env::var("DYNAMO_STRATEGY") {
                file.entry("strategy").or_insert(strategy.into());
            }
            file.insert("nodes".into(), self.ids.iter().map(member).collect());
            fs::write(
                folder.join(format!("{own}.json")),
                Value::from(file).to_string(),
            )
            .unwrap();
        }
        let replicas = self
            .settings
            .get("replicas")
            .and_then(Value::as_u64)
            .unwrap_or(3);
        let node = |(id, client_port)| {
            let process = Mutex::new(None);
            (
                id,
                Node {
                    client_port,
                    process,
                },
            )
        };
        Cluster {
            folder,
            ring: Ring::new(self.ids.into_iter().map(NodeId), replicas as usize),
            nodes: ports.into_iter().map(node).collect(),
            switches: self.switches,
            network,
            kept,
        }
    }

    /// Starts every node, and waits until all are ready.
    pub fn start(self) -> Cluster {
        let cluster = self.lay_out();
        cluster.ids().for_each(|id| cluster.start_node(id));
        cluster.await_all_ready();
        cluster
    }
}
