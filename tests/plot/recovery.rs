//! How long a returned node takes to have what it missed.

use std::time::{Duration, Instant};

use crate::chart::{Axis, Panel};
use crate::load::write_all;
use crate::machine;
use crate::options::Options;
use crate::support::cluster::{Cluster, FIVE};
use crate::support::svg::{Anchor, Svg};

/// The node that returns.
const RETURNS: u32 = 5558;
/// How many different keys are written while the node is down.
const MISSED: [usize; 6] = [0, 100, 1_000, 3_000, 10_000, 30_000];

const TITLE: &str = "How long a returned node takes to have all that it missed";
const WIDTH: f64 = 700.0;
const LEFT: f64 = 70.0;
const BLUE: &str = "#1f5fa8";
const LIGHT_BLUE: &str = "#8fb4d9";
const GRAY: &str = "#555555";

/// The runs in which the node missed so many writes.
struct Row {
    missed: usize,
    /// How long each run took from the start of the process, shortest first.
    took: Vec<Duration>,
}

impl Row {
    fn median(&self) -> Duration {
        self.took[self.took.len() / 2]
    }

    fn range(&self) -> (Duration, Duration) {
        (self.took[0], self.took[self.took.len() - 1])
    }
}

/// Measures a return in a new cluster. A node that returns first reads its log, and in an older cluster that
/// would be measured instead.
fn time_return(missed: usize, seed: u64) -> Duration {
    let cluster = Cluster::start(&FIVE);
    let others: Vec<u32> = FIVE.into_iter().filter(|id| *id != RETURNS).collect();
    let all = (0..).map(|number| format!("key{number}"));
    let held = all.filter(|key| cluster.replicas(key).contains(&RETURNS));
    let keys: Vec<String> = held.take(missed).collect();
    cluster.kill(RETURNS);
    write_all(&cluster, &others, &keys, seed);
    let began = Instant::now();
    cluster.restart(RETURNS);
    began.elapsed()
}

pub struct Recovery(Vec<Row>);

impl Recovery {
    pub fn measure(options: &Options) -> Recovery {
        let most = options.secs as usize * 2_500;
        let counts = MISSED.into_iter().filter(|count| *count <= most);
        let mut rows: Vec<Row> = counts
            .map(|missed| Row {
                missed,
                took: Vec::new(),
            })
            .collect();
        // Each round runs all of them once, so that whatever else the machine does disturbs all alike.
        for run in 0..(options.secs / 4).clamp(1, 3) {
            for row in &mut rows {
                row.took.push(time_return(row.missed, options.seed + run));
            }
        }
        rows.iter_mut().for_each(|row| row.took.sort());
        Recovery(rows)
    }

    pub fn print(&self) {
        println!("\n{}", TITLE);
        println!("missed writes  runs  median ms  from ms  to ms");
        for row in &self.0 {
            let (from, to) = row.range();
            println!(
                "{:>13}  {:>4}  {:>9}  {:>7}  {:>5}",
                row.missed,
                row.took.len(),
                row.median().as_millis(),
                from.as_millis(),
                to.as_millis()
            );
        }
    }

    pub fn draw(&self) -> String {
        let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
        let most = self.0.iter().map(|row| row.missed).max().unwrap_or(0);
        let shortest = self.0.iter().map(|row| row.range().0).min();
        let longest = self.0.iter().map(|row| row.range().1).max();
        let times = [shortest, longest].map(|time| millis(time.unwrap_or_default()));
        let panel = Panel {
            x: Axis::logarithmic((100.0, most as f64), (LEFT, WIDTH - 30.0)),
            y: Axis::logarithmic((times[0], times[1]), (370.0, 110.0)),
        };
        let mut svg = Svg::new(WIDTH, 420.0);
        self.head(&mut svg);
        panel.draw_grid(&mut svg);
        panel.draw_labels(&mut svg, "milliseconds from the start of its process");
        panel.name_x(
            &mut svg,
            "keys of its ranges that were written while it was down",
        );
        let mut medians = Vec::new();
        for row in &self.0 {
            let median = millis(row.median());
            if row.missed == 0 {
                let y = panel.y.at(median);
                svg.dashes((LEFT, y), (WIDTH - 30.0, y), GRAY);
                let place = (WIDTH - 34.0, y - 6.0);
                svg.label(
                    place,
                    Anchor::End,
                    GRAY,
                    "nothing missed: start and comparison only",
                );
                continue;
            }
            let at = |time| panel.place((row.missed as f64, time));
            let (from, to) = row.range();
            let (low, high) = (at(millis(from)), at(millis(to)));
            svg.bar(
                (low.0 - 3.0, high.1),
                (6.0, low.1 - high.1),
                LIGHT_BLUE,
                "all runs",
            );
            medians.push(Some((row.missed as f64, median)));
        }
        panel.curve(&mut svg, &medians, BLUE);
        for &(missed, median) in medians.iter().flatten() {
            svg.dot(
                panel.place((missed, median)),
                BLUE,
                &format!("{median:.0} ms"),
            );
        }
        panel.legend(&mut svg, &[(LIGHT_BLUE, "all runs"), (BLUE, "median")]);
        svg.finish()
    }

    fn head(&self, svg: &mut Svg) {
        svg.heading((LEFT, 26.0), TITLE);
        let runs = self.0.first().map_or(0, |row| row.took.len());
        let text = format!(
            "kill -9, writes of 100 bytes through the other nodes, start: {runs} runs of each. No other load."
        );
        svg.text((LEFT, 48.0), &text);
        svg.text(
            (LEFT, 66.0),
            &format!("{}; both axes are logarithmic.", machine()),
        );
    }
}
