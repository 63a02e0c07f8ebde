//! The results of a soak run: a table for people, and a picture.

use std::collections::BTreeMap;
use std::fmt;

use super::flat::{LEAST, quarters};
use super::load::Done;
use super::sampler::{MEASURES, Sample};
use crate::support::cluster::FIVE;
use crate::support::svg::{Anchor, Svg};

const COLORS: [&str; 5] = ["#1f77b4", "#d9730d", "#2ca02c", "#9467bd", "#8c564b"];
/// One request of so many may be refused.
const MOST_REFUSED: usize = 1000;
/// The size of a panel in the picture, in pixels.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 150.0;
const MARGIN: f64 = 80.0;

/// One life of one process: the values of each measure, once a second.
struct Life {
    node: u32,
    first: u64,
    values: [Vec<u64>; MEASURES.len()],
}

pub struct Verdict {
    done: Done,
    lives: Vec<Life>,
}

impl Life {
    fn seconds(&self) -> usize {
        self.values[0].len()
    }

    fn judged(&self) -> bool {
        self.seconds() >= LEAST
    }

    fn flat(&self) -> bool {
        let mut measures = MEASURES.iter().zip(&self.values);
        measures.all(|(measure, values)| measure.flat(values))
    }
}

impl Verdict {
    pub fn of(done: Done, samples: &[Sample]) -> Verdict {
        let mut lives: BTreeMap<(u32, u64, u32), Life> = BTreeMap::new();
        let mut first = BTreeMap::new();
        for sample in samples {
            let process = (sample.node, sample.process);
            let first = *first.entry(process).or_insert(sample.second);
            let name = (sample.node, first, sample.process);
            let life = lives.entry(name).or_insert_with(|| Life {
                node: sample.node,
                first,
                values: Default::default(),
            });
            for (values, value) in life.values.iter_mut().zip(sample.values()) {
                values.push(value);
            }
        }
        let lives = lives.into_values().collect();
        Verdict { done, lives }
    }

    /// Whether all lives that are long enough were flat, at least one was long enough, every history is
    /// linearizable, and hardly a request was refused.
    pub fn good(&self) -> bool {
        let mut judged = self.lives.iter().filter(|life| life.judged()).peekable();
        let sound = self.done.violation.is_none() && self.hardly_refused();
        sound && judged.peek().is_some() && judged.all(Life::flat)
    }

    /// Whether few requests were refused. A pause and a fault of the network may coincide and take away two
    /// replicas of a key for a while.
    fn hardly_refused(&self) -> bool {
        self.done.refused * MOST_REFUSED <= self.done.requests
    }

    /// A panel for each measure, a line for each life.
    pub fn draw(&self) -> String {
        let panels = MEASURES.len() as f64;
        let height = MARGIN + panels * (HEIGHT + 50.0);
        let mut svg = Svg::new(WIDTH + 2.0 * MARGIN, height);
        svg.heading((MARGIN, 30.0), "What each node's process holds");
        for (node, color) in FIVE.iter().zip(COLORS) {
            let x = MARGIN + 400.0 + 80.0 * ((node - FIVE[0]) / 2) as f64;
            svg.label((x, 30.0), Anchor::Start, color, &format!("node {node}"));
        }
        let lasts = self
            .lives
            .iter()
            .map(|life| life.first + life.seconds() as u64);
        let seconds = lasts.max().unwrap_or(0).max(1);
        for (place, measure) in MEASURES.iter().enumerate() {
            let bottom = MARGIN + place as f64 * (HEIGHT + 50.0) + HEIGHT;
            let values = self.lives.iter().flat_map(|life| &life.values[place]);
            let most = values.copied().max().unwrap_or(0).max(1);
            svg.text((MARGIN, bottom - HEIGHT - 6.0), measure.name);
            for (value, y) in [(0, bottom), (most, bottom - HEIGHT)] {
                svg.line((MARGIN, y), (MARGIN + WIDTH, y), "#dddddd");
                let shown = measure.shown(value);
                svg.label((MARGIN - 6.0, y + 4.0), Anchor::End, "black", &shown);
            }
            let end = format!("{seconds} s");
            svg.label((MARGIN + WIDTH, bottom + 16.0), Anchor::End, "black", &end);
            for life in &self.lives {
                let color = FIVE.iter().position(|node| *node == life.node);
                let at = |(second, value): (usize, &u64)| {
                    let x = (life.first as f64 + second as f64) / seconds as f64;
                    let y = *value as f64 / most as f64;
                    (MARGIN + x * WIDTH, bottom - y * HEIGHT)
                };
                let places: Vec<_> = life.values[place].iter().enumerate().map(at).collect();
                svg.curve(&places, COLORS[color.unwrap_or(0)]);
            }
        }
        svg.finish()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = &self.done;
        writeln!(
            f,
            "{} epochs: {} requests, {} of them refused, the longest took {} ms; {} keys written and \
             deleted; {} crashes, {} pauses, {} faults of the network",
            done.epochs,
            done.requests,
            done.refused,
            done.longest.as_millis(),
            done.keys,
            done.crashes,
            done.pauses,
            done.network_faults
        )?;
        write!(f, "{:>5} {:>7}", "node", "life")?;
        MEASURES
            .iter()
            .try_for_each(|measure| write!(f, " {:>24}", measure.name))?;
        writeln!(f)?;
        for life in self.lives.iter().filter(|life| life.judged()) {
            write!(f, "{:>5} {:>5} s", life.node, life.seconds())?;
            for (measure, values) in MEASURES.iter().zip(&life.values) {
                let (from, to) = quarters(values);
                let grew = if measure.flat(values) { "" } else { " GREW" };
                let text = format!("{} -> {}{grew}", measure.shown(from), measure.shown(to));
                write!(f, " {text:>24}")?;
            }
            writeln!(f)?;
        }
        let short = self.lives.iter().filter(|life| !life.judged()).count();
        writeln!(f, "{short} lives were too short to judge")?;
        if let Some(violation) = &done.violation {
            writeln!(f, "NOT LINEARIZABLE: {violation}")?;
        }
        if !self.hardly_refused() {
            writeln!(f, "MORE THAN ONE OF {MOST_REFUSED} REQUESTS WAS REFUSED")?;
        }
        let verdict = if self.good() { "good" } else { "BAD" };
        writeln!(f, "verdict: {verdict}")
    }
}
