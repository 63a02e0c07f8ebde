//! The thread that keeps the time.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::net;

/// What the timer runs.
pub type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs what is due, and a tick at regular times.
pub struct Timer {
    entries: Sender<(Instant, Job)>,
}

impl Timer {
    /// Starts the thread; it ends when the timer is dropped. `tick` gets the time at which
    /// it runs, and that of the tick before it.
    pub fn start(
        period: Duration,
        tick: impl Fn(Instant, Instant) + Send + 'static,
    ) -> io::Result<Timer> {
        let (entries, incoming) = unbounded();
        std::thread::Builder::new()
            .name("timer".into())
            .spawn(move || keep_time(&incoming, period, &tick))?;
        Ok(Timer { entries })
    }

    /// Runs a job after a while, on the timer's thread.
    pub fn after(&self, delay: Duration, job: Job) {
        // Fails only when the node is ending, and then nothing is due any more.
        let _ = self.entries.send((Instant::now() + delay, job));
    }
}

fn keep_time(
    incoming: &Receiver<(Instant, Job)>,
    period: Duration,
    tick: &dyn Fn(Instant, Instant),
) {
    let mut due: BTreeMap<(Instant, u64), Job> = BTreeMap::new();
    let mut count = 0;
    let mut last_tick = Instant::now();
    loop {
        let next_tick = last_tick + period;
        let next = due
            .keys()
            .next()
            .map_or(next_tick, |first| first.0.min(next_tick));
        match incoming.recv_deadline(next) {
            Ok((at, job)) => {
                count += 1;
                due.insert((at, count), job);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        net::batch(|| {
            while let Some(first) = due.first_entry().filter(|first| first.key().0 <= now) {
                first.remove()();
            }
            if now >= next_tick {
                tick(now, last_tick);
                last_tick = now;
            }
        });
    }
}
