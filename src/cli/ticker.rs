//! Shows the progress of what takes long.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the progress is shown on a terminal. It is shown for the first time after this time.
const PERIOD: Duration = Duration::from_secs(2);
/// Anywhere else it is shown less and less often, and not less often than this.
const LONGEST_PERIOD: Duration = Duration::from_secs(60);

/// Shows progress on standard error. On a terminal it is one line that changes, and otherwise a new line each
/// time.
pub struct Ticker {
    period: Duration,
    next: Instant,
    /// Whether there is an unfinished line on a terminal.
    unfinished: bool,
}

impl Ticker {
    /// Nothing is shown for the first two seconds.
    pub fn begin() -> Ticker {
        Ticker {
            period: PERIOD,
            next: Instant::now() + PERIOD,
            unfinished: false,
        }
    }

    /// Prints the text if it is time.
    pub fn tell(&mut self, text: impl FnOnce() -> String) {
        if Instant::now() < self.next {
            return;
        }
        let is_terminal = io::stderr().is_terminal();
        if !is_terminal {
            self.period = (2 * self.period).min(LONGEST_PERIOD);
        }
        self.next += self.period;
        // Errors are ignored, since nobody has to read this.
        if is_terminal {
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
