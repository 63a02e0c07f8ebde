//! Switches for tests. In a release all of them are constants.

pub mod faults;
pub mod rules;
