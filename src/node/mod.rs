pub mod coordinator;
pub mod memory;
pub mod router;
