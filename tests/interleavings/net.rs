//! What the link finds in `src/net/`: the sending side of a connection is the store's own.

#[path = "../../src/net/outgoing.rs"]
pub mod outgoing;
pub mod socket;

pub use outgoing::{Outgoing, batch};
pub use simple_dynamo::net::{Budget, Lines, Received, budget};
