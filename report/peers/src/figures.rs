//! What was measured, and how the two stores compare.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::load::Work;
use crate::options::{Options, Target};

/// Longer than any request may take, in microseconds.
const LONGEST: u64 = 60_000_000;

/// What one client, or all of them, saw.
pub struct Seen {
    /// Of requests that were answered, in microseconds.
    latencies: Histogram<u64>,
    pub failures: u64,
    first_failure: Option<String>,
}

impl Seen {
    pub fn new() -> Seen {
        Seen {
            latencies: Histogram::new_with_max(LONGEST, 3).expect("three digits are possible"),
            failures: 0,
            first_failure: None,
        }
    }

    pub fn record(&mut self, latency: Duration) {
        let microseconds = latency.as_micros().clamp(1, LONGEST.into());
        self.latencies.saturating_record(microseconds as u64);
    }

    pub fn failed(&mut self, error: String) {
        self.failures += 1;
        self.first_failure.get_or_insert(error);
    }

    pub fn add(&mut self, other: Seen) {
        // Histograms of one range and precision can always be added.
        let _ = self.latencies.add(&other.latencies);
        self.failures += other.failures;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    /// # Errors
    /// If any request failed: a store that refuses work is not to look fast.
    pub fn figures(&self, took: Duration, cpu: Duration) -> Result<Figures, String> {
        if let Some(failure) = &self.first_failure {
            let count = self.failures;
            return Err(format!(
                "{count} requests failed, the first with: {failure}"
            ));
        }
        let answered = self.latencies.len();
        if answered == 0 {
            return Err("no request was answered".to_owned());
        }
        Ok(Figures {
            per_second: answered as f64 / took.as_secs_f64(),
            p50: self.latencies.value_at_quantile(0.5) as f64,
            p99: self.latencies.value_at_quantile(0.99) as f64,
            cpu: cpu.as_secs_f64() * 1e6 / answered as f64,
        })
    }
}

/// One measurement, or the medians of some.
#[derive(Clone, Copy)]
pub struct Figures {
    /// Requests.
    pub per_second: f64,
    /// Latencies, in microseconds.
    p50: f64,
    p99: f64,
    /// Of all servers together per request, in microseconds.
    cpu: f64,
}

/// The CPU time that processes have used.
pub fn cpu_time(pids: &[u32]) -> Result<Duration, String> {
    pids.iter().map(|pid| cpu_time_of(*pid)).sum()
}

fn cpu_time_of(pid: u32) -> Result<Duration, String> {
    /// What Linux counts CPU time in for programs, on every machine that it still supports.
    const TICKS_PER_SECOND: u64 = 100;
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path)
        .map_err(|error| format!("{path}: {error}; has the server ended?"))?;
    // The name, in brackets, may hold anything; user and system time come 12th and 13th after it.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: Vec<u64> = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    match ticks[..] {
        [user, system] => Ok(Duration::from_millis(
            (user + system) * 1000 / TICKS_PER_SECOND,
        )),
        _ => Err(format!("{path} is not as Linux writes it")),
    }
}

/// All measurements, printed as medians.
pub struct Table {
    heading: String,
    /// This store, in each way to ask it.
    own: [&'static str; 2],
    other: &'static str,
    rows: Vec<Work>,
    rounds: BTreeMap<(&'static str, Work), Vec<Figures>>,
}

impl Table {
    pub fn new(options: &Options, targets: &[Target; 3], rows: Vec<Work>) -> Table {
        let heading = format!(
            "Medians of {} rounds of {} s; {} keys, values of {} bytes.",
            options.rounds, options.seconds, options.keys, options.value
        );
        Table {
            heading,
            own: [targets[0].name, targets[1].name],
            other: targets[2].name,
            rows,
            rounds: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, target: &Target, work: Work, figures: Figures) {
        self.rounds
            .entry((target.name, work))
            .or_default()
            .push(figures);
    }

    fn medians(&self, name: &'static str, work: Work) -> [f64; 4] {
        let rounds = self
            .rounds
            .get(&(name, work))
            .map_or(&[][..], |rounds| rounds);
        let figures: [fn(&Figures) -> f64; 4] = [
            |one| one.per_second,
            |one| one.p50,
            |one| one.p99,
            |one| one.cpu,
        ];
        figures.map(|figure| median(rounds.iter().map(figure).collect()))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.heading)?;
        writeln!(
            f,
            "Latencies in us; CPU of all servers together in us per request.\n"
        )?;
        let columns = ["requests/s", "p50", "p99", "CPU"];
        write!(f, "{:<24}", "")?;
        columns
            .iter()
            .try_for_each(|column| write!(f, "{column:>12}"))?;
        writeln!(f)?;
        for &work in &self.rows {
            writeln!(f, "{work}")?;
            let other = self.medians(self.other, work);
            line(f, self.other, other, 1)?;
            for name in self.own {
                let own = self.medians(name, work);
                line(f, name, own, 1)?;
                let ratios = std::array::from_fn(|place| own[place] / other[place]);
                line(f, "  ratio", ratios, 2)?;
            }
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, values: [f64; 4], digits: usize) -> fmt::Result {
    write!(f, "  {name:<22}")?;
    for value in values {
        write!(f, "{value:>12.digits$}")?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn a_measurement_with_a_failure_is_none() {
        let mut seen = Seen::new();
        seen.record(Duration::from_millis(1));
        let second = Duration::from_secs(1);
        let figures = seen.figures(second, second).unwrap();
        assert_eq!((figures.per_second, figures.cpu), (1.0, 1e6));
        assert!((figures.p50 - 1000.0).abs() <= 1.0 && figures.p50 == figures.p99);
        seen.failed("no".to_owned());
        assert!(
            seen.figures(second, second)
                .is_err_and(|error| error.contains("no"))
        );
    }

    #[test]
    fn this_process_has_used_some_time_and_one_that_is_not_there_is_told() {
        assert!(cpu_time(&[std::process::id()]).is_ok());
        assert!(cpu_time(&[u32::MAX]).is_err_and(|error| error.contains("4294967295")));
    }
}
