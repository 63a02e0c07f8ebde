//! Short ways to write histories of one key down. The write of `1` makes the version `v1`.

use fastrand::Rng;

use super::history::{Current, End, Operation, Reply, Request};

/// One operation on the key `k`: when it was called and when it returned.
pub fn operation(called: u64, returned: u64, request: Request, reply: Reply) -> Operation {
    let end = End::Returned {
        at: returned,
        reply,
    };
    Operation {
        client: called as u32,
        key: "k".into(),
        request,
        called,
        end,
    }
}

pub fn unknown(called: u64, request: Request) -> Operation {
    Operation {
        end: End::Unknown,
        ..operation(called, 0, request, Reply::Missing)
    }
}

/// The write of `1` makes the version `v1`.
pub fn version_of(value: u32) -> String {
    format!("v{value}")
}

pub fn write(value: u32) -> Request {
    Request::Put {
        value: value.to_string(),
    }
}

pub fn swap(expected: Option<u32>, value: u32) -> Request {
    let expected = expected.map(version_of);
    Request::CompareAndSet {
        expected,
        value: value.to_string(),
    }
}

pub fn put(called: u64, returned: u64, value: u32) -> Operation {
    operation(called, returned, write(value), done(value))
}

pub fn done(value: u32) -> Reply {
    Reply::Done {
        version: Some(version_of(value)),
    }
}

pub fn found(value: u32) -> Reply {
    Reply::Found {
        value: value.to_string(),
        version: version_of(value),
    }
}

pub fn get(called: u64, returned: u64, value: u32) -> Operation {
    operation(called, returned, Request::Get, found(value))
}

pub fn missing(called: u64, returned: u64) -> Operation {
    operation(called, returned, Request::Get, Reply::Missing)
}

/// The reply to a delete. All deletes have the same version, since no test asks for it.
pub fn deleted() -> Reply {
    Reply::Done {
        version: Some("gone".into()),
    }
}

pub fn delete(called: u64, returned: u64) -> Operation {
    operation(called, returned, Request::Delete, deleted())
}

pub fn swapped(called: u64, returned: u64, expected: Option<u32>, value: u32) -> Operation {
    operation(called, returned, swap(expected, value), done(value))
}

pub fn conflict(called: u64, returned: u64, expected: Option<u32>, current: Current) -> Operation {
    let request = swap(expected, 1000 + called as u32);
    operation(called, returned, request, Reply::Conflict { current })
}

pub fn current(state: Option<u32>) -> Current {
    state.map_or(Current::Missing, |value| {
        Current::Version(version_of(value))
    })
}

/// What 20 clients see of a real register of 20 keys, with one write of fifty unanswered.
pub fn by_chance(seed: u64, operations: u32) -> Vec<Operation> {
    let mut rng = Rng::with_seed(seed);
    let mut register = [None; 20];
    let mut busy_until = [0; 20];
    let mut history = Vec::new();
    for number in 1..=operations {
        // The moments of effect are 100 apart, and calls and returns up to 2000 around them.
        let effect = u64::from(number) * 100 + 10_000;
        let client = rng.usize(..20);
        let called = (effect - rng.u64(1..2_000)).max(busy_until[client] + 1);
        let returned = effect + rng.u64(1..2_000);
        if called >= effect {
            continue;
        }
        busy_until[client] = returned;
        let key = rng.usize(..20);
        let state: &mut Option<u32> = &mut register[key];
        let (before, kind) = (*state, rng.u8(..10));
        let (request, reply) = match (kind, before) {
            (0..4, None) => (Request::Get, Reply::Missing),
            (0..4, Some(value)) => {
                let (value, version) = (value.to_string(), version_of(value));
                (Request::Get, Reply::Found { value, version })
            }
            (4, None) => (Request::Delete, Reply::Missing),
            (4, Some(_)) => (Request::Delete, Reply::Done { version: None }),
            (5..8, _) => (write(number), done(number)),
            (8, _) => (swap(before, number), done(number)),
            _ => {
                let current = before.map_or(Current::Missing, |v| Current::Version(version_of(v)));
                (swap(Some(0), number), Reply::Conflict { current })
            }
        };
        match (&request, &reply) {
            (Request::Delete, Reply::Done { .. }) => *state = None,
            (_, Reply::Done { .. }) => *state = Some(number),
            _ => {}
        }
        let mut operation = operation(called, returned, request, reply);
        (operation.client, operation.key) = (client as u32, key.to_string());
        if kind >= 4 && rng.u8(..50) == 0 {
            operation.end = End::Unknown;
        }
        history.push(operation);
    }
    history
}
