//! The subcommands of `dynamo`.

pub mod arguments;
pub mod bench;
pub mod node;
pub mod nodes;
pub mod shell;
pub mod status;

pub use arguments::{Arguments, UsageError};
