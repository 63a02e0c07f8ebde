//! A run as pictures: how many requests were served during which faults, and the operations around a
//! violation.

use super::fault::{Fault, Harm};
use super::nemesis::Event;
use crate::support::history::{End, Operation, Reply, Request};
use crate::support::svg::{Svg, escape};

/// The width of the names on the left, in pixels.
const LEFT: f64 = 110.0;
const WIDTH: f64 = 1_200.0;
const LANE: f64 = 16.0;
/// How high the requests of the busiest second stand.
const HIGH: f64 = 200.0;
/// How much around the smallest piece is shown, as a share of it, and at least, in microseconds.
const MARGIN: f64 = 0.2;
const LEAST_MARGIN: f64 = 20_000.0;
/// How many clients' operations are drawn. Those of the smallest piece come first.
const MOST_LANES: usize = 24;

/// A color of faults, and what the legend says of it.
type Color = (&'static str, &'static str);
const KILLED: Color = ("#c0392b", "killed, or its disk lost");
const PAUSED: Color = ("#e08e0b", "paused");
const SLOW_DISK: Color = ("#8e6b3e", "slow disk");
const CUT: Color = ("#7d3c98", "links cut");
const HALF_OPEN: Color = ("#c2558f", "half-open connection");
const LATE: Color = ("#2e8b8b", "messages late");
const DISORDER: Color = ("#7f8c8d", "messages twice or out of order");
const LEGEND: [Color; 7] = [KILLED, PAUSED, SLOW_DISK, CUT, HALF_OPEN, LATE, DISORDER];
/// Lanes below those of the faults: the time, and the legend.
const FOOT: usize = 3;

/// From microseconds of the history to places.
struct Scale {
    from: f64,
    until: f64,
}

impl Scale {
    fn x(&self, moment: u64) -> f64 {
        let moment = (moment as f64).clamp(self.from, self.until);
        LEFT + (moment - self.from) / (self.until - self.from) * WIDTH
    }

    fn shows(&self, from: u64, until: u64) -> bool {
        (from as f64) < self.until && until as f64 > self.from
    }
}

/// Requests served in each second, above the faults: one lane for each node, and one for links.
pub fn throughput(seconds: &[u32], events: &[Event], nodes: &[u32]) -> String {
    let scale = Scale {
        from: 0.0,
        until: seconds.len().max(1) as f64 * 1e6,
    };
    let most = seconds.iter().copied().max().unwrap_or(0).max(1);
    let top = HIGH + 40.0;
    let mut svg = Svg::new(
        LEFT + WIDTH + 20.0,
        top + LANE * (nodes.len() + 1 + FOOT) as f64,
    );
    svg.text(
        (4.0, 16.0),
        "requests per second that ended well, and faults",
    );
    svg.text((4.0, 40.0), &most.to_string());
    svg.text((4.0, 30.0 + HIGH), "0");
    let width = WIDTH / seconds.len().max(1) as f64;
    for (second, &count) in seconds.iter().enumerate() {
        let height = HIGH * f64::from(count) / f64::from(most);
        let place = (LEFT + second as f64 * width, 30.0 + HIGH - height);
        let title = format!("second {second}: {count} requests");
        svg.bar(place, (width - 0.5, height), "#4a7fb5", &title);
    }
    draw_faults(&mut svg, &scale, top, events, nodes);
    svg.finish()
}

/// Lanes of faults, and below them the time and what the colors stand for.
fn draw_faults(svg: &mut Svg, scale: &Scale, top: f64, events: &[Event], nodes: &[u32]) {
    let names: Vec<String> = nodes.iter().map(|node| format!("node {node}")).collect();
    let links = nodes.len();
    let y = |lane: usize| top + LANE * lane as f64;
    for (lane, name) in names
        .iter()
        .map(String::as_str)
        .chain(["links"])
        .enumerate()
    {
        svg.text((4.0, y(lane) + 12.0), name);
        svg.line((LEFT, y(lane)), (LEFT + WIDTH, y(lane)), "#dddddd");
    }
    for event in events
        .iter()
        .filter(|event| scale.shows(event.began, event.ended))
    {
        let lanes = match event.fault.harm() {
            Harm::Node(node) => nodes
                .iter()
                .position(|n| *n == node)
                .map_or(0..0, |n| n..n + 1),
            Harm::Everybody => 0..links,
            Harm::Link(..) | Harm::Nobody => links..links + 1,
        };
        let (from, until) = (scale.x(event.began), scale.x(event.ended));
        for lane in lanes {
            let size = (until - from, LANE - 3.0);
            svg.bar(
                (from, y(lane) + 1.0),
                size,
                color_of(&event.fault).0,
                &describe(event),
            );
        }
    }
    for tenth in 0..=10 {
        let moment = scale.from + (scale.until - scale.from) * f64::from(tenth) / 10.0;
        let place = (scale.x(moment as u64), y(links + 1) + 14.0);
        svg.text(place, &format!("{:.3} s", moment / 1e6));
    }
    let width = (LEFT + WIDTH) / LEGEND.len() as f64;
    for (column, (color, text)) in LEGEND.iter().enumerate() {
        let (x, y) = (4.0 + width * column as f64, y(links + 2) + LANE / 2.0);
        svg.bar((x, y), (LANE, LANE - 4.0), color, text);
        svg.text((x + LANE + 4.0, y + LANE - 6.0), text);
    }
}

fn color_of(fault: &Fault) -> Color {
    match fault {
        Fault::Kill { .. } | Fault::KillAll { .. } | Fault::Wipe { .. } => KILLED,
        Fault::Pause { .. } => PAUSED,
        Fault::SlowDisk { .. } => SLOW_DISK,
        Fault::Cut { .. } | Fault::CutBothWays { .. } | Fault::Isolate { .. } => CUT,
        Fault::HalfOpen { .. } => HALF_OPEN,
        Fault::Delay { .. } | Fault::Straggle { .. } => LATE,
        Fault::Duplicate { .. } | Fault::Reorder { .. } => DISORDER,
    }
}

fn describe(event: &Event) -> String {
    let fault = serde_json::to_string(&event.fault).expect("a fault is numbers and names");
    let millis = (event.ended - event.began) / 1_000;
    let fired = if event.fired { "" } else { ", and did nothing" };
    format!("{fault} for {millis} ms{fired}")
}

/// The offending key: its operations around the smallest piece, which is framed, and the faults.
/// An operation of unknown outcome has no end.
pub fn timeline(
    why: &str,
    history: &[Operation],
    smallest: &[Operation],
    events: &[Event],
    nodes: &[u32],
) -> String {
    let first = smallest.iter().map(|operation| operation.called).min();
    let last = smallest.iter().map(last_moment).max();
    let (first, last) = (first.unwrap_or(0) as f64, last.unwrap_or(0) as f64);
    let margin = ((last - first) * MARGIN).max(LEAST_MARGIN);
    let scale = Scale {
        from: (first - margin).max(0.0),
        until: last + margin,
    };
    let mut clients: Vec<u32> = Vec::new();
    for operation in smallest.iter().chain(history) {
        let shown = scale.shows(operation.called, last_moment(operation));
        if shown && !clients.contains(&operation.client) && clients.len() < MOST_LANES {
            clients.push(operation.client);
        }
    }
    let top = 20.0;
    let faults = top + 2.0 * LANE * (clients.len() + 1) as f64;
    let height = faults + LANE * (nodes.len() + 1 + FOOT) as f64;
    let mut svg = Svg::new(LEFT + WIDTH + 20.0, height);
    for (lane, client) in clients.iter().enumerate() {
        let y = top + 2.0 * LANE * lane as f64;
        svg.text((4.0, y + LANE), &format!("client {client}"));
        let own = history
            .iter()
            .filter(|operation| operation.client == *client);
        for operation in own {
            draw(&mut svg, &scale, y, operation, smallest.contains(operation));
        }
        // The end of an operation may have been forgotten to make the piece smaller.
        let forgotten = smallest
            .iter()
            .filter(|o| o.client == *client && !history.contains(o));
        forgotten.for_each(|operation| draw(&mut svg, &scale, y, operation, true));
    }
    draw_faults(&mut svg, &scale, faults, events, nodes);
    page(why, smallest, &svg.finish())
}

fn last_moment(operation: &Operation) -> u64 {
    operation.returned().unwrap_or(operation.called)
}

fn draw(svg: &mut Svg, scale: &Scale, y: f64, operation: &Operation, framed: bool) {
    let until = operation.returned().unwrap_or(u64::MAX);
    if !scale.shows(operation.called, until) || (operation.end == End::Failed && !framed) {
        return;
    }
    let (from, until) = (scale.x(operation.called), scale.x(until));
    let (place, size) = ((from, y + 2.0), (until - from, LANE));
    let color = match (&operation.request, &operation.end) {
        (_, End::Unknown) => "#f3d9b1",
        (Request::Get, _) => "#b7d7b0",
        (Request::Put { .. } | Request::CompareAndSet { .. }, End::Returned { reply, .. })
            if !matches!(reply, Reply::Conflict { .. }) =>
        {
            "#9fc1e6"
        }
        (Request::Delete, _) => "#e6a9a0",
        _ => "#d5d5d5",
    };
    svg.bar(place, size, color, &operation.to_string());
    if framed {
        svg.frame(place, (size.0.max(3.0), size.1), "#c0392b");
        svg.text((from, y + 2.0 * LANE - 3.0), &short(operation));
    }
}

/// An operation without its times.
fn short(operation: &Operation) -> String {
    let text = operation.to_string();
    match text.split_once(&format!("client {:<2} ", operation.client)) {
        Some((_, text)) => text.to_owned(),
        None => text,
    }
}

fn page(why: &str, smallest: &[Operation], svg: &str) -> String {
    let list: String = smallest
        .iter()
        .map(|operation| escape(&operation.to_string()) + "\n")
        .collect();
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>a violation</title>\n\
         <h1>This history is of no single register</h1>\n<p>{}</p>\n\
         <p>The smallest piece of it that no order explains (times in microseconds: call .. \
         return; <code>?</code>: it may take effect at any time after the call, or never):</p>\n\
         <pre>{list}</pre>\n\
         <p>Its operations are framed below, among the others of the key: reads green, writes blue, \
         deletes red, refused compare-and-sets gray, unknown outcomes pale and without an end. \
         Point at a bar to read it. Below them are the faults: those of a node in its lane, those of \
         single links in the lane of all links.</p>\n{svg}",
        escape(why)
    )
}
