//! # A simplified Amazon Dynamo that is linearizable and available at the same time
pub mod bytes;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod error;
pub mod net;
pub mod node;
pub mod peer;
pub mod register;
pub mod ring;
pub mod rules;
pub mod server;
pub mod storage;

/// Locks; a thread that panicked with the lock held has left the data whole or ended the process.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
