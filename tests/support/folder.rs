//! Where the nodes of a test keep their files.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::statvfs;

/// A folder whose files are in memory, on systems that have one.
const MEMORY: &str = "/dev/shm";
/// Bytes that must be free there: several times what a run of all tests takes.
const ENOUGH: u64 = 2 << 30;

/// The path of a folder that no other test uses. It is in memory where that has enough space, because
/// replicas that share a disk all stand still when it does, and then no request can end well. Tests of slow
/// disks use [`Cluster::slow_disk`], one node at a time.
///
/// [`Cluster::slow_disk`]: super::cluster::Cluster::slow_disk
pub fn temporary() -> PathBuf {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let name = format!("dynamo-test-{}-{number}", process::id());
    if has_space(Path::new(MEMORY)) {
        Path::new(MEMORY).join(name)
    } else {
        env::temp_dir().join(name)
    }
}

fn has_space(folder: &Path) -> bool {
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
