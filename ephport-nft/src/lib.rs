//! doc
pub mod client;
mod sys;
pub mod uapi;
pub mod wire;
