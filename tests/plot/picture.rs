//! Draws a timeline: requests per second above, and how long they took below.

use std::time::Duration;

use crate::chart::{Axis, Panel, written};
use crate::load::{CLIENTS, RATE};
use crate::machine;
use crate::support::svg::{Anchor, Svg};
use crate::timeline::{Kind, Timeline};
use crate::window::Window;

/// What one point stands for.
const WINDOW: Duration = Duration::from_millis(100);
const WIDTH: f64 = 900.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = WIDTH - 20.0;
const PINK: &str = "#fbeeee";
const RED: &str = "#c0392b";
const ORANGE: &str = "#d35400";
const BLUE: &str = "#1f5fa8";
const GREEN: &str = "#1e8449";

impl Timeline {
    pub fn draw(&self) -> String {
        let mut svg = Svg::new(WIDTH, 560.0);
        svg.heading((LEFT, 26.0), self.title());
        for (row, line) in self.caption().iter().enumerate() {
            svg.text((LEFT, 46.0 + 16.0 * row as f64), line);
        }
        let windows = Window::all_of(&self.samples, self.time, WINDOW);
        let x = || Axis::linear(self.time.as_secs_f64(), (LEFT, RIGHT));
        let per_second = |count: u64| count as f64 / WINDOW.as_secs_f64();
        let busiest = windows.iter().map(|window| window.well).max().unwrap_or(0);
        let rate = Panel {
            x: x(),
            y: Axis::linear(per_second(busiest) * 1.05, (300.0, 150.0)),
        };
        let longest = windows
            .iter()
            .map(|window| window.quantile(1.0))
            .fold(10.0, f64::max);
        let waiting = Panel {
            x: x(),
            y: Axis::logarithmic((0.1, longest), (510.0, 350.0)),
        };
        for panel in [&rate, &waiting] {
            let (bottom, top) = panel.heights();
            let [gone, back] =
                [self.gone, self.back].map(|moment| panel.x.at(moment.as_secs_f64()));
            svg.bar(
                (gone, top),
                (back - gone, bottom - top),
                PINK,
                "without the node",
            );
            panel.draw_grid(&mut svg);
        }
        self.draw_marks(&mut svg, &rate.x, waiting.heights().0);
        let middle = |place: usize| (place as f64 + 0.5) * WINDOW.as_secs_f64();
        let points = |value: &dyn Fn(&Window) -> Option<f64>| -> Vec<_> {
            let values = windows.iter().map(value).enumerate();
            values
                .map(|(place, value)| value.map(|value| (middle(place), value)))
                .collect()
        };
        rate.draw_labels(&mut svg, "requests per second");
        rate.curve(
            &mut svg,
            &points(&|window| Some(per_second(window.well))),
            BLUE,
        );
        let failed: u64 = windows.iter().map(|window| window.failed).sum();
        for (place, window) in windows
            .iter()
            .enumerate()
            .filter(|(_, window)| window.failed > 0)
        {
            let title = format!("{} failed", window.failed);
            svg.dot(rate.place((middle(place), 0.0)), RED, &title);
        }
        let failed = format!("failed: {failed} of {}", written(self.samples.len() as f64));
        rate.legend(&mut svg, &[(RED, &failed), (BLUE, "ended well")]);
        waiting.draw_labels(
            &mut svg,
            "milliseconds from when a request was due to its reply",
        );
        for (quantile, color) in [(0.99, ORANGE), (0.5, BLUE)] {
            let value = |window: &Window| (!window.is_empty()).then(|| window.quantile(quantile));
            waiting.curve(&mut svg, &points(&value), color);
        }
        waiting.legend(
            &mut svg,
            &[
                (ORANGE, "p99 (99 of 100 were faster)"),
                (BLUE, "p50 (half were faster)"),
            ],
        );
        waiting.name_x(&mut svg, "seconds");
        svg.finish()
    }

    /// Two lines.
    fn caption(&self) -> [String; 2] {
        let through = match self.kind {
            Kind::Crash => "all nodes that live",
            Kind::Pause => "the other four nodes",
        };
        [
            format!(
                "{} requests a second, half of them writes, are due from {CLIENTS} clients through {through}; \
                 who had to wait makes up for it.",
                written(f64::from(RATE))
            ),
            format!("Each point is {} ms. {}.", WINDOW.as_millis(), machine()),
        ]
    }

    /// When the node went and came back, down to `bottom`.
    fn draw_marks(&self, svg: &mut Svg, x: &Axis, bottom: f64) {
        let (gone, back) = match self.kind {
            Kind::Crash => ("kill -9", "started again"),
            Kind::Pause => ("SIGSTOP", "SIGCONT"),
        };
        let later = written((self.whole - self.back).as_millis() as f64);
        let whole = format!("has all that it missed, {later} ms later");
        let marks = [
            (self.gone, RED, gone),
            (self.back, BLUE, back),
            (self.whole, GREEN, &whole),
        ];
        for (row, (moment, color, text)) in marks.into_iter().enumerate() {
            let (x, y) = (x.at(moment.as_secs_f64()), 84.0 + 15.0 * row as f64);
            svg.dashes((x, y - 10.0), (x, bottom), color);
            let (anchor, x) = match x > 0.7 * WIDTH {
                true => (Anchor::End, x - 5.0),
                false => (Anchor::Start, x + 5.0),
            };
            svg.label((x, y), anchor, color, text);
        }
    }
}
