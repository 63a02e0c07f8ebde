//! Programs that take long tell how far they are.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::ticker::Ticker;

/// How often it is asked whether something shall be told.
const STEP: Duration = Duration::from_secs(1);

/// Does some work that takes long. Meanwhile it tells how far that is, with the time since it began.
pub fn telling<T>(text: impl Fn(Duration) -> String + Send, work: impl FnOnce() -> T) -> T {
    let (end, ended) = bounded::<()>(0);
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut ticker = Ticker::begin();
            while ended.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                ticker.tell(|| text(began.elapsed()));
            }
        });
        // The thread ends with this, also if the work panics.
        let _end = end;
        work()
    })
}
