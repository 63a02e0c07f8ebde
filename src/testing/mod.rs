//! What tests take hold of. In a release all of it is constant.

pub mod faults;
pub mod rules;
