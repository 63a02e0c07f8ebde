//! Peers: one multiplexed connection per pair of nodes and direction.
//!
//! A node asks on the connection that it opened ([`link`]) and answers on those that others
//! opened ([`inbound`]). What is said is in [`message`], when a peer is suspected in
//! [`suspicion`], and which process may be a peer at all in [`acquaintance`].

pub mod acquaintance;
pub mod inbound;
pub mod link;
pub mod message;
pub mod suspicion;

pub use inbound::{Respond, Service};
pub use link::{Answer, Link};
pub use message::{Reply, Request};
