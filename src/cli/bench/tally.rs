//! What the clients of a measurement have seen.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;

use hdrhistogram::Histogram;

/// What the clients have seen; times in microseconds.
pub struct Tally {
    pub reads: Histogram<u64>,
    pub writes: Histogram<u64>,
    pub errors: u64,
    /// Reads that found no such key.
    pub missing: u64,
    /// Requests whose connection ended before the reply came.
    pub lost: u64,
    pub first_error: Option<String>,
    /// Keys that may have been put, where not all were put first.
    pub put: BTreeSet<u64>,
}

impl Tally {
    pub fn new() -> Result<Tally, Box<dyn Error>> {
        let (reads, writes) = (Histogram::new(3)?, Histogram::new(3)?);
        Ok(Tally {
            reads,
            writes,
            errors: 0,
            missing: 0,
            lost: 0,
            first_error: None,
            put: BTreeSet::new(),
        })
    }

    pub fn failed(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    /// A reply over a connection that can go on.
    pub fn usable(&mut self, reply: io::Result<String>) -> Option<String> {
        match reply {
            Ok(busy) if busy.starts_with("ERROR BUSY") => {
                // The node may have closed the connection with it.
                self.failed(busy);
                None
            }
            Ok(reply) => Some(reply),
            Err(_) => {
                self.lost += 1;
                None
            }
        }
    }

    pub fn add(&mut self, other: Tally) -> Result<(), Box<dyn Error>> {
        self.reads.add(other.reads)?;
        self.writes.add(other.writes)?;
        self.errors += other.errors;
        self.missing += other.missing;
        self.put.extend(other.put);
        self.lost += other.lost;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(())
    }

    pub fn print(&self, seconds: f64) {
        let count = self.reads.len() + self.writes.len();
        println!(
            "{count} requests in {seconds:.1} s: {:.0} per second",
            count as f64 / seconds
        );
        for (name, times) in [("reads", &self.reads), ("writes", &self.writes)] {
            if !times.is_empty() {
                let at = |quantile| times.value_at_quantile(quantile);
                println!(
                    "{name:<6} p50 {} us, p90 {} us, p99 {} us, p99.9 {} us",
                    at(0.5),
                    at(0.9),
                    at(0.99),
                    at(0.999)
                );
            }
        }
        if self.missing > 0 {
            println!("{} reads found no such key", self.missing);
        }
        if self.lost > 0 {
            println!("{} connections ended before a reply came", self.lost);
        }
    }
}
