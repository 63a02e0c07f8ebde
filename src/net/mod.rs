//! Sockets: lines in with a bound, bytes out in batches.

pub mod lines;
pub mod outgoing;

pub use lines::{Lines, Received};
pub use outgoing::{Outgoing, batch};
