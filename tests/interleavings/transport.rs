//! `src/transport/` for the model checker: the link and the sending side are compiled from their sources.

#[path = "../../src/transport/link/mod.rs"]
pub mod link;
#[path = "../../src/transport/outgoing.rs"]
pub mod outgoing;
pub mod socket;

pub use outgoing::{Outgoing, batch};
pub use simple_dynamo::transport::{Budget, Lines, Received, Share, budget, handshake, suspicion};

pub mod message {
    use std::sync::Arc;

    use serde::Serialize;
    pub use simple_dynamo::transport::message::*;

    use super::Outgoing;

    /// Sends one message on a connection of the model.
    pub fn send<T: Serialize>(connection: &Arc<Outgoing>, message: &T) -> bool {
        connection.send(&line(message))
    }
}
