//! Whether the resources that a process holds stay flat, however long it lives.

/// The shortest life that is judged, in samples of one a second.
pub const LEAST: usize = 90;

/// A resource that is sampled, and by how much it may grow from the second quarter of a life to the last one.
pub struct Measure {
    pub name: &'static str,
    pub unit: &'static str,
    /// How many of the sampled values make one unit.
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

/// The medians of the second quarter of a life and of the last one. The first quarter is for warming up, and
/// single peaks do not change a median.
pub fn quarters(life: &[u64]) -> (u64, u64) {
    let quarter = life.len() / 4;
    let second = median(&life[quarter..2 * quarter]);
    (second, median(&life[life.len() - quarter..]))
}

/// The value in the middle, or 0 if there are none.
fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
