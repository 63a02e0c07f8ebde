//! Processes that do not outlive their test.

use std::io::Write;
use std::process::{
    Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio,
};
use std::sync::mpsc::channel;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use super::waiting::{SURELY, eventually};

/// A process. Dropping it kills the process.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Process {
        Process(command.spawn().unwrap())
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its standard input, output and error, which must be pipes that nobody has taken.
    pub fn pipes(&mut self) -> (ChildStdin, ChildStdout, ChildStderr) {
        let Child {
            stdin,
            stdout,
            stderr,
            ..
        } = &mut self.0;
        let taken = stdin.take().zip(stdout.take()).zip(stderr.take());
        let ((input, output), errors) = taken.unwrap();
        (input, output, errors)
    }

    /// How it ended, if it has.
    pub fn end(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Waits until it ends by itself.
    pub fn await_end(&mut self) -> ExitStatus {
        eventually("a process ends", || self.end())
    }

    /// `kill -9`. Returns how the process ended: it may have ended before.
    pub fn kill(mut self) -> ExitStatus {
        self.0.kill().unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program that is sure to end, with `input` to read. Returns what it printed, and how it ended.
pub fn run(command: &mut Command, input: &str) -> Output {
    let command = command.stdin(Stdio::piped());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The program may end without reading, which is no error here.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    let (sender, output) = channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let output = output.recv_timeout(SURELY).unwrap_or_else(|_| {
        let _ = kill_process(pid, Signal::KILL);
        panic!("{command:?} has not ended within {SURELY:?}");
    });
    output.unwrap()
}
