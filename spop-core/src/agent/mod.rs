//! The agent's side of a connection: the reactor, its configuration, its actions and its errors.

mod action;
mod answer;
mod by_name;
mod config;
mod drain;
mod dropped;
mod end;
mod failure;
mod flight;
mod fragments;
mod handshake;
mod output;
mod reactor;
mod receive;
mod reply;
mod router;
mod state;
mod ticket;
mod timers;

#[cfg(test)]
mod tests;

pub use action::{Abort, Aborted, Action, Cancel, Cancelled, Notify, Session};
pub use by_name::ByName;
pub use config::{AgentConfig, OnFailure, PipeliningPolicy};
pub use drain::DrainTiming;
pub use failure::{BoxError, Failure, FailureKind};
pub use fragments::{NotArriving, Partial};
pub use reactor::AgentReactor;
pub use reply::{Reply, Watch};
pub use router::{Route, Router, Unknown};
pub use ticket::{AckError, ConnectionId, NotWaiting, Settled, Ticket, TicketId};
