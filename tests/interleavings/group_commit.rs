//! The group commit: every callback once, in order, never before its entry is durable.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use shuttle::sync::mpsc;

use crate::disk::Appender;
use crate::frame::Frames;
use crate::log::{Callback, GroupCommit, Hooks, Lsn, SyncMode};
use crate::sync::thread::{self, JoinHandle};
use crate::{draw, explore, wait_up_to};

/// What has happened, for the scenarios' eyes: no thread of the model waits for it.
#[derive(Default)]
struct Seen {
    /// Durable entries in order, each with the number of its log.
    durable: Vec<(usize, String)>,
    appended: Vec<(Lsn, String)>,
    registered: Vec<Lsn>,
    told: Vec<Lsn>,
    told_by_commit: Lsn,
    failed: bool,
}

/// A disk that has logs, and breaks if it is to.
#[derive(Clone, Default)]
struct World {
    seen: Arc<Mutex<Seen>>,
    breaks: bool,
}

struct Log {
    number: usize,
    world: World,
    volatile: Vec<String>,
}

impl Appender for Log {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        moment();
        for payload in Frames::new(bytes) {
            let payload = String::from_utf8_lossy(payload.expect("a whole frame")).into_owned();
            self.volatile.extend(payload.lines().map(String::from));
        }
        self.world.work()
    }

    fn sync(&mut self) -> io::Result<()> {
        let covered = std::mem::take(&mut self.volatile);
        moment();
        self.world.work()?;
        let covered = covered.into_iter().map(|entry| (self.number, entry));
        self.world.seen.lock().unwrap().durable.extend(covered);
        moment();
        Ok(())
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    let threads = threads.into_iter();
    threads.for_each(|thread| thread.join().unwrap());
}

/// Lets others run.
fn moment() {
    thread::sleep(std::time::Duration::ZERO);
}

impl World {
    fn log(&self, number: usize) -> Box<dyn Appender> {
        Box::new(Log {
            number,
            world: self.clone(),
            volatile: Vec::new(),
        })
    }

    fn work(&self) -> io::Result<()> {
        if self.breaks && draw(4) == 0 {
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    }

    fn start(&self) -> Arc<GroupCommit> {
        let seen = self.seen.clone();
        let hooks = Hooks {
            deliver: Box::new(|group| group.into_iter().for_each(|callback| callback())),
            failed: Box::new(move |_| seen.lock().unwrap().failed = true),
        };
        Arc::new(GroupCommit::start(self.log(0), 1, SyncMode::Always, hooks, 0).unwrap())
    }

    fn append(&self, commit: &GroupCommit, entry: String) -> Lsn {
        let lsn = commit.append(|log| writeln!(log, "{entry}").unwrap());
        self.seen.lock().unwrap().appended.push((lsn, entry));
        lsn
    }

    fn wait_for(&self, commit: &GroupCommit, lsn: Lsn, then: Callback) {
        let world = self.clone();
        let told = move |then: Callback| {
            world.note_told(lsn);
            then();
        };
        if let Some(now) = commit.when_durable(lsn, then, told.clone()) {
            told(now);
        }
        self.seen.lock().unwrap().registered.push(lsn);
    }

    fn note_told(&self, lsn: Lsn) {
        let mut seen = self.seen.lock().unwrap();
        assert!(
            seen.durable.len() as Lsn >= lsn,
            "{lsn} is told and not durable"
        );
        seen.told.push(lsn);
        if thread::current().name() == Some("commit") {
            assert!(seen.told_by_commit <= lsn, "{lsn} is told out of order");
            seen.told_by_commit = lsn;
        }
    }

    /// Appends entries and has each told.
    fn appender(&self, commit: &Arc<GroupCommit>, name: usize, entries: usize) -> JoinHandle<()> {
        let (world, commit) = (self.clone(), commit.clone());
        thread::spawn(move || {
            for entry in 0..entries {
                let lsn = world.append(&commit, format!("{name}.{entry}"));
                world.wait_for(&commit, lsn, Box::new(|| {}));
            }
        })
    }

    /// What is durable is what was appended, in the order of the numbers, up to some number.
    fn check_log(&self) {
        let seen = self.seen.lock().unwrap();
        let mut appended = seen.appended.clone();
        appended.sort();
        for ((_, durable), (lsn, entry)) in seen.durable.iter().zip(&appended) {
            assert_eq!(durable, entry, "entry {lsn}");
        }
        assert!(seen.durable.len() <= appended.len());
    }

    fn told(&self) -> Vec<Lsn> {
        let mut told = self.seen.lock().unwrap().told.clone();
        told.sort();
        told
    }

    fn durable(&self) -> Lsn {
        self.seen.lock().unwrap().durable.len() as Lsn
    }
}

#[test]
fn each_callback_runs_once_and_in_order_and_never_before_its_entry_is_durable() {
    explore(|| {
        let world = World::default();
        let commit = world.start();
        join([0, 1, 2].map(|name| world.appender(&commit, name, 2)));
        commit.end();
        world.check_log();
        assert_eq!(world.told(), [1, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn no_entry_that_is_waited_for_waits_for_ever() {
    explore(|| {
        let world = World::default();
        let commit = world.start();
        let waiter = |name: usize| {
            let (world, commit) = (world.clone(), commit.clone());
            thread::spawn(move || {
                for entry in 0..2 {
                    let lsn = world.append(&commit, format!("{name}.{entry}"));
                    let (tell, told) = mpsc::channel();
                    let tell = Box::new(move || tell.send(()).unwrap());
                    world.wait_for(&commit, lsn, tell);
                    // A wake-up that is lost is a deadlock here.
                    told.recv().unwrap();
                }
            })
        };
        let threads: Vec<_> = (0..3).map(waiter).collect();
        join(threads);
        commit.end();
        assert!(world.told().into_iter().eq(1..=6));
    });
}

#[test]
fn the_end_writes_and_tells_all_that_came_before_it() {
    explore(|| {
        let world = World::default();
        let commit = world.start();
        let threads = [0, 1].map(|name| world.appender(&commit, name, 2));
        wait_up_to(50);
        let (appended, registered) = {
            let seen = world.seen.lock().unwrap();
            (seen.appended.len() as Lsn, seen.registered.clone())
        };
        commit.end();
        assert!(world.durable() >= appended, "{appended} came before");
        for lsn in registered {
            assert!(world.told().contains(&lsn), "{lsn} came before");
        }
        join(threads);
        let told = world.told();
        assert!(told.is_sorted_by(|one, next| one < next), "twice: {told:?}");
        world.check_log();
    });
}

#[test]
fn what_is_appended_after_a_switch_is_in_the_next_log() {
    explore(|| {
        let world = World::default();
        let commit = world.start();
        let threads = [0, 1].map(|name| world.appender(&commit, name, 2));
        wait_up_to(50);
        commit.switch_log(world.log(1));
        let after = world.append(&commit, "after".into()) as usize;
        join(threads);
        commit.end();
        world.check_log();
        let seen = world.seen.lock().unwrap();
        assert_eq!(seen.durable.len(), 5);
        let logs = || seen.durable.iter().map(|(log, _)| *log);
        assert!(logs().is_sorted() && logs().skip(after - 1).all(|log| log == 1));
    });
}

#[test]
fn on_a_disk_that_fails_nothing_is_told_that_is_not_durable_and_the_end_comes() {
    explore(|| {
        let world = World {
            breaks: true,
            ..World::default()
        };
        let commit = world.start();
        let threads = [0, 1, 2].map(|name| world.appender(&commit, name, 2));
        join(threads);
        commit.end();
        world.check_log();
        let whole = world.durable() == 6;
        assert_eq!(world.seen.lock().unwrap().failed, !whole);
        assert!(world.told().into_iter().eq(1..=world.durable()));
    });
}
