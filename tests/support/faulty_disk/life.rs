//! The disk as one life of the process sees it.

use std::io;
use std::sync::MutexGuard;
use std::thread::{self, ThreadId};

use simple_dynamo::storage::disk::{AppendOnlyFile, Disk};

use super::copies::{Change, Content};
use super::{Call, Fault, FaultyDisk, Hook, Machine, NEVER_POISONED};

/// The most zeros behind the end of a log. The storage asks for more, but so many show the same in less
/// time.
const MOST_ZEROS: usize = 2000;

/// A process, as the disk knows it.
#[derive(Clone)]
pub struct Life {
    of: FaultyDisk,
    life: usize,
}

impl Life {
    pub fn new(of: FaultyDisk, life: usize) -> Life {
        Life { of, life }
    }

    /// The machine, if this life has not ended.
    fn alive(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let machine = self.of.machine();
        if machine.off || machine.life != self.life {
            return Err(io::Error::other("the power is off"));
        }
        Ok(machine)
    }

    /// Takes one step: does `work` in the cache, unless the planned fault comes first. The power may go off
    /// after it.
    fn step(&self, work: impl FnOnce(&mut Machine) -> io::Result<()>) -> io::Result<()> {
        self.run_hook()?;
        let mut machine = self.alive()?;
        machine.steps += 1;
        if machine.fault_is(Fault::NoSpace) {
            machine.full = true;
            machine.planned = None;
        }
        work(&mut machine)?;
        if machine.fault_is(Fault::PowerOff) {
            machine.off = true;
            return Err(io::Error::other("the power goes off"));
        }
        Ok(())
    }

    fn wait_while_held(&self, call: Call) {
        let (machine, released) = &*self.of.0;
        let mut machine = machine.lock().expect(NEVER_POISONED);
        machine.waiting += 1;
        released.notify_all();
        let held = |machine: &mut Machine| machine.held == Some(call);
        let mut machine = released.wait_while(machine, held).expect(NEVER_POISONED);
        machine.waiting -= 1;
    }

    fn run_hook(&self) -> io::Result<()> {
        let this = thread::current().id();
        let is_due = |(thread, _): &mut (ThreadId, Hook)| *thread == this;
        let hook = self.alive()?.before_each_step.take_if(is_due);
        if let Some((_, mut hook)) = hook {
            hook();
            self.alive()?.before_each_step = Some((this, hook));
        }
        Ok(())
    }
}

impl Disk for Life {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.alive()?.names.cached.keys().cloned().collect())
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.read(name)?.len() as u64)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let machine = self.alive()?;
        Ok(machine.files[machine.file(name)?].cached.clone())
    }

    fn create(&self, name: &str, zeros: usize) -> io::Result<Box<dyn AppendOnlyFile>> {
        let mut file = 0;
        self.step(|machine| {
            machine.check_space()?;
            if let Ok(existing) = machine.file(name) {
                file = existing;
                machine.files[file].cached.clear();
            } else {
                file = machine.files.len();
                machine.files.push(Content::default());
                machine.names.change(Change::Set(name.to_owned(), file));
            }
            Ok(())
        })?;
        Ok(Box::new(OpenFile {
            life: self.clone(),
            file,
            length: 0,
            zeros: zeros.min(MOST_ZEROS),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(|machine| {
            let file = machine.file(from)?;
            let change = Change::Rename(from.to_owned(), to.to_owned(), file);
            machine.names.change(change);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step(|machine| {
            machine.file(name)?;
            machine.names.change(Change::Remove(name.to_owned()));
            Ok(())
        })
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.step(|machine| {
            if machine.syncs()? {
                machine.names.sync();
            }
            Ok(())
        })
    }
}

struct OpenFile {
    life: Life,
    file: usize,
    length: usize,
    zeros: usize,
}

impl AppendOnlyFile for OpenFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.life.wait_while_held(Call::Append);
        let (file, from, zeros) = (self.file, self.length, self.zeros);
        self.length += bytes.len();
        self.life.step(|machine| {
            let space = machine.check_space();
            let fits = if space.is_ok() {
                bytes.len()
            } else {
                bytes.len() / 2
            };
            let cached = &mut machine.files[file].cached;
            if from + fits > cached.len() {
                cached.resize(from + fits + zeros, 0);
            }
            cached[from..from + fits].copy_from_slice(&bytes[..fits]);
            space
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.life.wait_while_held(Call::Sync);
        self.life.step(|machine| machine.sync_file(self.file))
    }
}
