//! Carries out what origin and coordinator want done: the shell around the two state machines.

mod coordinating;
mod routing;

use std::time::Duration;

use super::Node;

impl Node {
    /// Runs a job after a while, on the timer's thread.
    pub(super) fn later(&self, delay: Duration, job: impl FnOnce() + Send + 'static) {
        if let Some(timer) = self.timer.get() {
            timer.after(delay, Box::new(job));
        }
    }
}
