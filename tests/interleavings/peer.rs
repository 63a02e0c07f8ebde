//! What the link finds in `src/peer/`.

#[path = "../../src/peer/link/mod.rs"]
pub mod link;

pub use simple_dynamo::peer::{acquaintance, suspicion};

pub mod message {
    use std::sync::Arc;

    use serde::Serialize;
    pub use simple_dynamo::peer::message::*;

    use crate::net::Outgoing;

    /// Sends one message on a connection of the model.
    pub fn send<T: Serialize>(connection: &Arc<Outgoing>, message: &T) -> bool {
        connection.send(&line(message))
    }
}
