//! Ends `dynamo node` on a signal: in order if possible, and within five seconds in any case.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{error, info};
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::logging;

/// Signals that end the node.
const ENDING: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];
/// Signals that would end the process if they were not ignored. `SIGXFSZ` comes with a write that fails because
/// the file would exceed its limit, and that failure is handled where the write is.
const IGNORED: [i32; 4] = [SIGUSR1, SIGUSR2, SIGALRM, SIGXFSZ];
/// How long the node may take to end in order. After that the process ends as it is.
const GRACE: Duration = Duration::from_secs(5);
/// How often to check for a second signal.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The signals of this process.
pub struct Ending(Receiver<()>);

impl Ending {
    /// Starts the thread that waits for signals. A signal ends the process at once while nobody is in
    /// [`Ending::wait`]. That loses nothing, since what is on the disk is whole at any moment.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn watch() -> io::Result<Ending> {
        let handled = ENDING.into_iter().chain(IGNORED);
        // Under nohup the node outlives its terminal.
        let handled = handled.filter(|signal| *signal != SIGHUP || !hang_up_is_ignored());
        let signals = Signals::new(handled)?;
        let (sender, waiting) = bounded(0);
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || end(signals, &sender))?;
        Ok(Ending(waiting))
    }

    /// Waits for a signal. If the process has not ended [`GRACE`] later, the thread ends it.
    pub fn wait(&self) {
        // An error would say that the thread has ended, but it ends only with the process.
        let _ = self.0.recv();
    }
}

/// Runs the thread, which waits for a signal and then makes sure that the process ends.
fn end(mut signals: Signals, waiting: &Sender<()>) {
    let first = signals.forever().find(|signal| ENDING.contains(signal));
    let until = Instant::now() + GRACE;
    info!(
        "ends on {}",
        first.and_then(signal_name).unwrap_or("a signal")
    );
    if waiting.try_send(()).is_err() {
        info!("ended before it served");
        logging::exit(0);
    }
    while Instant::now() < until {
        if signals.pending().any(|signal| ENDING.contains(&signal)) {
            logging::exit(1);
        }
        thread::sleep(LOOK_AGAIN);
    }
    error!(
        "did not end in order within {} s: the disk or a client does not answer. It ends as it is; \
         nothing that it acknowledged is lost",
        GRACE.as_secs()
    );
    logging::exit(1);
}

/// Whether this process was started to outlive its terminal.
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}
