//! The thread that keeps the time.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::lock;
use crate::net;

/// What the timer runs.
pub type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs what is due, and a tick at regular times.
pub struct Timer(Arc<(Mutex<Agenda>, Condvar)>);

#[derive(Default)]
struct Agenda {
    /// By time, and then in the order in which they came.
    jobs: BTreeMap<(Instant, u64), Job>,
    count: u64,
    ended: bool,
}

impl Timer {
    /// Starts the thread; it ends when the timer is dropped. `tick` gets the time at which
    /// it runs, and that of the tick before it.
    pub fn start(
        period: Duration,
        tick: impl Fn(Instant, Instant) + Send + 'static,
    ) -> io::Result<Timer> {
        let timer = Timer(Arc::default());
        let shared = timer.0.clone();
        std::thread::Builder::new()
            .name("timer".into())
            .spawn(move || keep_time(&shared, period, &tick))?;
        Ok(timer)
    }

    /// Runs a job after a while, on the timer's thread.
    pub fn after(&self, delay: Duration, job: Job) {
        let mut agenda = lock(&self.0.0);
        agenda.count += 1;
        let place = (Instant::now() + delay, agenda.count);
        agenda.jobs.insert(place, job);
        if agenda
            .jobs
            .first_key_value()
            .is_some_and(|first| *first.0 == place)
        {
            self.0.1.notify_one();
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        lock(&self.0.0).ended = true;
        self.0.1.notify_one();
    }
}

fn keep_time(
    (agenda, sooner): &(Mutex<Agenda>, Condvar),
    period: Duration,
    tick: &dyn Fn(Instant, Instant),
) {
    let mut last_tick = Instant::now();
    loop {
        let next_tick = last_tick + period;
        let mut current = lock(agenda);
        let now = loop {
            if current.ended {
                return;
            }
            let first = current.jobs.keys().next().map(|first| first.0);
            let next = first.map_or(next_tick, |first| first.min(next_tick));
            let now = Instant::now();
            if now >= next {
                break now;
            }
            let woken = sooner.wait_timeout(current, next - now);
            current = woken.unwrap_or_else(PoisonError::into_inner).0;
        };
        let later = current.jobs.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut current.jobs, later);
        drop(current);
        net::batch(|| {
            for job in due.into_values() {
                job();
            }
            if now >= next_tick {
                tick(now, last_tick);
                last_tick = now;
            }
        });
    }
}
