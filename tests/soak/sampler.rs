//! Samples once a second what each node's process holds.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::flat::Measure;
use crate::support::cluster::Cluster;
use crate::support::usage::Usage;

const SECOND: Duration = Duration::from_secs(1);
/// The length of the log, in bytes, at which each node takes a snapshot.
pub const SNAPSHOT_AFTER: u64 = 4 << 20;

/// The resources that are sampled, in the order of [`Sample::values`].
pub const MEASURES: [Measure; 4] = [
    // A node remembers the keys that it coordinated last, up to 8192 of them, and the allocator keeps some memory
    // for each thread.
    Measure {
        name: "memory",
        unit: " MiB",
        per_unit: 1 << 20,
        allowance: 8 << 20,
    },
    // The clients' connections come and go.
    Measure {
        name: "open files",
        unit: "",
        per_unit: 1,
        allowance: 16,
    },
    Measure {
        name: "threads",
        unit: "",
        per_unit: 1,
        allowance: 8,
    },
    // The disk holds the snapshot, the log, and the zeros behind its end.
    Measure {
        name: "disk",
        unit: " KiB",
        per_unit: 1 << 10,
        allowance: 2 * SNAPSHOT_AFTER,
    },
];

/// What a process held at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub second: u64,
    pub node: u32,
    /// The id of the process. Another process is another life.
    pub process: u32,
    pub resident: u64,
    pub descriptors: u64,
    pub threads: u64,
    pub disk: u64,
}

impl Sample {
    pub fn values(&self) -> [u64; MEASURES.len()] {
        [self.resident, self.descriptors, self.threads, self.disk]
    }

    fn take(cluster: &Cluster, node: u32, second: u64) -> Option<Sample> {
        let process = cluster.running(node)?;
        let usage = Usage::of(process)?;
        Some(Sample {
            second,
            node,
            process,
            resident: usage.resident,
            descriptors: usage.descriptors,
            threads: usage.threads,
            disk: size(&cluster.data(node)),
        })
    }
}

/// Bytes of the files in a folder. Files that are removed at this moment do not count.
fn size(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
    sizes.sum()
}

/// Samples until `stop`, and writes each sample as a line of JSON.
pub fn sample(cluster: &Cluster, file: &Path, stop: &AtomicBool) -> io::Result<Vec<Sample>> {
    let mut lines = BufWriter::new(fs::File::create(file)?);
    let mut samples = Vec::new();
    let began = Instant::now();
    for second in 0.. {
        let next = began + SECOND * second;
        while Instant::now() < next {
            if stop.load(Ordering::Relaxed) {
                return lines.flush().map(|()| samples);
            }
            thread::sleep(SECOND / 20);
        }
        for node in cluster.ids() {
            if let Some(sample) = Sample::take(cluster, node, u64::from(second)) {
                writeln!(lines, "{}", serde_json::to_string(&sample)?)?;
                samples.push(sample);
            }
        }
    }
    unreachable!("seconds do not end")
}
