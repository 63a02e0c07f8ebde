//! The subcommands of `dynamo`.

pub mod arguments;
pub mod bench;
pub mod node;
pub mod nodes;
pub mod shell;
mod shutdown;
pub mod status;
mod ticker;

pub use arguments::{Arguments, UsageError};
