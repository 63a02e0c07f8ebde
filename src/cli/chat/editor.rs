//! The line that a person types at. It stays whole while messages are printed above it.

use std::io::{self, ErrorKind, Write};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::TrySendError;
use rustyline_async::{Readline, ReadlineError, ReadlineEvent, SharedWriter};

use crate::client::group::Voice;

/// How long to wait when many lines wait to be printed.
const PAUSE: Duration = Duration::from_millis(5);

/// The terminal, in raw mode until this is dropped.
pub struct Editor {
    readline: Readline,
    printer: Printer,
}

/// Prints lines above the one that is typed.
#[derive(Clone)]
pub struct Printer(SharedWriter);

impl Printer {
    pub fn print(&mut self, line: &str) -> io::Result<()> {
        let whole = format!("{line}\n");
        let mut rest = whole.as_bytes();
        loop {
            match self.0.write(rest) {
                Ok(_) => return Ok(()),
                // The writer has kept the line, and tries again when it is given nothing more.
                Err(error) if error.kind() == ErrorKind::WouldBlock => rest = &[],
                // The editor has ended.
                Err(_) => return writeln!(io::stdout(), "{line}"),
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Editor {
    /// # Errors
    /// The terminal cannot be set up.
    pub fn open(nick: &str) -> Result<(Editor, Printer), ReadlineError> {
        let (mut readline, writer) = Readline::new(format!("{nick}> "))?;
        // A line is shown when it comes back as a message.
        readline.should_print_line_on(false, false);
        let printer = Printer(writer);
        let editor = Editor {
            readline,
            printer: printer.clone(),
        };
        Ok((editor, printer))
    }

    /// Says each line that is typed. The thread ends when the person leaves, or types at a client that has ended.
    pub fn start(mut self, voice: Voice) -> JoinHandle<io::Result<()>> {
        thread::spawn(move || {
            let read = pollster::block_on(self.say_all(&voice));
            // What waits to be printed is printed.
            let flushed = self.readline.flush();
            read.and(flushed).map_err(io::Error::other)
        })
    }

    async fn say_all(&mut self, voice: &Voice) -> Result<(), ReadlineError> {
        while let ReadlineEvent::Line(line) = self.readline.readline().await? {
            if line.trim().is_empty() {
                continue;
            }
            self.readline.add_history_entry(line.clone());
            match voice.try_say(line) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    let text =
                        "-- not sent: too much is not acknowledged yet; the up key brings it back";
                    self.printer.print(text)?;
                }
                Err(TrySendError::Disconnected(_)) => break,
            }
        }
        Ok(())
    }
}
