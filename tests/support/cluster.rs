//! A cluster of real processes for one test: `dynamo node` on free ports of this machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::ring::{Position, Ring};

pub use super::plan::Plan;
use super::process::Process;
use super::proxy::Network;
pub use super::waiting::eventually;

/// The nodes of the course.
pub const FIVE: [u32; 5] = [5554, 5556, 5558, 5560, 5562];
/// A cluster in which every node holds every key.
pub const THREE: [u32; 3] = [5554, 5556, 5558];

/// The processes, their ports and their folders. Dropping the cluster ends the processes and removes the
/// folders.
pub struct Cluster {
    pub(super) folder: PathBuf,
    pub(super) nodes: BTreeMap<u32, Node>,
    pub(super) ring: Ring,
    /// Variables of every node's environment.
    pub(super) switches: Vec<(String, String)>,
    pub(super) network: Option<Network>,
    /// Whether the folder stays when the cluster has ended.
    pub(super) kept: bool,
}

/// A node: its port, and its process while one runs.
pub struct Node {
    pub(super) client_port: u16,
    pub(super) process: Mutex<Option<Process>>,
}

impl Cluster {
    pub fn start(ids: &[u32]) -> Cluster {
        Plan::of(ids).start()
    }

    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.nodes.keys().copied()
    }

    /// The nodes that hold a key, its coordinator first.
    pub fn replicas(&self, key: &str) -> Vec<u32> {
        let list = self.ring.preference_list(&Key::from(key));
        list.iter().map(|node| node.0).collect()
    }

    /// Which range of the ring a key is in.
    pub fn range_of(&self, key: &Key) -> usize {
        self.ring.range_at(Position::of_key(key))
    }

    /// Different keys whose coordinator is `id`.
    pub fn keys_of(&self, id: u32) -> impl Iterator<Item = String> {
        let all = (0..).map(|number| format!("key{number}"));
        all.filter(move |key| self.replicas(key)[0] == id)
    }

    /// The links between the nodes of a cluster with proxies.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("this cluster has no proxies")
    }

    pub fn file(&self, id: u32) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    pub fn data(&self, id: u32) -> PathBuf {
        self.folder.join(id.to_string())
    }

    pub fn address(&self, id: u32) -> String {
        format!("127.0.0.1:{}", self.nodes[&id].client_port)
    }

    pub fn peer_address(&self, id: u32) -> String {
        format!("127.0.0.1:{}", self.nodes[&id].client_port + 1)
    }

    /// Starts a process. [`Cluster::await_ready`] waits until it is ready.
    pub fn start_node(&self, id: u32) {
        self.start_node_with(id, &[]);
    }

    /// Starts a process with these switches in its environment, too: see [`Plan::switched`].
    pub fn start_node_with(&self, id: u32, switches: &[(&str, &str)]) {
        self.spawn(id, &[], switches);
    }

    /// Starts a process with these options of `dynamo node`, too.
    pub fn start_node_with_options(&self, id: u32, options: &[&str]) {
        self.spawn(id, options, &[]);
    }

    fn spawn(&self, id: u32, options: &[&str], switches: &[(&str, &str)]) {
        let log = self.folder.join(format!("{id}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.command(id);
        command
            .args(options)
            .envs(switches.iter().copied())
            .stderr(log);
        self.run(id, &mut command);
    }

    /// The command that [`Cluster::start_node`] runs, without a file for its log.
    pub fn command(&self, id: u32) -> Command {
        let mut command = dynamo(&["node", &id.to_string()], &self.file(id));
        command
            .arg("--data")
            .arg(self.data(id))
            .env_remove("RUST_LOG")
            .env("DYNAMO_SLOW_DISK", self.slow_disk_file(id))
            .envs(self.switches.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Runs this command as a node's process, instead of the command of [`Cluster::start_node`].
    pub fn run(&self, id: u32, command: &mut Command) {
        let process = Process::start(command);
        let before = self.nodes[&id].process.lock().unwrap().replace(process);
        assert!(before.is_none(), "node {id} runs already");
    }

    /// Whether a process was started that nobody has ended since.
    pub fn runs(&self, id: u32) -> bool {
        self.nodes[&id].process.lock().unwrap().is_some()
    }

    /// Starts a node again and waits until it has what it missed.
    pub fn restart(&self, id: u32) {
        self.start_node(id);
        self.await_ready(id);
    }

    /// Kills a node with `kill -9`.
    pub fn kill(&self, id: u32) {
        let end = self.take(id).kill();
        let killed = end.signal() == Some(Signal::KILL.as_raw());
        assert!(killed, "{}", self.own_end(id, end));
    }

    /// Fails the test if a node has ended by itself.
    pub fn assert_runs(&self, id: u32) {
        let mut process = self.nodes[&id].process.lock().unwrap();
        let ended = process.as_mut().and_then(Process::end);
        if let Some(end) = ended {
            panic!("{}", self.own_end(id, end));
        }
    }

    /// Whether a node has ended by itself, and nobody has waited for that yet.
    pub fn has_ended(&self, id: u32) -> bool {
        let mut process = self.nodes[&id].process.lock().unwrap();
        process.as_mut().and_then(Process::end).is_some()
    }

    fn own_end(&self, id: u32, end: ExitStatus) -> String {
        let log = self.end_of_log(id);
        format!("node {id} has ended by itself: {end}; the end of its log:\n{log}")
    }

    /// Waits until a node ends by itself.
    pub fn await_end(&self, id: u32) -> ExitStatus {
        self.take(id).await_end()
    }

    /// Sends SIGTERM, and waits for the end.
    pub fn terminate(&self, id: u32) -> ExitStatus {
        self.signal(id, Signal::TERM);
        self.await_end(id)
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for the end.
    pub fn interrupt(&self, id: u32) -> ExitStatus {
        self.signal(id, Signal::INT);
        self.await_end(id)
    }

    /// Sends SIGSTOP: the process keeps its connections and answers nothing.
    pub fn pause(&self, id: u32) {
        self.signal(id, Signal::STOP);
        // The signal takes effect later. The process has stopped when the system reports that to its parent.
        let pid = Pid::from_raw(self.pid(id) as i32);
        let change = waitpid(pid, WaitOptions::UNTRACED).unwrap();
        assert!(
            change.is_some_and(|(_, status)| status.stopped()),
            "node {id}: {change:?}"
        );
    }

    /// Sends SIGCONT.
    pub fn resume(&self, id: u32) {
        self.signal(id, Signal::CONT);
    }

    /// Empties the folder of a node that is down.
    pub fn wipe(&self, id: u32) {
        assert!(!self.runs(id), "node {id} runs");
        fs::remove_dir_all(self.data(id)).unwrap();
    }

    /// Makes each sync of a node's disk take that much longer from now on. Only builds with debug
    /// assertions obey.
    pub fn slow_disk(&self, id: u32, by: Duration) {
        fs::write(self.slow_disk_file(id), by.as_millis().to_string()).unwrap();
    }

    /// Makes a node's disk as fast as before.
    pub fn heal_disk(&self, id: u32) {
        fs::remove_file(self.slow_disk_file(id)).unwrap();
    }

    fn slow_disk_file(&self, id: u32) -> PathBuf {
        self.folder.join(format!("{id}.slow-disk"))
    }

    fn take(&self, id: u32) -> Process {
        let process = self.nodes[&id].process.lock().unwrap().take();
        process.unwrap_or_else(|| panic!("node {id} does not run"))
    }

    pub fn pid(&self, id: u32) -> u32 {
        let pid = self.running(id);
        pid.unwrap_or_else(|| panic!("node {id} does not run"))
    }

    /// The process of a node, if it was started and not ended.
    pub fn running(&self, id: u32) -> Option<u32> {
        let process = self.nodes[&id].process.lock().unwrap();
        process.as_ref().map(Process::id)
    }

    pub fn signal(&self, id: u32, signal: Signal) {
        let pid = Pid::from_raw(self.pid(id) as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            for id in self.ids() {
                eprintln!("== log of node {id}\n{}", self.end_of_log(id));
            }
        }
        self.nodes.clear();
        if !self.kept {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The program, with a cluster file.
pub fn dynamo(arguments: &[&str], cluster: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynamo"));
    command.args(arguments).arg("--cluster").arg(cluster);
    command
}
