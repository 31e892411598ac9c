//! The agent's side of a connection.

mod action;
mod answer;
mod config;
mod drain;
mod dropped;
mod flight;
mod fragments;
mod handshake;
mod reactor;
mod receive;
mod reply;
mod routes;
mod ticket;

#[cfg(test)]
mod tests;

pub use action::{Abort, Aborted, Action, Cancel, Cancelled, Notify, Session};
pub use config::{AgentConfig, OnFailure, PipeliningPolicy};
pub use drain::DrainTiming;
pub use fragments::{NotArriving, Partial};
pub use reactor::AgentReactor;
pub use reply::{Reply, Watch};
pub use routes::{RouteError, Routes, Unknown};
pub use ticket::{AckError, ConnectionId, NotWaiting, Settled, Ticket, TicketId};
