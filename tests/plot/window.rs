//! Counts of the requests that ended within a stretch of time.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::load::Sample;

/// The requests that ended within a stretch of time.
pub struct Window {
    pub well: u64,
    pub failed: u64,
    /// How long the requests took, in microseconds, those that failed included.
    took: Histogram<u64>,
}

impl Window {
    /// The time from zero on in windows of this length.
    pub fn all_of(samples: &[Sample], time: Duration, length: Duration) -> Vec<Window> {
        let count = time.div_duration_f64(length).round() as usize;
        let mut sorted: Vec<Vec<&Sample>> = vec![Vec::new(); count];
        for sample in samples {
            sorted[sample.ended.div_duration_f64(length) as usize].push(sample);
        }
        sorted
            .into_iter()
            .map(|samples| Window::of(samples.into_iter()))
            .collect()
    }

    pub fn of<'a>(samples: impl Iterator<Item = &'a Sample>) -> Window {
        let mut window = Window {
            well: 0,
            failed: 0,
            took: Histogram::new(3).expect("three digits are possible"),
        };
        for sample in samples {
            *(if sample.well {
                &mut window.well
            } else {
                &mut window.failed
            }) += 1;
            window
                .took
                .record(sample.took.as_micros() as u64)
                .expect("it grows as it must");
        }
        window
    }

    pub fn is_empty(&self) -> bool {
        self.took.is_empty()
    }

    /// The time below which this share of the requests was, in milliseconds.
    pub fn quantile(&self, quantile: f64) -> f64 {
        self.took.value_at_quantile(quantile) as f64 / 1_000.0
    }
}
