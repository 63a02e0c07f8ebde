//! Switches for tests. In a release all of them are constants.

pub mod faults;
pub mod messages;
pub mod rules;
