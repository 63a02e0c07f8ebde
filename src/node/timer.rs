//! The timer thread: runs jobs when they are due, and a tick at regular times.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::transport;
use crate::{lock, wait_for};

/// What the timer runs once.
pub type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs what is due, and a tick at regular times.
pub struct Timer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    agenda: Mutex<Agenda>,
    /// A job is due sooner than all others, or the timer ends.
    sooner: Condvar,
}

#[derive(Default)]
struct Agenda {
    /// By the time at which each is due, and then by the order in which they came.
    jobs: BTreeMap<(Instant, u64), Job>,
    count: u64,
    ended: bool,
}

impl Timer {
    /// Starts the thread, which ends when the timer is dropped. `tick` gets the time of this tick and of the
    /// one before it.
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
        let mut agenda = lock(&self.0.agenda);
        agenda.count += 1;
        let place = (Instant::now() + delay, agenda.count);
        agenda.jobs.insert(place, job);
        if agenda.jobs.keys().next() == Some(&place) {
            self.0.sooner.notify_one();
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        lock(&self.0.agenda).ended = true;
        self.0.sooner.notify_one();
    }
}

fn keep_time(shared: &Shared, period: Duration, tick: &dyn Fn(Instant, Instant)) {
    let mut last_tick = Instant::now();
    loop {
        let next_tick = last_tick + period;
        let mut current = lock(&shared.agenda);
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
            current = wait_for(&shared.sooner, current, next - now);
        };
        let later = current.jobs.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut current.jobs, later);
        drop(current);
        transport::batch(|| {
            due.into_values().for_each(|job| job());
            if now >= next_tick {
                tick(now, last_tick);
                last_tick = now;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LATER: Duration = Duration::from_secs(3600);

    #[test]
    fn what_is_due_sooner_runs_first_though_it_comes_last() {
        let timer = Timer::start(LATER, |_, _| {}).unwrap();
        let (sender, ran) = mpsc::channel();
        for (delay, name) in [
            (LATER, "late"),
            (2 * SECOND, "soon"),
            (SECOND / 100, "first"),
        ] {
            let sender = sender.clone();
            timer.after(delay, Box::new(move || sender.send(name).unwrap()));
        }
        let next = || ran.recv_timeout(60 * SECOND);
        assert_eq!((next(), next()), (Ok("first"), Ok("soon")));
    }

    #[test]
    fn it_ticks_whatever_else_is_due_and_ends_when_it_is_dropped() {
        let (sender, ticked) = mpsc::channel();
        let tick = move |now, last| sender.send((now, last)).unwrap();
        let timer = Timer::start(SECOND / 100, tick).unwrap();
        timer.after(LATER, Box::new(|| {}));
        let (first, _) = ticked.recv_timeout(60 * SECOND).unwrap();
        let (second, before) = ticked.recv_timeout(60 * SECOND).unwrap();
        assert_eq!(before, first);
        assert!(second >= first + SECOND / 100);
        drop(timer);
        // Drops the sender with the thread.
        let end = (0..1000).find_map(|_| ticked.recv_timeout(60 * SECOND).err());
        assert_eq!(end, Some(mpsc::RecvTimeoutError::Disconnected));
    }
}
