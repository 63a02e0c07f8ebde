//! Short ways to write histories of one key down. The write of `1` makes the version `v1`.

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

/// The versions of deletes are never asked for, and all alike.
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
