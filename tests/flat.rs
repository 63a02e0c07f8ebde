//! When the soak run calls the life of a process flat.

#[path = "soak/flat.rs"]
mod flat;

use flat::{LEAST, Measure, quarters};

const MEASURE: Measure = Measure {
    name: "memory",
    unit: " MiB",
    per_unit: 1 << 20,
    allowance: 100,
};

#[test]
fn growth_after_warming_up_is_found_and_single_peaks_are_not() {
    let warm = |second: usize| if second < LEAST / 4 { 0 } else { 5000 };
    let flat: Vec<u64> = (0..LEAST).map(warm).collect();
    assert!(MEASURE.flat(&flat));
    let mut peaks = flat.clone();
    peaks
        .iter_mut()
        .rev()
        .step_by(3)
        .for_each(|value| *value *= 10);
    assert!(MEASURE.flat(&peaks));
    let grows = |by: u64| {
        (0..400)
            .map(|second| 5000 + by * second / 200)
            .collect::<Vec<_>>()
    };
    assert!(MEASURE.flat(&grows(100)));
    assert!(!MEASURE.flat(&grows(101)));
    assert_eq!(quarters(&grows(100)), (5075, 5175));
    assert_eq!(MEASURE.shown(3 << 20), "3 MiB");
    assert_eq!(MEASURE.name, "memory");
}
