//! The line that a person types at. It stays whole while messages are printed above it.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::TrySendError;
use rustyline::config::Config;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{
    Cmd, ConditionalEventHandler, Event, EventContext, EventHandler, ExternalPrinter, KeyCode,
    KeyEvent, Modifiers, Movement, RepeatCount,
};

use crate::client::group::Voice;

pub struct Editor(rustyline::Editor<(), MemHistory>);

/// Prints lines above the one that is typed.
pub struct Printer(Box<dyn ExternalPrinter + Send>);

impl Printer {
    pub fn print(&mut self, line: &str) -> io::Result<()> {
        // After the editor has ended, it takes nothing to print any more.
        if self.0.print(format!("{line}\n")).is_err() {
            writeln!(io::stdout(), "{line}")?;
        }
        Ok(())
    }
}

impl Editor {
    /// # Errors
    /// The terminal cannot move its cursor.
    pub fn open() -> rustyline::Result<(Editor, Printer)> {
        // Each line that is pasted is a message.
        let config = Config::builder().bracketed_paste(false).build();
        let mut editor = rustyline::Editor::with_history(config, MemHistory::new())?;
        let printer = editor.create_external_printer()?;
        Ok((Editor(editor), Printer(Box::new(printer))))
    }

    /// Says each line that is typed. The thread ends when the person leaves, or has seen that the client has ended.
    pub fn start(mut self, nick: &str, voice: Voice) -> JoinHandle<io::Result<()>> {
        let prompt = format!("{nick}> ");
        let voice = Arc::new(voice);
        for key in [
            KeyEvent(KeyCode::Enter, Modifiers::NONE),
            KeyEvent::ctrl('J'),
        ] {
            let enter = EventHandler::Conditional(Box::new(Enter(voice.clone())));
            self.0.bind_sequence(key, enter);
        }
        drop(voice);
        thread::spawn(move || match self.0.readline(&prompt) {
            Ok(_) | Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        })
    }
}

/// What the Enter key does: the line is said and disappears, since it is shown when it comes back as a message.
struct Enter(Arc<Voice>);

impl ConditionalEventHandler for Enter {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        let line = context.line();
        let said = if line.trim().is_empty() {
            Ok(())
        } else {
            self.0.try_say(line.to_owned())
        };
        Some(match said {
            Ok(()) => Cmd::Kill(Movement::WholeBuffer),
            // The line stays until there is room for it.
            Err(TrySendError::Full(_)) => Cmd::Noop,
            Err(TrySendError::Disconnected(_)) => Cmd::Interrupt,
        })
    }
}
