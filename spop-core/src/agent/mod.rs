//! The agent's side of a connection: the reactor, its configuration, its actions and its errors.

mod action;
mod answer;
mod config;
mod drain;
mod dropped;
mod end;
mod flight;
mod fragments;
mod handshake;
mod output;
mod reactor;
mod receive;
mod reply;
mod routes;
mod state;
mod ticket;
mod timers;

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
