//! Connections between HAProxy and agents, as the segments of TCP that pass: the frames, what is illegal in them, statistics.
//!
//! [`Connections`] gets each [`Segment`], whether it was captured or is relayed, and tells each [`Event`]; [`Printer`] shows
//! events.

mod connections;
mod direction;
mod event;
mod filter;
mod flights;
mod fragments;
mod segment;
mod session;
mod show;
mod stats;
mod stream;

pub(crate) use self::{
    connections::{Connections, Counts, proxy_header},
    direction::{BEGIN, frame_type},
    event::{About, Event, What},
    filter::{Filter, frame_type_by_name},
    segment::{NoSegment, Segment},
    session::{Happened, Session, direction},
    show::Printer,
};
