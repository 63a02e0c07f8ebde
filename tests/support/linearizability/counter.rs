//! Whether the history of a counter is linearizable: a key to which clients only add, and which they read.
//!
//! Each `Add` has a power of two of its own. So a number is a set: its bits name the adds in it. An
//! order that explains every reply exists only if the sets form a chain that grows with time.

use super::super::history::{End, Operation, Reply, Request};

/// An operation that has returned, and the adds that its reply shows.
struct Seen<'a> {
    operation: &'a Operation,
    returned: u64,
    set: u64,
    /// Its own bit, if it is an add.
    own: u64,
}

fn own_bit(operation: &Operation) -> u64 {
    match operation.request {
        Request::Add { more } => more as u64,
        _ => 0,
    }
}

/// Checks the operations of one counter.
///
/// # Errors
/// Two operations that no order explains, or one that has an impossible reply.
pub fn check(operations: &[&Operation]) -> Result<(), String> {
    let mut all_seen = Vec::new();
    for &operation in operations {
        let End::Returned { at, reply } = &operation.end else {
            continue;
        };
        let number = match (&operation.request, reply) {
            (Request::Get, Reply::Missing) => "0",
            (Request::Get, Reply::Found { value, .. }) => value,
            (Request::Add { .. }, Reply::Sum(sum)) => sum,
            _ => return Err(format!("no answer to such a request: {operation}")),
        };
        let number: i64 = number
            .parse()
            .map_err(|_| format!("no number: {operation}"))?;
        all_seen.push(Seen {
            operation,
            returned: *at,
            set: number as u64,
            own: own_bit(operation),
        });
    }
    for seen in &all_seen {
        check_adds(seen, operations)?;
        for other in &all_seen {
            let ordered = seen.set & other.set == seen.set || seen.set & other.set == other.set;
            // An add that is in the other's set came before it, with all that the add itself has seen.
            let contains = seen.own & other.set == 0 || seen.set & other.set == seen.set;
            let same = seen.operation.called == other.operation.called;
            let distinct = same || seen.own == 0 || other.own == 0 || seen.set != other.set;
            let grows = seen.returned >= other.operation.called || seen.set & other.set == seen.set;
            if !(ordered && contains && distinct && grows) {
                return Err(format!(
                    "no order explains {} and {}",
                    seen.operation, other.operation
                ));
            }
        }
    }
    Ok(())
}

/// Whether the adds that a reply shows may be there, and those that must be there are.
fn check_adds(seen: &Seen, operations: &[&Operation]) -> Result<(), String> {
    let (mut possible, mut needed) = (0, seen.own);
    for operation in operations {
        if operation.called <= seen.returned && operation.end != End::Failed {
            possible |= own_bit(operation);
        }
        if operation
            .returned()
            .is_some_and(|at| at < seen.operation.called)
        {
            needed |= own_bit(operation);
        }
    }
    if seen.set & !possible != 0 {
        return Err(format!("nobody added what is in it: {}", seen.operation));
    }
    if needed & !seen.set != 0 {
        return Err(format!("an earlier add is missing: {}", seen.operation));
    }
    Ok(())
}
