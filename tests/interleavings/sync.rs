//! What `src/sync.rs` offers, on top of the model checker.

use std::cell::{Cell, RefCell};
use std::ops::Sub;
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

pub use shuttle::sync::atomic::AtomicBool;
pub use shuttle::sync::{Mutex, MutexGuard};
pub use shuttle::thread;

use crate::draw;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn wait<'a, T>(woken: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    woken.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// A condition variable whose time-out may pass at any moment.
#[derive(Default)]
pub struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub fn new() -> Condvar {
        Condvar::default()
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    /// The time-out always passes: no wake-up is needed to go on from here.
    pub fn wait_timeout<T>(&self, guard: MutexGuard<'_, T>, time_out: Duration) -> TimedOut {
        drop(guard);
        Instant::pass(time_out);
        thread::yield_now();
        TimedOut
    }

    /// The time-out always passes, whatever is waited for.
    pub fn wait_timeout_while<T>(
        &self,
        guard: MutexGuard<'_, T>,
        time_out: Duration,
        _condition: impl FnMut(&mut T) -> bool,
    ) -> TimedOut {
        self.wait_timeout(guard, time_out)
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// The end of a wait with a time-out: the time-out has passed.
pub struct TimedOut;

std::thread_local! {
    /// All threads of a model share one thread of the system, and so this clock.
    static CLOCK: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// A moment on a clock that stands still or goes on by as much as it likes whenever somebody looks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Instant(Duration);

impl Instant {
    /// The most milliseconds that pass between two looks.
    const LEAP: usize = 40;

    pub fn now() -> Instant {
        if draw(2) == 0 {
            Instant::pass(Duration::from_millis(draw(Instant::LEAP) as u64));
        }
        Instant(CLOCK.get())
    }

    pub fn elapsed(&self) -> Duration {
        Instant::now().0.sub(self.0)
    }

    /// Lets time pass.
    pub fn pass(duration: Duration) {
        CLOCK.set(CLOCK.get() + duration);
    }
}

/// A thread's own value. Shuttle's type has fewer methods than that of the standard library.
pub struct Local<T: 'static>(pub &'static thread::LocalKey<T>);

impl<T: Copy> Local<Cell<T>> {
    pub fn get(&self) -> T {
        self.0.with(Cell::get)
    }

    pub fn set(&self, value: T) {
        self.0.with(|cell| cell.set(value));
    }

    pub fn replace(&self, value: T) -> T {
        self.0.with(|cell| cell.replace(value))
    }
}

impl<T> Local<RefCell<T>> {
    pub fn with_borrow_mut<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        self.0.with(|cell| change(&mut cell.borrow_mut()))
    }
}

macro_rules! local {
    ($(static $name:ident: $type:ty = const { $value:expr };)*) => {
        $(static $name: $crate::sync::Local<$type> = {
            shuttle::thread_local! { static KEY: $type = $value; }
            $crate::sync::Local(&KEY)
        };)*
    };
}
pub(crate) use local as thread_local;
