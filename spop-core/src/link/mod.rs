//! What both reactors share: connection phases, the table of legal frames, framing, the outgoing queue, reassembly and
//! fragmentation, timers, and the close sequence.
//!
//! Public are the types that a user of either reactor meets: what a driver is asked to do, why a session ended, and what
//! the peer or the driver did wrong.

mod closing;
mod due;
mod ending;
mod input;
mod interest;
mod memory;
mod misuse;
mod outbox;
mod output;
mod payloads;
mod reason;
mod reassembly;
mod refused;
mod sending;
mod state;
mod table;
mod violation;

#[cfg(test)]
mod tests;

pub(crate) use closing::{Closing, Stage};
pub use closing::{Layers, Progress};
pub(crate) use due::{Due, Earliest, TIMERS};
pub(crate) use ending::MESSAGE_MAX;
pub(crate) use input::{Input, Next};
pub use interest::{Interest, Layer, Step, Timer};
pub use misuse::Misuse;
pub use reason::{CloseReason, Closed, Initiator, Lost};
pub(crate) use reassembly::{Begun, Continued};
pub(crate) use state::Link;
pub use table::{Illegal, Phase, Side, Verdict, judge};
pub use violation::Violation;
