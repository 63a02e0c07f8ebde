//! Axes, and what is drawn between them.

use crate::support::svg::{Anchor, Place, Svg};

const GRID: &str = "#e4e4e4";
const GRAY: &str = "#555555";

/// Where values lie in the picture: from left to right, or from the bottom up.
pub struct Axis {
    from: f64,
    until: f64,
    pixels: (f64, f64),
    logarithmic: bool,
    /// The values that are written beside the axis.
    ticks: Vec<f64>,
}

impl Axis {
    /// From zero on.
    pub fn linear(until: f64, pixels: (f64, f64)) -> Axis {
        let step = round_step(until / 4.0);
        let count = (until / step).floor() as u32;
        Axis {
            from: 0.0,
            until,
            pixels,
            logarithmic: false,
            ticks: (0..=count).map(|place| f64::from(place) * step).collect(),
        }
    }

    /// From one of 0.1, 0.3, 1, 3, 10 and so on to another, around these values.
    pub fn logarithmic((least, most): (f64, f64), pixels: (f64, f64)) -> Axis {
        let steps = (-1..).flat_map(|power| [1.0, 3.0].map(|digit| digit * 10f64.powi(power)));
        let steps: Vec<f64> = steps.take_while(|step| *step < most * 3.4).collect();
        let first = steps.iter().rposition(|step| *step <= least).unwrap_or(0);
        let last = steps.iter().position(|step| *step >= most);
        let ticks = steps[first..=last.unwrap_or(steps.len() - 1)].to_vec();
        Axis {
            from: ticks[0],
            until: ticks[ticks.len() - 1],
            pixels,
            logarithmic: true,
            ticks,
        }
    }

    pub fn at(&self, value: f64) -> f64 {
        let share = match self.logarithmic {
            true => (value / self.from).ln() / (self.until / self.from).ln(),
            false => (value - self.from) / (self.until - self.from),
        };
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }
}

/// The largest of 1, 2 and 5 times a power of ten that is not above `most`.
fn round_step(most: f64) -> f64 {
    let power = 10f64.powf(most.log10().floor());
    let steps = [5.0, 2.0, 1.0].map(|factor| factor * power);
    steps
        .into_iter()
        .find(|step| *step <= most)
        .unwrap_or(power)
}

/// A number as people write it, such as 12,000 or 0.3.
pub fn written(value: f64) -> String {
    if value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Two axes.
pub struct Panel {
    pub x: Axis,
    pub y: Axis,
}

impl Panel {
    /// Draws the grid, which lies under everything else.
    pub fn draw_grid(&self, svg: &mut Svg) {
        let ((left, right), (bottom, top)) = (self.x.pixels, self.y.pixels);
        for tick in &self.y.ticks {
            let y = self.y.at(*tick);
            svg.line((left, y), (right, y), GRID);
        }
        for tick in &self.x.ticks {
            let x = self.x.at(*tick);
            svg.line((x, bottom), (x, top), GRID);
        }
        svg.line((left, bottom), (right, bottom), GRAY);
        svg.line((left, bottom), (left, top), GRAY);
    }

    /// Draws the values beside the axes, and the title of the vertical one above it.
    pub fn draw_labels(&self, svg: &mut Svg, title: &str) {
        let ((left, _), (bottom, top)) = (self.x.pixels, self.y.pixels);
        for tick in &self.y.ticks {
            let place = (left - 6.0, self.y.at(*tick) + 4.0);
            svg.label(place, Anchor::End, GRAY, &written(*tick));
        }
        for tick in &self.x.ticks {
            let place = (self.x.at(*tick), bottom + 16.0);
            svg.label(place, Anchor::Middle, GRAY, &written(*tick));
        }
        svg.text((left, top - 10.0), title);
    }

    /// Draws the name of the horizontal axis.
    pub fn name_x(&self, svg: &mut Svg, name: &str) {
        let middle = (self.x.pixels.0 + self.x.pixels.1) / 2.0;
        let place = (middle, self.y.pixels.0 + 34.0);
        svg.label(place, Anchor::Middle, "black", name);
    }

    /// Where the panel ends below and above.
    pub fn heights(&self) -> (f64, f64) {
        self.y.pixels
    }

    pub fn place(&self, (x, y): (f64, f64)) -> Place {
        (self.x.at(x), self.y.at(y))
    }

    /// Draws a line through the points. Where a point is missing, the line is broken.
    pub fn curve(&self, svg: &mut Svg, points: &[Option<(f64, f64)>], color: &str) {
        for piece in points
            .split(Option::is_none)
            .filter(|piece| !piece.is_empty())
        {
            let piece = piece.iter().flatten();
            let places: Vec<Place> = piece.map(|point| self.place(*point)).collect();
            svg.curve(&places, color);
        }
    }

    /// Names what is drawn, above the right end of the panel: in the order from right to left.
    pub fn legend(&self, svg: &mut Svg, entries: &[(&str, &str)]) {
        let mut right = self.x.pixels.1;
        let y = self.y.pixels.1 - 10.0;
        for (color, name) in entries {
            svg.label((right, y), Anchor::End, color, name);
            // A letter is about 6.5 pixels wide.
            right -= 6.5 * name.len() as f64 + 14.0;
        }
    }
}
