//! The disk as the storage sees it: a folder of files, each written from front to back.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::preallocation::PreallocatedFile;
use crate::testing::faults;

/// A folder of files. Tests replace it with a disk that fails, forgets and tears.
pub trait Disk: Send + Sync {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// The length of a file, in bytes.
    fn size(&self, name: &str) -> io::Result<u64>;
    /// The content of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Creates an empty file, or empties the one of that name. A file that will be synced often gets up
    /// to `zeros` bytes of zeros behind what was appended, so that most syncs need not change its
    /// length.
    fn create(&self, name: &str, zeros: usize) -> io::Result<Box<dyn AppendOnlyFile>>;
    /// Renames a file, in the place of another one if there is one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_folder(&self) -> io::Result<()>;
}

/// A file that grows at its end.
pub trait AppendOnlyFile: Send {
    /// Appends all bytes. They are durable only after [`AppendOnlyFile::sync`].
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes all appended bytes durable (fdatasync).
    fn sync(&mut self) -> io::Result<()>;
}

/// Replaces a file, durably. After a crash it has the old content or the new one, never a mixture.
pub fn replace(disk: &dyn Disk, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let mut file = disk.create(&temporary, 0)?;
    file.append(content)?;
    file.sync()?;
    disk.rename(&temporary, name)?;
    disk.sync_folder()
}

/// A folder of the operating system, which one process at a time has open.
pub struct Folder {
    path: PathBuf,
    /// Keeps other processes out until it is dropped.
    _lock: File,
}

const LOCK: &str = "lock";

impl Folder {
    /// Opens the folder, and creates it if it is missing.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another process has it open.
    pub fn open(path: &Path) -> io::Result<Folder> {
        create_durably(path)?;
        let lock = File::create(path.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })?;
        Ok(Folder {
            path: path.to_owned(),
            _lock: lock,
        })
    }
}

/// Creates a folder and those above it, each durably. A folder's name is in the one above, so that one
/// is synced. It is synced also if the folder is there: it may have been created only just now.
fn create_durably(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| *above != Path::new(""));
    let above = above.unwrap_or(Path::new("."));
    let missing = !path.is_dir();
    if missing {
        create_durably(above)?;
        match fs::create_dir(path) {
            // Another node that starts at the same moment has its folder beside this one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            created => created?,
        }
    }
    match File::open(above).and_then(|above| above.sync_all()) {
        // The folder was not created by this user, and so not by a start that was interrupted.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !missing => Ok(()),
        synced => synced
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", above.display()))),
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name != LOCK);
        Ok(names)
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path.join(name))?.len())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn create(&self, name: &str, zeros: usize) -> io::Result<Box<dyn AppendOnlyFile>> {
        let file = File::create(self.path.join(name))?;
        Ok(Box::new(PreallocatedFile::new(file, zeros)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl AppendOnlyFile for PreallocatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let full = faults::disk_is_full();
        let fits = if full { bytes.len() / 2 } else { bytes.len() };
        self.write(&bytes[..fits])?;
        if full {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        faults::slow_down();
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_open_in_one_place_at_a_time() {
        let path = std::env::temp_dir().join(format!("dynamo-lock-{}", std::process::id()));
        let first = Folder::open(&path).unwrap();
        let second = Folder::open(&path).map(|_| ()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        Folder::open(&path).unwrap();
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn nodes_that_start_at_once_make_the_folder_above_theirs() {
        for round in 0..100 {
            let id = format!("dynamo-above-{}-{round}", std::process::id());
            let above = std::env::temp_dir().join(id);
            let together = std::sync::Barrier::new(5);
            std::thread::scope(|scope| {
                for node in 0..5 {
                    let (above, together) = (&above, &together);
                    scope.spawn(move || {
                        together.wait();
                        Folder::open(&above.join(node.to_string())).unwrap();
                    });
                }
            });
            fs::remove_dir_all(&above).unwrap();
        }
    }

    /// `/dev/null` accepts every byte, and refuses an fdatasync.
    #[test]
    fn a_sync_asks_the_operating_system() {
        let path = std::env::temp_dir().join(format!("dynamo-sync-{}", std::process::id()));
        let folder = Folder::open(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", path.join("log")).unwrap();
        let mut file = folder.create("log", 0).unwrap();
        file.append(b"text").unwrap();
        assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn an_appended_file_holds_its_bytes_and_then_only_zeros() {
        let path = std::env::temp_dir().join(format!("dynamo-ahead-{}", std::process::id()));
        let folder = Folder::open(&path).unwrap();
        let mut file = folder.create("log", 10).unwrap();
        let mut expected = Vec::new();
        let lengths = [3, 9, 4000, 84, 1, 4095, 4096, 10_000, 0, 3 << 20, 5];
        for (length, byte) in lengths.into_iter().zip(b'a'..) {
            let bytes = vec![byte; length];
            file.append(&bytes).unwrap();
            expected.extend(bytes);
            let content = folder.read("log").unwrap();
            assert!(content.starts_with(&expected), "after {length} bytes");
            assert!(content[expected.len()..].iter().all(|byte| *byte == 0));
            assert!(content.len() >= expected.len());
        }
        file.sync().unwrap();
        fs::remove_dir_all(&path).unwrap();
    }
}
