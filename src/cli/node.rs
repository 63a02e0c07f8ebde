//! `dynamo node`: runs one node until a signal ends it.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use log::{info, warn};

use super::arguments::{Argument, Arguments, UsageError, check_links, member, node_id};
use super::shutdown::Ending;
use crate::node::Node;
use crate::protocol::ring::NodeId;
use crate::server::startup::Starting;
use crate::server::{self, Server};
use crate::storage::disk::Folder;
use crate::storage::{Identity, Progress, SyncMode};
#[cfg(debug_assertions)]
use crate::testing::{faults, rules};

pub const HELP: &str = "\
Runs one node of the cluster, until SIGTERM, SIGINT or SIGHUP.

usage: dynamo node ID [--cluster FILE] [--data FOLDER] [--sync always|os] [--rebuild]
                      [--give-up ID,ID...]

  ID               which node of the cluster this is: 5554, 5556, 5558, 5560 or 5562 by default
  --cluster FILE   the cluster file (JSON); without it, the course's five nodes on 127.0.0.1
  --data FOLDER    where the node keeps its log; data/ID by default
  --sync always    a write is on the disk before it is acknowledged: the default
  --sync os        the operating system writes when it likes: faster, but a loss of power may
                   lose acknowledged writes
  --rebuild        discard the folder, and copy everything from the other replicas before voting
  --give-up ID,... when these nodes, too, lost their folders for good: copy without them, and take what
                   the other replicas hold for the truth. Writes that only the lost folders had are
                   gone. The log of a node that cannot copy says which nodes to name

examples:
  dynamo node 5554
  dynamo node 7 --cluster seven.json --data /var/lib/dynamo/7
  RUST_LOG=info,simple_dynamo::transport=debug dynamo node 5554

A signal ends the node in order, or as it is after 5 seconds; a second one ends it at once. Everything that
it acknowledged is on the disk. The node ignores SIGHUP under nohup, and SIGUSR1, SIGUSR2 and SIGALRM always.

A cluster file: {\"nodes\": [{\"id\": 1, \"host\": \"10.0.0.1\", \"client_port\": 7000, \"peer_port\": 7001},
...]}, and if you like name, replicas, read_quorum, write_quorum, read_timeout_ms, request_deadline_ms,
line_timeout_ms, anti_entropy_ms, tombstone_age_ms, max_clients, client_memory_mib, data_memory_mib.
";

struct Options {
    id: NodeId,
    data: PathBuf,
    sync: SyncMode,
    rebuild: bool,
    given_up: Vec<NodeId>,
}

/// Runs the subcommand.
pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let Some(options) = parse(&mut arguments)? else {
        print!("{HELP}");
        return Ok(());
    };
    #[cfg(debug_assertions)]
    {
        rules::leave_out_everywhere()?;
        faults::arm()?;
    }
    let config = arguments.config()?;
    let id = options.id;
    let own = member(&config, id)?.clone();
    let ending = Ending::watch(id)?;
    let clients = server::listen(&own.client_address())?;
    let peers = server::listen(&own.peer_address())?;
    let folder = open(&options)?;
    if options.rebuild {
        Identity::discard(folder.as_ref(), id, &config.fingerprint())?;
    }
    if options.sync == SyncMode::Os {
        warn!("{id}: --sync os: a loss of power may lose acknowledged writes");
    }
    let (sync, given_up) = (options.sync, options.given_up);
    let progress = Arc::new(Progress::default());
    let starting = Starting::begin(id, &clients, &progress)?;
    let node = Node::start(id, config, folder, sync, given_up, peers, &progress)
        .map_err(|error| format!("{}: {error}", options.data.display()))?;
    starting.end()?;
    let server = Server::new(node.clone());
    let listener = Arc::new(clients);
    let (serving, accepting) = (server.clone(), listener.clone());
    let accepts = std::thread::Builder::new()
        .name("clients".into())
        .spawn(move || serving.run(&accepting))?;
    info!("{id}: serves clients on {}", listener.local_addr()?);
    ending.wait();
    server.stop(&listener);
    // If the thread panicked, it has reported that itself.
    let _ = accepts.join();
    node.stop();
    info!("{id}: ended");
    Ok(())
}

fn parse(arguments: &mut Arguments) -> Result<Option<Options>, UsageError> {
    let (mut id, mut data, mut sync, mut rebuild) = (None, None, SyncMode::Always, false);
    let mut given_up = Vec::new();
    while let Some(argument) = arguments.next_own()? {
        match &argument {
            Argument::Option(name) => match name.as_str() {
                "data" => data = Some(arguments.path()?),
                "sync" => sync = parse_sync(&arguments.value::<String>("sync")?)?,
                "rebuild" => rebuild = true,
                "give-up" => given_up = parse_ids(&arguments.value::<String>("give-up")?)?,
                "help" => return Ok(None),
                _ => return Err(argument.unknown("node")),
            },
            Argument::Word(word) if id.is_none() => id = Some(node_id(word)?),
            Argument::Word(_) => return Err(argument.unknown("node")),
        }
    }
    let id = id.ok_or_else(|| UsageError("which node? dynamo node ID, such as 5554".to_owned()))?;
    let data = data.unwrap_or_else(|| PathBuf::from(format!("data/{id}")));
    Ok(Some(Options {
        id,
        data,
        sync,
        rebuild,
        given_up,
    }))
}

/// Reads ids with commas between them. Returns them in ascending order and each once.
fn parse_ids(words: &str) -> Result<Vec<NodeId>, UsageError> {
    let mut ids: Vec<NodeId> = words.split(',').map(node_id).collect::<Result<_, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

fn parse_sync(word: &str) -> Result<SyncMode, UsageError> {
    match word {
        "always" => Ok(SyncMode::Always),
        "os" => Ok(SyncMode::Os),
        _ => Err(UsageError(format!("--sync is always or os, not {word:?}"))),
    }
}

fn open(options: &Options) -> Result<Arc<Folder>, Box<dyn Error>> {
    let data = options.data.display();
    check_links(&options.data)?;
    match Folder::open(&options.data) {
        Ok(folder) => Ok(Arc::new(folder)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(format!(
            "{data}: another process uses this folder; is the node running already?"
        )
        .into()),
        Err(error) => Err(format!("{data}: {error}").into()),
    }
}
