//! The cluster file: the nodes, N, R and W, and every time-out.

mod check;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::protocol::ring::{NodeId, Ring};
use crate::protocol::{Quorums, Strategy};

/// The five nodes of the course.
const COURSE: [u32; 5] = [5554, 5556, 5558, 5560, 5562];

/// The most nodes of a cluster. The version of a key has an entry for each of them.
pub const MOST_NODES: usize = 128;

/// A whole cluster, as its file describes it. All nodes must have the same. A time-out, size or quorum that the
/// file leaves out has the value of [`Config::default`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Nodes of clusters with different names do not talk to each other. Up to 64 letters, digits,
    /// dots, hyphens and underscores.
    pub name: String,
    pub nodes: Vec<Member>,
    /// How the replicas of a key agree: `quorum`, or `chain`.
    pub strategy: Strategy,
    /// N: how many nodes hold a key. 3 if the strategy is `chain`.
    pub replicas: usize,
    /// R: promises needed before proposing; less than N. For reads see [`Quorums::agreeing`].
    pub read_quorum: usize,
    /// W: accepts needed before a write counts as done; less than N. R + W > N, so that a read meets every
    /// write, 2 W > N, so that two writes meet each other, and 2 R > N, so that two prepares do.
    pub write_quorum: usize,
    /// The read time-out of sockets between nodes. A peer that is silent for so long with a question
    /// outstanding is suspected. A shorter time finds failures sooner and suspects slow nodes more often. The
    /// assignment says 100.
    pub read_timeout_ms: u64,
    /// A client's request ends within this time, one way or another. It is long enough to wait one read
    /// time-out for each replica of a key, and one more.
    pub request_deadline_ms: u64,
    /// A client loses its connection if a line takes longer than this.
    pub line_timeout_ms: u64,
    /// How often one range is compared with one other replica although nothing is in doubt.
    pub anti_entropy_ms: u64,
    /// The least age at which a tombstone is dropped. Every request that it contains must have ended by
    /// then. 0 stands for five request deadlines.
    pub tombstone_age_ms: u64,
    /// The most connections of clients, and so of threads for them, at a time. One more gets `BUSY`.
    pub max_clients: usize,
    /// Memory for long lines and replies of all clients together, in MiB, beyond the 256 KiB of each
    /// client. A client that needs more than is left gets `BUSY`. One largest request must fit.
    pub client_memory_mib: usize,
    /// Memory for the data of one node, in MiB: keys, values and versions, and half a KiB for each
    /// record. If a replica of a key holds as much, writes of the key get `BUSY`, except a `DEL` of a key
    /// that has a value.
    pub data_memory_mib: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: "dynamo".to_owned(),
            nodes: Vec::new(),
            strategy: Strategy::Quorum,
            replicas: 3,
            read_quorum: 2,
            write_quorum: 2,
            read_timeout_ms: 100,
            request_deadline_ms: 2000,
            line_timeout_ms: 30_000,
            anti_entropy_ms: 10_000,
            tombstone_age_ms: 0,
            max_clients: 1024,
            client_memory_mib: 256,
            data_memory_mib: 2048,
        }
    }
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub id: NodeId,
    /// A name, an IPv4 address, or an IPv6 address.
    #[serde(default = "localhost")]
    pub host: String,
    /// 0 stands for twice the id.
    #[serde(default)]
    pub client_port: u16,
    /// 0 stands for the port for clients plus one.
    #[serde(default)]
    pub peer_port: u16,
}

fn localhost() -> String {
    "127.0.0.1".to_owned()
}

impl Config {
    /// The course's five nodes on this machine, with this strategy.
    pub fn course_with(strategy: Strategy) -> Config {
        Config {
            strategy,
            ..Config::course()
        }
    }

    /// The course's five nodes on this machine.
    pub fn course() -> Config {
        let nodes = COURSE.map(|id| format!("{{\"id\": {id}}}"));
        Config::parse(&format!("{{\"nodes\": [{}]}}", nodes.join(", ")))
            .expect("the built-in cluster is right")
    }

    /// Reads a cluster file.
    ///
    /// # Errors
    /// The file cannot be read, or is wrong. The error names the file.
    pub fn read(path: &Path) -> Result<Config, String> {
        std::fs::read_to_string(path)
            .map_err(|error| error.to_string())
            .and_then(|text| Config::parse(&text))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads the text of a cluster file.
    ///
    /// # Errors
    /// What is wrong, where, and what would be right.
    pub fn parse(text: &str) -> Result<Config, String> {
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut json = serde_json::Deserializer::from_str(text);
        // Errors contain the path to what is wrong, such as nodes[2].id.
        let mut config: Config =
            serde_path_to_error::deserialize(&mut json).map_err(|error| error.to_string())?;
        json.end().map_err(|error| error.to_string())?;
        for (place, member) in config.nodes.iter_mut().enumerate() {
            let wrong = |wrong| format!("nodes[{place}]: {wrong}");
            member.fill_in().map_err(wrong)?;
        }
        if config.tombstone_age_ms == 0 {
            config.tombstone_age_ms = config.request_deadline_ms.saturating_mul(5);
        }
        if config.strategy == Strategy::Chain {
            check::has_no_quorums(text)?;
        }
        config.check()?;
        Ok(config)
    }

    /// N, R and W.
    pub fn quorums(&self) -> Quorums {
        Quorums {
            replicas: self.replicas,
            read: self.read_quorum,
            write: self.write_quorum,
        }
    }

    /// The ring of all nodes, which places the keys.
    pub fn ring(&self) -> Ring {
        Ring::new(self.nodes.iter().map(|member| member.id), self.replicas)
    }

    /// The node with this id, or none if the cluster has no such node.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.nodes.iter().find(|member| member.id == id)
    }

    /// The ids of all nodes, for a message to people.
    pub fn ids(&self) -> String {
        let ids = self.nodes.iter().map(|member| member.id.to_string());
        Vec::from_iter(ids).join(" ")
    }

    /// The read time-out of sockets between nodes.
    pub fn read_timeout(&self) -> Duration {
        Duration::from_millis(self.read_timeout_ms)
    }

    /// The longest time of a client's request.
    pub fn request_deadline(&self) -> Duration {
        Duration::from_millis(self.request_deadline_ms)
    }

    /// The memory for the data of one node, in bytes.
    pub fn data_memory(&self) -> usize {
        self.data_memory_mib << 20
    }

    /// The cluster's name, a hash of what all nodes must agree on, and the strategy. Hashed are the ids, which
    /// determine the placement of keys, and the quorums.
    pub fn fingerprint(&self) -> String {
        let ids: BTreeSet<_> = self.nodes.iter().map(|member| member.id).collect();
        let text = format!("{ids:?} {:?}", self.quorums());
        let hash = Sha1::digest(text.as_bytes());
        let start = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        self.strategy.mark(format!("{}-{start:08x}", self.name))
    }
}

impl Member {
    fn fill_in(&mut self) -> Result<(), String> {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            // Brackets separate the address from a port.
            self.host = format!("[{}]", self.host);
        }
        if self.client_port == 0 {
            let id = self.id;
            let port = u16::try_from(2 * u64::from(id.0)).ok();
            let wrong = || format!("twice the id {id} is not a port: give client_port");
            self.client_port = port.filter(|port| *port > 0).ok_or_else(wrong)?;
        }
        if self.peer_port == 0 {
            let wrong = "client_port plus one is not a port: give peer_port";
            self.peer_port = self.client_port.checked_add(1).ok_or(wrong)?;
        }
        Ok(())
    }

    /// Where clients connect.
    pub fn client_address(&self) -> String {
        format!("{}:{}", self.host, self.client_port)
    }

    /// Where other nodes connect.
    pub fn peer_address(&self) -> String {
        format!("{}:{}", self.host, self.peer_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_nodes_of_the_course_are_built_in() {
        let config = Config::course();
        let ports: Vec<_> = config
            .nodes
            .iter()
            .map(|m| (m.id.0, m.client_port, m.peer_port))
            .collect();
        let expected = [
            (5554, 11108),
            (5556, 11112),
            (5558, 11116),
            (5560, 11120),
            (5562, 11124),
        ];
        assert_eq!(ports, expected.map(|(id, port)| (id, port, port + 1)));
        assert_eq!(
            config.quorums(),
            Quorums {
                replicas: 3,
                read: 2,
                write: 2
            }
        );
        assert_eq!(
            (config.read_timeout_ms, config.request_deadline_ms),
            (100, 2000)
        );
    }

    #[test]
    fn a_file_may_begin_with_a_byte_order_mark_and_name_an_ipv6_address_without_brackets() {
        let text = "\u{feff}{\"nodes\":[{\"id\":1,\"host\":\"::1\"},{\"id\":2,\"host\":\"[::1]\"},{\"id\":3}]}";
        let addresses = Config::parse(text).unwrap().nodes;
        let addresses: Vec<_> = addresses.iter().map(Member::client_address).collect();
        assert_eq!(addresses, ["[::1]:2", "[::1]:4", "127.0.0.1:6"]);
    }

    #[test]
    fn the_error_for_a_wrong_file_says_what_is_wrong_and_where() {
        let three = r#""nodes":[{"id":1,"client_port":7001},{"id":2,"client_port":7011},{"id":3,"client_port":7021}]"#;
        let cases = [
            ("{".to_owned(), "line 1 column 1"),
            (
                r#"{"nodes":[],"color":1}"#.to_owned(),
                "unknown field `color`",
            ),
            (
                r#"{"nodes":[{"id":1}]}"#.to_owned(),
                "replicas is 3, but there are 1 nodes",
            ),
            (
                r#"{"nodes":[{"id":70000}]}"#.to_owned(),
                "nodes[0]: twice the id 70000 is not a port",
            ),
            (
                r#"{"nodes":[{"id":1},{"id":"2"}]}"#.to_owned(),
                "nodes[1].id: invalid type: string \"2\"",
            ),
            (format!(r#"{{{three}}}}}"#), "trailing characters"),
            (format!(r#"{{{three},"name":"a b"}}"#), "name is \"a b\""),
            (
                format!(r#"{{{three},"read_quorum":1,"write_quorum":3}}"#),
                "one ballot granted twice",
            ),
            (
                r#"{"nodes":[{"id":1},{"id":2,"host":"[::1]:80"},{"id":3}]}"#.to_owned(),
                "nodes[1]: \"[::1]:80\" is not the name of a host",
            ),
            (format!(r#"{{{three},"replicas":2}}"#), "replicas is 2"),
            (
                format!(r#"{{{three},"read_quorum":1}}"#),
                "could miss the last write",
            ),
            (
                format!(r#"{{{three},"write_quorum":1}}"#),
                "two writes could miss each other",
            ),
            (
                format!(r#"{{{three},"read_quorum":3}}"#),
                "read_quorum is 3, and replicas is 3",
            ),
            (
                format!(r#"{{{three},"write_quorum":3}}"#),
                "could never copy it from the others: at most 2",
            ),
            (
                format!(r#"{{{three},"read_quorum":4}}"#),
                "read_quorum is 4",
            ),
            (
                format!(r#"{{{three},"read_timeout_ms":1}}"#),
                "read_timeout_ms is 1",
            ),
            (
                format!(r#"{{{three},"request_deadline_ms":300}}"#),
                "request_deadline_ms is 300: from 400 to",
            ),
            (
                format!(r#"{{{three},"tombstone_age_ms":3999}}"#),
                "tombstone_age_ms is 3999",
            ),
            (
                format!(r#"{{{three},"request_deadline_ms":3600001}}"#),
                "to 3600000, so that a request can wait",
            ),
            (
                format!(r#"{{{three},"max_clients":0}}"#),
                "max_clients is 0: from 1 to",
            ),
            (
                format!(r#"{{{three},"client_memory_mib":99999999}}"#),
                "client_memory_mib is 99999999: from 32 to",
            ),
            (
                format!(r#"{{{three},"data_memory_mib":0}}"#),
                "data_memory_mib is 0: from 1 to",
            ),
            (
                r#"{"nodes":[{"id":1},{"id":2,"host":""},{"id":3}]}"#.to_owned(),
                "nodes[1]: \"\" is not the name of a host",
            ),
            (
                r#"{"nodes":[{"id":1},{"id":1},{"id":3}]}"#.to_owned(),
                "nodes[1]: id 1 appears twice",
            ),
            (
                r#"{"nodes":[{"id":1},{"id":2,"client_port":3},{"id":4}]}"#.to_owned(),
                "nodes[1]: 127.0.0.1:3 appears twice",
            ),
        ];
        for (text, expected) in cases {
            let error = Config::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn what_nodes_must_agree_on_is_in_the_fingerprint_and_nothing_else() {
        let course = Config::course();
        let mut elsewhere = course.clone();
        elsewhere.nodes[0].host = "10.0.0.1".into();
        elsewhere.nodes.reverse();
        assert_eq!(course.fingerprint(), elsewhere.fingerprint());
        let mut others = [course.clone(), course.clone(), course.clone()];
        others[0].name = "other".into();
        others[1].nodes.pop();
        others[2].read_quorum = 3;
        for other in others {
            assert_ne!(course.fingerprint(), other.fingerprint());
        }
    }
}
