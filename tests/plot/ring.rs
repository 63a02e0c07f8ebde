//! The ring of the course as a picture, with one key and the three nodes that hold it.

use std::f64::consts::TAU;

use simple_dynamo::config::Config;
use simple_dynamo::protocol::ring::Position;

use crate::support::svg::{Anchor, Place, Svg};

const KEY: &str = "key2";
const CENTER: Place = (480.0, 220.0);
const RADIUS: f64 = 150.0;
const GRAY: &str = "#555555";
const GREEN: &str = "#1b7837";
const BLUE: &str = "#2166ac";

/// The share of the circle that lies before a position: from 0 up to 1.
fn share(position: Position) -> f64 {
    let digits = position.to_string();
    let high = u32::from_str_radix(&digits[..8], 16).expect("a position is hexadecimal");
    f64::from(high) / 2f64.powi(32)
}

/// A place `radius` away from the center. Position 0 is at the top, and the ring goes clockwise.
fn place(share: f64, radius: f64) -> Place {
    let (sin, cos) = (share * TAU).sin_cos();
    (CENTER.0 + radius * sin, CENTER.1 - radius * cos)
}

/// The part of a circle from one share to another, clockwise.
fn arc(svg: &mut Svg, (from, to): (f64, f64), radius: f64, color: &str) {
    let steps = 120;
    let at = |step| from + (to - from) * f64::from(step) / f64::from(steps);
    let places: Vec<_> = (0..=steps).map(|step| place(at(step), radius)).collect();
    svg.curve(&places, color);
}

/// A text beside a node, on the outer side of the ring.
fn beside(svg: &mut Svg, share: f64, color: &str, text: &str) {
    let (x, y) = place(share, RADIUS + 14.0);
    let anchor = if x < CENTER.0 {
        Anchor::End
    } else {
        Anchor::Start
    };
    svg.label((x, y + 4.0), anchor, color, text);
}

pub fn draw() -> String {
    let config = Config::course();
    let ring = config.ring();
    let replicas = ring.preference_list(&KEY.into());
    let mut svg = Svg::new(900.0, 410.0);
    svg.heading(
        (14.0, 24.0),
        "The five nodes of the course, and where one key lives",
    );
    arc(&mut svg, (0.0, 1.0), RADIUS, GRAY);
    let key = Position::of(KEY.as_bytes());
    for (position, id) in ring.members() {
        let member = config.member(*id).expect("the ring has the members alone");
        let (color, role) = match replicas.iter().position(|replica| replica == id) {
            Some(0) => (GREEN, ", coordinator"),
            Some(_) => (GREEN, ", replica"),
            None => (GRAY, ""),
        };
        let digits = position.to_string();
        let (client, peer) = (member.client_port, member.peer_port);
        let text = format!("{id} at {}…, ports {client} and {peer}{role}", &digits[..8]);
        svg.dot(place(share(*position), RADIUS), color, &digits);
        beside(&mut svg, share(*position), color, &text);
    }
    // From the key clockwise to its successor.
    let successor = share(Position::of_node(replicas[0]));
    let lap = f64::from(u8::from(successor < share(key)));
    arc(&mut svg, (share(key), successor + lap), RADIUS - 6.0, BLUE);
    let digits = key.to_string();
    svg.dot(place(share(key), RADIUS), BLUE, &digits);
    beside(
        &mut svg,
        share(key),
        BLUE,
        &format!("{KEY} at {}…", &digits[..8]),
    );
    svg.finish()
}
