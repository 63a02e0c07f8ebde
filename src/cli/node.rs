//! `dynamo node`: runs one node until a signal ends it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use log::{info, warn};

use super::arguments::{check_links, member};
use super::shutdown::Ending;
use crate::config::Config;
use crate::logging;
use crate::node::Node;
use crate::protocol::ring::NodeId;
use crate::server::startup::Starting;
use crate::server::{self, Server};
use crate::storage::disk::Folder;
use crate::storage::{Identity, Progress, SyncMode};
use crate::testing::{faults, messages, rules};

/// Runs one node of the cluster, until SIGTERM, SIGINT or SIGHUP.
///
/// A signal ends the node in order, or as it is after 5 seconds; a second one ends it at once. Everything that it
/// acknowledged is on the disk. The node ignores SIGHUP under nohup, and SIGUSR1, SIGUSR2 and SIGALRM always.
///
/// A cluster file: {"nodes": [{"id": 1, "host": "10.0.0.1", "client_port": 7000, "peer_port": 7001}, ...]}, and if
/// you like name, replicas, read_quorum, write_quorum, read_timeout_ms, request_deadline_ms, line_timeout_ms,
/// anti_entropy_ms, tombstone_age_ms, max_clients, client_memory_mib, data_memory_mib.
#[derive(Args)]
#[command(after_help = "\
Examples:
  dynamo node 5554
  dynamo node 7 --cluster seven.json --data /var/lib/dynamo/7
  RUST_LOG=info,simple_dynamo::transport=debug dynamo node 5554")]
pub struct Options {
    /// Which node of the cluster this is: 5554, 5556, 5558, 5560 or 5562 by default.
    id: NodeId,
    /// Where the node keeps its log; data/ID by default.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// When a write is on the disk.
    #[arg(long, value_enum, default_value_t = SyncMode::Always)]
    sync: SyncMode,
    /// Discard the folder, and copy everything from the other replicas before voting.
    #[arg(long)]
    rebuild: bool,
    /// When these nodes, too, lost their folders for good: copy without them, and take what the other replicas hold
    /// for the truth.
    ///
    /// Writes that only the lost folders had are gone. The log of a node that cannot copy says which nodes to name.
    #[arg(long, value_name = "ID,...", value_delimiter = ',')]
    give_up: Vec<NodeId>,
}

/// Runs the subcommand.
pub fn run(mut options: Options, config: Config) -> Result<(), Box<dyn Error>> {
    if cfg!(debug_assertions) {
        rules::leave_out_everywhere()?;
        faults::arm()?;
        messages::arm()?;
    }
    let id = options.id;
    logging::name(id);
    let own = member(&config, id)?.clone();
    let ending = Ending::watch()?;
    let clients = server::listen(&own.client_address())?;
    let peers = server::listen(&own.peer_address())?;
    let data = options.data.unwrap_or_else(|| format!("data/{id}").into());
    let folder = open(&data)?;
    if options.rebuild {
        Identity::discard(folder.as_ref(), id, &config.fingerprint())?;
    }
    if options.sync == SyncMode::Os {
        warn!("--sync os: a loss of power may lose acknowledged writes");
    }
    options.give_up.sort_unstable();
    options.give_up.dedup();
    let (sync, given_up) = (options.sync, options.give_up);
    let progress = Arc::new(Progress::default());
    let starting = Starting::begin(id, &clients, &progress)?;
    let node = Node::start(id, config, folder, sync, given_up, peers, &progress)
        .map_err(|error| format!("{}: {error}", data.display()))?;
    starting.end()?;
    let server = Server::new(node.clone());
    let listener = Arc::new(clients);
    let (serving, accepting) = (server.clone(), listener.clone());
    let accepts = std::thread::Builder::new()
        .name("clients".into())
        .spawn(move || serving.run(&accepting))?;
    info!("serves clients on {}", listener.local_addr()?);
    ending.wait();
    server.stop(&listener);
    // If the thread panicked, it has reported that itself.
    let _ = accepts.join();
    node.stop();
    info!("ended");
    Ok(())
}

fn open(data: &Path) -> Result<Arc<Folder>, String> {
    check_links(data)?;
    let named = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => format!(
            "{}: another process uses this folder; is the node running already?",
            data.display()
        ),
        _ => format!("{}: {error}", data.display()),
    };
    Folder::open(data).map(Arc::new).map_err(named)
}
