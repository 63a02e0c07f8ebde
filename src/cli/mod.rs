//! The subcommands of `dynamo`.

pub mod arguments;
pub mod bench;
mod ending;
pub mod node;
pub mod nodes;
pub mod shell;
pub mod status;
mod ticker;

pub use arguments::{Arguments, UsageError};
