//! Free ports for nodes.

use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that the operating system hands out by itself: a connection of another test
/// must not sit on the port of a node that is down for a while.
const RANGE: std::ops::Range<u32> = 10_000..30_000;
/// A cluster that somebody started by hand stays undisturbed.
const COURSE: std::ops::Range<u32> = 11_100..11_130;

/// The lower of two neighbouring ports that nobody listens on, and that this process has not
/// given out before.
pub fn free_pair() -> u16 {
    // Test binaries that run at the same time start at different places.
    static FIRST: OnceLock<u32> = OnceLock::new();
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let pairs = RANGE.len() as u32 / 2;
    let first = *FIRST.get_or_init(|| fastrand::u32(0..pairs));
    for _ in 0..pairs {
        let pair = (first + GIVEN.fetch_add(1, Ordering::Relaxed)) % pairs;
        let port = RANGE.start + 2 * pair;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if !COURSE.contains(&port) && free(port as u16) && free(port as u16 + 1) {
            return port as u16;
        }
    }
    panic!("no two free ports in {RANGE:?}")
}
