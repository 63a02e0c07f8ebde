//! How a trace words each message: in the words of the report.

use simple_dynamo::protocol::version::VectorClock;
use simple_dynamo::protocol::{
    Accepted, Ballot, Change, Operation, Outcome, Seen, State, VoteReply, VoteRequest,
};
use simple_dynamo::server::text;

use crate::cluster::{A, B, C, M, N};

/// Replaces the numbers of the nodes in a text by their letters.
pub fn in_letters(text: &str) -> String {
    let mut text = text.to_owned();
    for (letter, node) in [("A", A), ("B", B), ("C", C), ("M", M), ("N", N)] {
        text = text.replace(&node.to_string(), letter);
    }
    text
}

/// The start of a message, `A -> B: accept`, with the numbers of its two nodes.
pub fn in_numbers(start: &str) -> String {
    let Some((nodes, what)) = start.split_once(':') else {
        return start.to_owned();
    };
    let mut nodes = nodes.to_owned();
    for (letter, node) in [("A", A), ("B", B), ("C", C), ("M", M), ("N", N)] {
        nodes = nodes.replace(letter, &node.to_string());
    }
    format!("{nodes}:{what}")
}

/// The line that a client types.
pub fn line(change: Option<&Change>) -> String {
    match change {
        None => "GET x".to_owned(),
        Some(Change::Put(value)) => format!("PUT x {}", value_text(value.as_slice())),
        Some(Change::Delete) => "DEL x".to_owned(),
        Some(Change::CompareAndSet { expected, value }) => {
            let value = value_text(value.as_slice());
            let expected = expected.as_ref().map_or("-".to_owned(), clock);
            format!("CAS x {expected} {value}")
        }
        Some(other) => format!("{other:?}"),
    }
}

pub fn coordinate(operation: &Operation, seen: Option<&Seen>) -> String {
    match (operation, seen) {
        (Operation::Write { dot, change }, _) => format!(
            "coordinate {}:{}, {}",
            dot.origin,
            dot.sequence,
            line(Some(change))
        ),
        (_, Some(seen)) => format!("coordinate GET x; {}", seen_text(seen)),
        _ => "coordinate GET x".to_owned(),
    }
}

pub fn outcome(outcome: &Outcome) -> String {
    text::outcome(&Ok(outcome.clone())).trim_end().to_owned()
}

pub fn request(request: &VoteRequest) -> String {
    match request {
        VoteRequest::Prepare(ballot) => format!("prepare {}", ballot_text(*ballot)),
        VoteRequest::Accept(proposal) => format!("accept {}", accepted(proposal)),
        VoteRequest::Read { state: false } => "read: which ballot?".to_owned(),
        VoteRequest::Read { state: true } => "read: which ballot and state?".to_owned(),
    }
}

pub fn vote(reply: &VoteReply) -> String {
    match reply {
        VoteReply::Promised(promise) => match &promise.accepted {
            Some(own) => format!("promised; has {}", accepted(own)),
            None => "promised; has nothing".to_owned(),
        },
        VoteReply::Taken => "taken".to_owned(),
        VoteReply::Rejected(promised) => {
            format!("refused; promised {} to another", ballot_text(*promised))
        }
        VoteReply::Seen(seen) => seen_text(seen),
    }
}

fn seen_text(seen: &Seen) -> String {
    match seen.clone().accepted() {
        Some(own) => format!("has {}", accepted(&own)),
        None => format!("has {}", ballot_text(seen.ballot)),
    }
}

pub fn accepted(accepted: &Accepted) -> String {
    let ballot = ballot_text(accepted.ballot);
    format!("{ballot} {}", state(&accepted.state))
}

/// What a replica stores, in one word.
pub fn stored(accepted: Option<&Accepted>) -> String {
    accepted.map_or("nothing".to_owned(), |own| value(&own.state))
}

fn state(state: &State) -> String {
    let mut text = format!("{}, version {}", value(state), clock(&state.clock));
    if !state.refusals.is_empty() {
        text += &format!(", refused {}", clock(&state.refusals));
    }
    text
}

fn value(state: &State) -> String {
    match &state.value {
        Some(value) => value_text(value.as_slice()),
        None => "deleted".to_owned(),
    }
}

fn value_text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn clock(clock: &VectorClock) -> String {
    clock.to_string()
}

fn ballot_text(ballot: Ballot) -> String {
    format!("({}, {}, {})", ballot.round, ballot.node, ballot.step)
}
