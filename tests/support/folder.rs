//! Where the nodes of a test keep their files.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::statvfs;

/// Where systems that have it keep files in memory.
const MEMORY: &str = "/dev/shm";
/// Bytes that a run of all tests shall find free there: several times what it takes.
const ENOUGH: u64 = 2 << 30;

/// The path of a folder that no other test uses, in memory where there is room: replicas that
/// share a disk all stand still when it does, and then no request can end well, whatever the nodes
/// do. What a slow disk does is shown with [`Cluster::slow_disk`], one node at a time.
///
/// [`Cluster::slow_disk`]: super::cluster::Cluster::slow_disk
pub fn temporary() -> PathBuf {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let name = format!("dynamo-test-{}-{number}", process::id());
    if has_room(Path::new(MEMORY)) {
        Path::new(MEMORY).join(name)
    } else {
        env::temp_dir().join(name)
    }
}

fn has_room(folder: &Path) -> bool {
    statvfs(folder).is_ok_and(|system| system.f_bavail * system.f_frsize >= ENOUGH)
}

/// Copies a folder of files, as a backup does.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
