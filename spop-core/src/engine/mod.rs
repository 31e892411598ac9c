//! The engine's side of a connection: HAProxy's.

mod action;
mod ask;
mod config;
mod end;
mod error;
mod handshake;
mod pending;
mod pool;
mod reactor;
mod receive;
mod section;
mod stats;
mod stream;
#[cfg(test)]
mod tests;
mod vars;

pub use action::{Answer, Ended, EngineAction, Failure, UnclaimedAck};
pub use config::{EngineConfig, Habits, OnError, StreamIds};
pub use error::{EngineError, NotifyError};
pub use pending::NotifyId;
pub use pool::{AgentFailure, AskError, Pool, PoolAction, PoolConfig, RequestId};
pub use reactor::EngineReactor;
pub use section::AgentSection;
pub use stats::{Load, LogLine, Occasion, ProcessTimes, Times};
pub use stream::{EventEnd, SkippedEvent, SpoeStream};
pub use vars::{Sample, VarRules, Vars};
