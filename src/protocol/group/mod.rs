//! Ordered groups of messages. A group is one key, and to say something is a change of it.
//!
//! The order of a group's messages is the order of the chosen states of the key `#name`. So it is the same
//! everywhere, and nobody hands out numbers: two votes fix each state, and any replica may propose the
//! next one. Failover, repair, recovery and durability are those of the register.
//!
//! # How it is stored
//!
//! The key `#name` holds a [`Group`] as JSON: the number of the next message, the newest messages, and what
//! is known of the senders. Messages that are older are on pages of 32. [Page](Page) k is at the key
//! `#name/(k mod 1024)`, so the pages form a ring, and a group never takes more space than that. A page that
//! was stored never changes, until the page 1024 after it takes its place.
//!
//! A key that begins with `#` is placed by its part before the first `/`
//! ([`Position::of_key`](super::ring::Position::of_key)). So a group and its pages have the same replicas, and
//! work or stop together.
//!
//! # How a message is said
//!
//! [`Say`] appends up to 32 messages. Its [answer](Said) tells what became of each. A message may have a
//! [sender](Sender), which numbers its messages from 1: then it is appended at most once and in order,
//! through whichever nodes it is sent again. A message without one is appended once for each request.
//!
//! Whoever hears that a page has filled, or that `open` is full, stores the page with [`put_page`] and says so
//! with the next [`Say`], which cuts it off. Nobody leads, and any node can do it.
//!
//! # How a message is read
//!
//! Members of a group are told of new messages by their node, which hears of them by pushes. A push may be
//! lost, doubled or late: [`HoldBack`] puts them in order, [`Delivery`] heals what is missing, and a
//! [`Reader`] reads what is older.

mod delivery;
mod gather;
mod hold_back;
mod name;
mod reader;
mod say;
mod sizes;
mod state;

pub use delivery::Delivery;
pub use gather::{Gather, Settled};
pub use hold_back::HoldBack;
pub use name::{GroupName, MOST_NUMBER, Sender, SenderId, check_nick, check_text, is_of_group};
pub use reader::{Item, ReadStep, Reader};
pub use say::{Fate, Said, Say, Saying, put_page, say, trim, trim_page};
#[cfg(debug_assertions)]
pub use sizes::set_sizes;
pub use sizes::{Sizes, sizes};
pub use state::{Group, MOST_MESSAGE_BYTES, Message, Page, last_of_page, page_of};
