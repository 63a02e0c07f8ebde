//! A disk in memory that forgets, tears and fails, as a test tells it to.
//!
//! Like an operating system it keeps two copies of everything: what programs see (*cached*) and
//! what outlives a loss of power (*durable*). A file's bytes become durable when the file is
//! synced, its name when the folder is. [`Loss`] says what becomes of the rest.
//!
//! Whoever powers the machine on gets a [`Disk`] that works until the power is lost or the process is
//! killed. Threads of the old life that go on writing get errors from then on.

mod copies;
mod life;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::Duration;

use fastrand::Rng;
use simple_dynamo::storage::disk::Disk;

use copies::{Content, Names};
use life::Life;

/// How much of what was not synced a loss of power takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    Everything,
    /// The bytes of each file and the changes of names are cut off anywhere: a first part survives.
    Torn,
    /// Any sectors and any changes of names are lost, whatever came after them.
    Holes,
}

pub const LOSSES: [Loss; 3] = [Loss::Everything, Loss::Torn, Loss::Holes];

/// What goes wrong at a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The power goes off during the step.
    PowerOff,
    /// Half of an append fits. Lasts until [`FaultyDisk::make_space`].
    NoSpace,
    /// The next sync fails, and what it should have made durable is not.
    SyncFails,
}

/// How long a test waits before it fails.
const PATIENCE: Duration = Duration::from_secs(20);
const NEVER_POISONED: &str = "nothing panics while it holds the machine";

/// What a file is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    Append,
    Sync,
}

type Hook = Box<dyn FnMut() + Send>;

/// The machine around the disk. A clone is the same machine.
#[derive(Clone)]
pub struct FaultyDisk(Arc<(Mutex<Machine>, Condvar)>);

struct Machine {
    rng: Rng,
    files: Vec<Content>,
    names: Names,
    /// Grows whenever the power is lost or the process killed.
    life: usize,
    off: bool,
    steps: usize,
    planned: Option<(usize, Fault)>,
    full: bool,
    /// The hook, and the thread before whose steps it runs.
    before_each_step: Option<(ThreadId, Hook)>,
    /// The calls that wait until [`FaultyDisk::release`].
    held: Option<Call>,
    /// How many calls wait.
    waiting: usize,
}

impl FaultyDisk {
    pub fn new(seed: u64) -> FaultyDisk {
        let machine = Machine {
            rng: Rng::with_seed(seed),
            files: Vec::new(),
            names: Names::default(),
            life: 0,
            off: false,
            steps: 0,
            planned: None,
            full: false,
            before_each_step: None,
            held: None,
            waiting: 0,
        };
        FaultyDisk(Arc::new((Mutex::new(machine), Condvar::new())))
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.0.lock().expect(NEVER_POISONED)
    }

    /// The disk, for one life of the process.
    pub fn power_on(&self) -> Arc<dyn Disk> {
        let mut machine = self.machine();
        machine.off = false;
        let (machine_of, life) = (self.clone(), machine.life);
        Arc::new(Life::new(machine_of, life))
    }

    /// Ends the process. All that it wrote stays in the cache.
    pub fn kill(&self) {
        let mut machine = self.machine();
        machine.life += 1;
        machine.planned = None;
        machine.before_each_step = None;
        machine.held = None;
        self.0.1.notify_all();
    }

    /// Ends the process and empties the cache.
    pub fn lose_power(&self, loss: Loss) {
        self.kill();
        let machine = &mut *self.machine();
        for content in &mut machine.files {
            content.durable = content.survives(loss, &mut machine.rng);
            content.cached.clone_from(&content.durable);
        }
        machine.names.survive(loss, &mut machine.rng);
    }

    /// How many steps were taken: each creation, append, sync, renaming and removal is one.
    pub fn steps(&self) -> usize {
        self.machine().steps
    }

    /// Plans a fault for the `nth` step from now. The next step is number 1.
    pub fn fail_at(&self, nth: usize, fault: Fault) {
        let mut machine = self.machine();
        machine.planned = Some((machine.steps + nth, fault));
    }

    pub fn make_space(&self) {
        self.machine().full = false;
    }

    /// Runs `hook` before each step that this thread takes, except the steps of the hook itself.
    pub fn before_each_step(&self, hook: impl FnMut() + Send + 'static) {
        self.machine().before_each_step = Some((thread::current().id(), Box::new(hook)));
    }

    /// Makes appends or syncs of files wait until [`FaultyDisk::release`].
    pub fn hold(&self, call: Call) {
        self.machine().held = Some(call);
    }

    /// Waits until a file waits.
    pub fn until_held(&self) {
        let nobody = |machine: &mut Machine| machine.waiting == 0;
        let (_machine, waited) = self
            .0
            .1
            .wait_timeout_while(self.machine(), PATIENCE, nobody)
            .expect(NEVER_POISONED);
        assert!(!waited.timed_out(), "nothing is being written");
    }

    /// How many files wait.
    pub fn waiting(&self) -> usize {
        self.machine().waiting
    }

    pub fn release(&self) {
        self.machine().held = None;
        self.0.1.notify_all();
    }

    /// The names of all files, as a program sees them.
    pub fn names(&self) -> Vec<String> {
        self.machine().names.cached.keys().cloned().collect()
    }

    /// A file's bytes, as a program sees them.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let machine = self.machine();
        machine.files[machine.names.cached[name]].cached.clone()
    }

    /// Puts a file on the disk, durably.
    pub fn put(&self, name: &str, content: &[u8]) {
        let mut machine = self.machine();
        let file = machine.files.len();
        machine.files.push(Content {
            cached: content.to_vec(),
            durable: content.to_vec(),
        });
        machine.names.cached.insert(name.to_owned(), file);
        machine.names.durable.insert(name.to_owned(), file);
    }

    /// Takes a file from the disk, durably.
    pub fn take(&self, name: &str) {
        let mut machine = self.machine();
        machine.names.cached.remove(name);
        machine.names.durable.remove(name);
    }
}

impl Machine {
    fn fault_is(&self, fault: Fault) -> bool {
        matches!(self.planned, Some((step, planned)) if planned == fault && self.steps >= step)
    }

    fn check_space(&self) -> io::Result<()> {
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Whether a sync that has begun comes to its end.
    fn syncs(&mut self) -> io::Result<bool> {
        if self.fault_is(Fault::SyncFails) {
            self.planned = None;
            return Err(io::Error::other("input/output error"));
        }
        Ok(!self.fault_is(Fault::PowerOff))
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        let found = self.names.cached.get(name).copied();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_file(&mut self, file: usize) -> io::Result<()> {
        if self.syncs()? {
            let content = &mut self.files[file];
            content.durable.clone_from(&content.cached);
        }
        Ok(())
    }
}
