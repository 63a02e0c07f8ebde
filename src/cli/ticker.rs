//! Tells how far something is that takes long.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// What takes no longer than this tells nothing; the rest tells this often.
const TELL: Duration = Duration::from_secs(2);

/// Tells on standard error: on a terminal in one line that changes, else in a line each time.
pub struct Ticker {
    next: Instant,
    /// Whether there is an unfinished line on a terminal.
    unfinished: bool,
}

impl Ticker {
    pub fn begin() -> Ticker {
        Ticker {
            next: Instant::now() + TELL,
            unfinished: false,
        }
    }

    /// Tells the text if it is time.
    pub fn tell(&mut self, text: impl FnOnce() -> String) {
        if Instant::now() < self.next {
            return;
        }
        self.next += TELL;
        // Nobody need read it.
        if io::stderr().is_terminal() {
            self.unfinished = true;
            let _ = write!(io::stderr(), "\r{}\x1b[K", text());
        } else {
            let _ = writeln!(io::stderr(), "{}", text());
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        if self.unfinished {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
