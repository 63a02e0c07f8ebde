//! Waiting for a condition, never for a time.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what must happen. It is generous, since the machine may be busy.
pub const SURELY: Duration = Duration::from_secs(30);

/// Calls `look` again and again until it returns something. Fails the test if that takes too long.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < SURELY, "not within {SURELY:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
