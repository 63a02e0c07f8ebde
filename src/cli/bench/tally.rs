//! What the clients of a measurement have seen.

use std::collections::BTreeSet;

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
    pub fn new() -> Tally {
        let times = || Histogram::new(3).expect("three digits are possible");
        Tally {
            reads: times(),
            writes: times(),
            errors: 0,
            missing: 0,
            lost: 0,
            first_error: None,
            put: BTreeSet::new(),
        }
    }

    pub fn failed(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    pub fn add(&mut self, other: Tally) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.errors += other.errors;
        self.missing += other.missing;
        self.put.extend(other.put);
        self.lost += other.lost;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    pub fn print(&self, seconds: f64) {
        let count = self.reads.len() + self.writes.len();
        let rate = count as f64 / seconds;
        println!("{count} requests in {seconds:.1} s: {rate:.0} per second");
        for (name, times) in [("reads", &self.reads), ("writes", &self.writes)] {
            if !times.is_empty() {
                let quantiles = [0.5, 0.9, 0.99, 0.999];
                let [p50, p90, p99, p999] = quantiles.map(|q| times.value_at_quantile(q));
                println!("{name:<6} p50 {p50} us, p90 {p90} us, p99 {p99} us, p99.9 {p999} us");
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
