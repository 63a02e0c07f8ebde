//! A trace as a sequence diagram: each node and client has a column, and time runs downwards.

/// Characters from one column to the next.
const APART: usize = 8;

/// Draws the lines of a trace. A message is an arrow, or `*` where a node talks to itself.
pub fn draw(columns: &[&str], trace: &str) -> String {
    let mut drawn = String::new();
    for line in trace.lines().skip_while(|line| !line.starts_with('#')) {
        drawn += &match line.split_once(" -> ") {
            Some((from, rest)) => row(columns, from, rest),
            None if line.starts_with('#') => format!("{line}\n\n{}", heads(columns)),
            None => line.to_owned(),
        };
        drawn.push('\n');
    }
    drawn
}

fn heads(columns: &[&str]) -> String {
    let heads: String = columns
        .iter()
        .map(|name| format!("{name:^APART$}"))
        .collect();
    heads.trim_end().to_owned()
}

/// The middle of a column, in characters from the left.
fn middle(column: usize) -> usize {
    column * APART + APART / 2 - 1
}

fn row(columns: &[&str], from: &str, rest: &str) -> String {
    let (to, what) = rest.split_once(": ").expect("a message says something");
    let place = |name: &str| {
        let column = columns.iter().position(|column| *column == name);
        middle(column.unwrap_or_else(|| panic!("no column for {name}")))
    };
    let (from, to) = (place(from), place(to));
    let mut row = vec![' '; columns.len() * APART];
    for column in 0..columns.len() {
        row[middle(column)] = '|';
    }
    row[from.min(to)..from.max(to)].fill('-');
    (row[from], row[to]) = ('|', '|');
    match from.cmp(&to) {
        std::cmp::Ordering::Less => row[to - 1] = '>',
        std::cmp::Ordering::Equal => row[to] = '*',
        std::cmp::Ordering::Greater => row[to + 1] = '<',
    }
    let row: String = row.into_iter().collect();
    format!("{row}{what}")
}
