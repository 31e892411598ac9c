//! HAProxy's side of a connection: the engine's reactor, its configuration and its errors.

mod action;
mod ask;
mod config;
mod end;
mod error;
mod handshake;
mod pending;
pub mod pool;
mod reactor;
mod receive;
#[cfg(test)]
mod tests;

pub use action::{Answer, Ended, EngineAction, Failure, UnclaimedAck};
pub use config::{EngineConfig, OnError, Profile, StreamIds};
pub use error::{EngineError, NotifyError};
pub use pending::NotifyId;
pub use reactor::EngineReactor;
