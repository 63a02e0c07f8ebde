//! Free ports for nodes.

use std::fs::{self, File};
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The ports for nodes. They are below those that the operating system hands out by itself, so that no
/// connection of another test takes the port of a node that is down for a while.
const RANGE: std::ops::Range<u32> = 10_000..30_000;
/// The ports of a cluster that somebody may have started by hand. Tests leave them alone.
const COURSE: std::ops::Range<u32> = 11_100..11_130;
/// How many ports of the range each test program has for itself. Two programs that look for a free port at
/// the same moment would find the same one.
const BLOCK: u32 = 1000;

/// The lower of two neighbouring ports that nobody listens on and that this process has not returned
/// lately.
pub fn free_pair() -> u16 {
    static FIRST: OnceLock<(u32, File)> = OnceLock::new();
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let (first, _lock) = FIRST.get_or_init(own_block);
    let pairs = BLOCK / 2;
    for _ in 0..pairs {
        let port = first + 2 * (GIVEN.fetch_add(1, Ordering::Relaxed) % pairs);
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if !COURSE.contains(&port) && free(port as u16) && free(port as u16 + 1) {
            return port as u16;
        }
    }
    panic!("no two free ports from {first} on")
}

/// The first port of a block that no other test program has, and the lock that keeps it.
fn own_block() -> (u32, File) {
    let folder = std::env::temp_dir().join("dynamo-test-ports");
    fs::create_dir_all(&folder).expect("a temporary folder can be made");
    let blocks = RANGE.len() as u32 / BLOCK;
    let first = fastrand::u32(0..blocks);
    for block in (0..blocks).map(|more| (first + more) % blocks) {
        let port = RANGE.start + block * BLOCK;
        let file = File::create(folder.join(port.to_string())).expect("a file can be made there");
        if file.try_lock().is_ok() {
            return (port, file);
        }
    }
    panic!("{blocks} test programs run already")
}
