//! How signals end `dynamo node`: in order where that can be, and soon in any case.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{error, info};
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::logging;
use crate::protocol::ring::NodeId;

/// These end the node.
const ENDING: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];
/// These do nothing, and would end the process otherwise. `SIGXFSZ` comes with a write that fails because the
/// file would be longer than it may be: what is done about that is done about the failed write.
const IGNORED: [i32; 4] = [SIGUSR1, SIGUSR2, SIGALRM, SIGXFSZ];
/// The end in order takes no longer than this, or the process ends as it is.
const GRACE: Duration = Duration::from_secs(5);
/// How often a second signal is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The signals of this process.
pub struct Ending(Receiver<()>);

impl Ending {
    /// From now on a signal ends the process. Until [`Ending::wait`] is called it does so at once:
    /// what is on the disk is whole at any moment.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn watch(id: NodeId) -> io::Result<Ending> {
        let handled = ENDING.into_iter().chain(IGNORED);
        // What nohup has set outlives the terminal.
        let handled = handled.filter(|signal| *signal != SIGHUP || !hang_up_is_ignored());
        let signals = Signals::new(handled)?;
        let (sender, waiting) = bounded(0);
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || end(id, signals, &sender))?;
        Ok(Ending(waiting))
    }

    /// Waits for a signal. Whoever calls this has to end the process within [`GRACE`].
    pub fn wait(&self) {
        // An error says that the thread has ended, and with it the process.
        let _ = self.0.recv();
    }
}

/// The thread: waits for a signal, and sees to it that the process ends.
fn end(id: NodeId, mut signals: Signals, waiting: &Sender<()>) {
    let first = signals.forever().find(|signal| ENDING.contains(signal));
    let until = Instant::now() + GRACE;
    info!(
        "{id}: ends on {}",
        first.and_then(signal_name).unwrap_or("a signal")
    );
    if waiting.try_send(()).is_err() {
        info!("{id}: ended before it served");
        logging::exit(0);
    }
    while Instant::now() < until {
        if signals.pending().any(|signal| ENDING.contains(&signal)) {
            logging::exit(1);
        }
        thread::sleep(LOOK_AGAIN);
    }
    error!(
        "{id}: did not end in order within {} s: the disk or a client does not answer. It ends as it is; \
         nothing that it acknowledged is lost",
        GRACE.as_secs()
    );
    logging::exit(1);
}

/// Whether this process was started so that the end of its terminal does not concern it.
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}
