//! Whether a history is linearizable: whether there is an order of its operations, each at some
//! moment between its call and its return, in which every reply is that of a single register.
//!
//! The search is that of Wing and Gong with Lowe's memory of configurations ("Testing for
//! linearizability", 2017). An operation may come next if no other one that is still to come had
//! returned before it was called. A configuration (which operations have come, and what the register
//! holds) that led nowhere is not tried again. Keys are independent, so each is checked by itself.
//! Three facts keep the search short:
//!
//! - Values are written once. So the register's state is the number of the write that set it,
//!   and a state that some reply still needs must not be left: it never comes back.
//! - An operation that changes nothing and is possible now is taken at once: it could only be
//!   harder later.
//! - A write of unknown outcome may come at any time after its call, or never. It is put in only
//!   where the operation after it would be impossible otherwise: before any other operation it
//!   could as well come later, or not at all.
//!
//! A key to which clients only add is checked by itself: see `counter.rs`.
//!
//! Versions are translated into the writes that made them, where a reply shows both together. A
//! version that no reply shows with a value may be that of any write, so the check may miss a
//! violation, but never invents one.

mod counter;
mod search;
mod versions;

use std::collections::BTreeMap;

use super::history::{Operation, Request};
use search::{Found, Search};
use versions::Versions;

/// The checker's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Linearizable,
    /// With the key and the operation at which every order fails.
    Violation(String),
    /// The budget did not suffice. The history may be either.
    Unknown,
}

/// Checks a history. `budget` bounds the steps of the search for one key.
pub fn check(history: &[Operation], budget: u64) -> Verdict {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let mut undecided = false;
    for (key, mut operations) in keys {
        operations.sort_by_key(|operation| operation.called);
        if operations
            .iter()
            .any(|own| matches!(own.request, Request::Add { .. }))
        {
            match counter::check(&operations) {
                Ok(()) => continue,
                Err(text) => return Verdict::Violation(format!("key {key}: {text}")),
            }
        }
        let searched = Versions::of(&operations)
            .and_then(|versions| versions.translate(&operations))
            .map(|steps| Search::new(steps).run(budget));
        match searched {
            Ok(Found::Order) => {}
            Ok(Found::Nothing) => undecided = true,
            Ok(Found::NoOrder(stuck)) => {
                let stuck = operations[stuck];
                return Verdict::Violation(format!("key {key}: no order explains {stuck}"));
            }
            Err(text) => return Verdict::Violation(format!("key {key}: {text}")),
        }
    }
    if undecided {
        Verdict::Unknown
    } else {
        Verdict::Linearizable
    }
}

/// What the register holds: nothing, or what the operation of this index wrote.
type State = Option<usize>;

/// What an operation, given its reply, needs the state to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Need {
    Anything,
    Exactly(State),
    Other(State),
    Present,
    /// A write whose version no reply shows.
    Unnamed,
    Impossible,
}

/// One operation as the search sees it.
#[derive(Clone, Copy, Debug)]
struct Step {
    called: u64,
    /// `None` if its outcome is unknown: it need not happen.
    returned: Option<u64>,
    need: Need,
    /// The state that it leaves; `None` if it changes nothing.
    becomes: Option<State>,
    /// For a write: whether some reply shows its version.
    named: bool,
    /// Failed, or a read without an answer: no part of the history.
    void: bool,
}
