//! The group commit of the write-ahead log: every callback runs once, in order, and never before its
//! entry is durable.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use shuttle::sync::mpsc;

use crate::disk::AppendOnlyFile;
use crate::frame::Frames;
use crate::sync::thread::{self, JoinHandle};
use crate::wal::{Callback, Hooks, Lsn, SyncMode, WriteAheadLog};
use crate::{draw, explore, wait_up_to};

/// What the scenarios have observed. Its lock is not the model checker's, so that it changes no schedule.
#[derive(Default)]
struct Seen {
    /// Durable entries in order, each with the number of its log.
    durable: Vec<(usize, String)>,
    appended: Vec<(Lsn, String)>,
    registered: Vec<Lsn>,
    /// The entries whose callbacks have run.
    run: Vec<Lsn>,
    run_by_commit: Lsn,
    failed: bool,
}

/// A disk with logs. It fails at random if it `breaks`.
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

impl AppendOnlyFile for Log {
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

/// Lets other threads run.
fn moment() {
    thread::sleep(std::time::Duration::ZERO);
}

impl World {
    fn log(&self, number: usize) -> Box<dyn AppendOnlyFile> {
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

    fn start(&self) -> Arc<WriteAheadLog> {
        let seen = self.seen.clone();
        let hooks = Hooks {
            deliver: Box::new(|group| group.into_iter().for_each(|callback| callback())),
            failed: Box::new(move |_| seen.lock().unwrap().failed = true),
        };
        Arc::new(WriteAheadLog::start(self.log(0), 1, SyncMode::Always, hooks, 0).unwrap())
    }

    fn append(&self, commit: &WriteAheadLog, entry: String) -> Lsn {
        let lsn = commit.append(|log| writeln!(log, "{entry}").unwrap());
        self.seen.lock().unwrap().appended.push((lsn, entry));
        lsn
    }

    fn wait_for(&self, commit: &WriteAheadLog, lsn: Lsn, then: Callback) {
        let world = self.clone();
        let run = move |then: Callback| {
            world.note_run(lsn);
            then();
        };
        if let Some(now) = commit.when_durable(lsn, then, run.clone()) {
            run(now);
        }
        self.seen.lock().unwrap().registered.push(lsn);
    }

    fn note_run(&self, lsn: Lsn) {
        let mut seen = self.seen.lock().unwrap();
        assert!(
            seen.durable.len() as Lsn >= lsn,
            "the callback of {lsn} runs and it is not durable"
        );
        seen.run.push(lsn);
        if thread::current().name() == Some("commit") {
            assert!(
                seen.run_by_commit <= lsn,
                "the callback of {lsn} runs out of order"
            );
            seen.run_by_commit = lsn;
        }
    }

    /// Appends entries, each with a callback.
    fn appender(&self, commit: &Arc<WriteAheadLog>, name: usize, entries: usize) -> JoinHandle<()> {
        let (world, commit) = (self.clone(), commit.clone());
        thread::spawn(move || {
            for entry in 0..entries {
                let lsn = world.append(&commit, format!("{name}.{entry}"));
                world.wait_for(&commit, lsn, Box::new(|| {}));
            }
        })
    }

    /// Checks that the durable entries are those that were appended, in the order of their numbers, up to some
    /// number.
    fn check_log(&self) {
        let seen = self.seen.lock().unwrap();
        let mut appended = seen.appended.clone();
        appended.sort();
        for ((_, durable), (lsn, entry)) in seen.durable.iter().zip(&appended) {
            assert_eq!(durable, entry, "entry {lsn}");
        }
        assert!(seen.durable.len() <= appended.len());
    }

    /// The entries whose callbacks have run, ascending.
    fn run(&self) -> Vec<Lsn> {
        let mut run = self.seen.lock().unwrap().run.clone();
        run.sort();
        run
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
        assert_eq!(world.run(), [1, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn every_entry_becomes_durable_in_the_end() {
    explore(|| {
        let world = World::default();
        let commit = world.start();
        let waiter = |name: usize| {
            let (world, commit) = (world.clone(), commit.clone());
            thread::spawn(move || {
                for entry in 0..2 {
                    let lsn = world.append(&commit, format!("{name}.{entry}"));
                    let (sender, durable) = mpsc::channel();
                    let notify = Box::new(move || sender.send(()).unwrap());
                    world.wait_for(&commit, lsn, notify);
                    // A lost wake-up is a deadlock here.
                    durable.recv().unwrap();
                }
            })
        };
        let threads: Vec<_> = (0..3).map(waiter).collect();
        join(threads);
        commit.end();
        assert!(world.run().into_iter().eq(1..=6));
    });
}

#[test]
fn the_end_makes_all_earlier_entries_durable_and_runs_their_callbacks() {
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
            assert!(world.run().contains(&lsn), "{lsn} came before");
        }
        join(threads);
        let run = world.run();
        assert!(run.is_sorted_by(|one, next| one < next), "twice: {run:?}");
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
fn on_a_disk_that_fails_no_callback_runs_whose_entry_is_not_durable_and_the_end_comes() {
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
        assert!(world.run().into_iter().eq(1..=world.durable()));
    });
}
