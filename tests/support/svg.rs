//! Just enough SVG. The pictures are black on white, so that they are read in dark pages, too.

use std::fmt::{Display, Write};

/// A place in a picture: from the left and from the top, in pixels.
pub type Place = (f64, f64);

/// A picture that grows.
pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// Which part of a text stands at its place.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub fn new(width: f64, height: f64) -> Svg {
        Svg {
            width,
            height,
            body: String::new(),
        }
    }

    /// A rectangle that shows `title` when the pointer is on it.
    pub fn bar(&mut self, (x, y): Place, (width, height): Place, color: &str, title: &str) {
        // What is too narrow is not seen.
        let width = width.max(1.0);
        let title = escape(title);
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{color}\"><title>{title}</title></rect>"
        ));
    }

    /// The outline of a rectangle.
    pub fn frame(&mut self, (x, y): Place, (width, height): Place, color: &str) {
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>"
        ));
    }

    pub fn line(&mut self, (x1, y1): Place, (x2, y2): Place, color: &str) {
        self.add(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\"/>"
        ));
    }

    /// A line of dashes.
    pub fn dashes(&mut self, (x1, y1): Place, (x2, y2): Place, color: &str) {
        self.add(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" \
             stroke-width=\"1.5\" stroke-dasharray=\"5 3\"/>"
        ));
    }

    /// A line through all the places.
    pub fn curve(&mut self, places: &[Place], color: &str) {
        let places: Vec<_> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        self.add(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>",
            places.join(" ")
        ));
    }

    /// A dot that shows `title` when the pointer is on it.
    pub fn dot(&mut self, (x, y): Place, color: &str, title: &str) {
        let title = escape(title);
        self.add(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\"><title>{title}</title></circle>"
        ));
    }

    /// A text that stays readable across lines.
    pub fn text(&mut self, place: Place, text: &str) {
        self.label(place, Anchor::Start, "black", text);
    }

    pub fn label(&mut self, (x, y): Place, anchor: Anchor, color: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{text}</text>"
        ));
    }

    /// The title of the picture.
    pub fn heading(&mut self, (x, y): Place, text: &str) {
        let text = escape(text);
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"17\" font-weight=\"bold\">{text}</text>"
        ));
    }

    fn add(&mut self, element: impl Display) {
        writeln!(self.body, "{element}").expect("a string takes all");
    }

    pub fn finish(self) -> String {
        let Svg {
            width,
            height,
            body,
        } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <style>text {{ paint-order: stroke; stroke: white; stroke-width: 3px }}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
        )
    }
}

/// Escapes a text for HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
