//! The command line.

use clap::builder::RangedU64ValueParser;
use clap::{Parser, value_parser};

/// Measures this store and etcd in turn with the same closed loop, and prints the medians and their ratios.
///
/// Each connection keeps so many requests in flight, and sends another when a reply has come. This store is measured
/// twice: through any node, and by clients that know the ring and go straight to the coordinator of each key.
/// compare.sh starts both and calls this.
#[derive(Parser)]
pub struct Options {
    /// The client ports of this store's nodes.
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        required = true
    )]
    store: Vec<String>,
    /// Their processes, whose CPU time is measured.
    #[arg(long, value_name = "PID,...", value_delimiter = ',', required = true)]
    store_pids: Vec<u32>,
    /// The client URLs of etcd's nodes, http://HOST:PORT.
    #[arg(long, value_name = "URL,...", value_delimiter = ',', required = true)]
    etcd: Vec<String>,
    /// Their processes.
    #[arg(long, value_name = "PID,...", value_delimiter = ',', required = true)]
    etcd_pids: Vec<u32>,
    /// How often each is measured.
    #[arg(long, default_value_t = 3, value_parser = Count::new().range(1..=100))]
    pub rounds: usize,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// How many connections there are.
    #[arg(
        long,
        value_name = "COUNT,...",
        value_delimiter = ',',
        default_value = "32,1"
    )]
    #[arg(value_parser = Count::new().range(1..=1000))]
    pub connections: Vec<usize>,
    /// Requests in flight per connection.
    // A node runs 64 requests of a connection at a time.
    #[arg(
        long,
        value_name = "COUNT,...",
        value_delimiter = ',',
        default_value = "1,16"
    )]
    #[arg(value_parser = Count::new().range(1..=64))]
    pub ahead: Vec<usize>,
    /// How many keys there are.
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u64).range(1..=10_000_000))]
    pub keys: u64,
    /// How long a value is, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    #[arg(value_parser = Count::new().range(1..=1_000_000))]
    pub value: usize,
}

/// A number of something.
type Count = RangedU64ValueParser<usize>;

/// One of the two stores, or a way to ask it.
#[derive(Clone)]
pub struct Target {
    pub name: &'static str,
    pub protocol: Protocol,
    pub addresses: Vec<String>,
    /// The processes of its servers.
    pub pids: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// This store's lines of text.
    Text,
    /// The same, from clients that know the ring.
    Routed,
    Etcd,
}

impl Options {
    /// This store through any node, this store straight to the coordinator, and etcd.
    pub fn targets(&self) -> [Target; 3] {
        let (store, store_pids) = (&self.store, &self.store_pids);
        [
            ("this store", Protocol::Text, store, store_pids),
            ("to the coordinator", Protocol::Routed, store, store_pids),
            ("etcd", Protocol::Etcd, &self.etcd, &self.etcd_pids),
        ]
        .map(|(name, protocol, addresses, pids)| Target {
            name,
            protocol,
            addresses: addresses.clone(),
            pids: pids.clone(),
        })
    }
}
