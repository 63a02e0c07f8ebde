//! What a process holds at this moment, as Linux reports it.

use std::fs;
use std::path::Path;

/// Memory, open files, threads and time of the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Bytes of memory in use now.
    pub resident: u64,
    /// The most bytes of memory that were in use so far.
    pub peak: u64,
    pub descriptors: u64,
    pub threads: u64,
    /// Time of the processor, in hundredths of a second.
    pub processor: u64,
}

impl Usage {
    /// `None` if there is no such process any more.
    pub fn of(pid: u32) -> Option<Usage> {
        let folder = Path::new("/proc").join(pid.to_string());
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let (_, stat) = stat.rsplit_once(") ")?;
        let times = stat.split(' ').skip(11).take(2);
        Some(Usage {
            resident: field("VmRSS:")? << 10,
            peak: field("VmHWM:")? << 10,
            descriptors: fs::read_dir(folder.join("fd")).ok()?.count() as u64,
            threads: field("Threads:")?,
            processor: times.filter_map(|time| time.parse::<u64>().ok()).sum(),
        })
    }
}
