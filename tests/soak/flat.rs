//! Whether what a process holds stays as it is, however long it lives.

/// A life shorter than this, in samples of one a second, says nothing.
pub const LEAST: usize = 90;

/// One thing that is sampled, and by how much it may grow from the second quarter of a life to
/// the last.
pub struct Measure {
    pub name: &'static str,
    pub unit: &'static str,
    /// How many of what is sampled are one unit.
    pub per_unit: u64,
    pub allowance: u64,
}

impl Measure {
    /// Whether a life, sampled once a second, was flat.
    pub fn flat(&self, life: &[u64]) -> bool {
        let (from, to) = quarters(life);
        to <= from + self.allowance
    }

    /// A value in units.
    pub fn shown(&self, value: u64) -> String {
        format!("{}{}", value / self.per_unit, self.unit)
    }
}

/// The medians of the second quarter of a life and of the last: the first is for warming up, and
/// a median is no matter of single peaks.
pub fn quarters(life: &[u64]) -> (u64, u64) {
    let quarter = life.len() / 4;
    let second = median(&life[quarter..2 * quarter]);
    (second, median(&life[life.len() - quarter..]))
}

/// The value in the middle; 0 of nothing.
fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
