//! The threads that coordinate, and the one that keeps the time.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, unbounded};

use crate::net;

/// What the timer runs.
pub type Job = Box<dyn FnOnce() + Send>;

/// Requests that may wait for a thread of the pool.
const QUEUE: usize = 4096;
/// Requests whose messages go out together.
const REQUESTS_PER_BATCH: usize = 32;

/// A bounded pool of threads, with a bounded queue in front.
pub struct Pool<T> {
    queue: Sender<T>,
}

impl<T: Send + 'static> Pool<T> {
    /// Starts the threads; they end when the pool is dropped and its queue is empty.
    pub fn start(
        name: &str,
        threads: usize,
        work: impl Fn(T) + Clone + Send + 'static,
    ) -> io::Result<Pool<T>> {
        let (queue, requests) = bounded(QUEUE);
        for _ in 0..threads {
            let (requests, work) = (requests.clone(), work.clone());
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    for request in &requests {
                        net::batch(|| {
                            work(request);
                            requests.try_iter().take(REQUESTS_PER_BATCH).for_each(&work);
                        });
                    }
                })?;
        }
        Ok(Pool { queue })
    }

    /// Leaves a request to the pool; gives it back if the queue is full.
    pub fn take_up(&self, request: T) -> Result<(), T> {
        self.queue.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
        })
    }
}

/// A thread that runs what is due, and a tick at regular times.
pub struct Timer {
    entries: Sender<(Instant, Job)>,
}

impl Timer {
    /// Starts the thread; it ends when the timer is dropped. `tick` gets the time since the tick
    /// before it.
    pub fn start(period: Duration, tick: impl Fn(Duration) + Send + 'static) -> io::Result<Timer> {
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

fn keep_time(incoming: &Receiver<(Instant, Job)>, period: Duration, tick: &dyn Fn(Duration)) {
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
                tick(now - last_tick);
                last_tick = now;
            }
        });
    }
}
