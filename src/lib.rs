//! # A simplified Amazon Dynamo that is linearizable and available at the same time
pub mod bytes;
pub mod clock;
pub mod error;
pub mod register;
pub mod ring;
pub mod rules;
