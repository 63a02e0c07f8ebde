//! The subcommands of `dynamo`.

pub mod arguments;
pub mod bench;
mod ending;
pub mod node;
pub mod nodes;
pub mod shell;
pub mod status;

pub use arguments::{Arguments, UsageError};
