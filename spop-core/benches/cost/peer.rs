//! A connection with a minimal server around it.

use std::{hint::black_box, sync::Arc};

use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, ConnectionId, Scope, Ticket, Timestamp,
    agent::{Abort, Cancel},
    config::Checked,
};

use super::shapes::{Application, Shape};

/// The bytes of a read at most.
const READ: usize = 16 * 1024;

pub struct Peer {
    agent: Option<AgentReactor>,
    config: Arc<Checked<AgentConfig>>,
    application: Application,
    read: usize,
    inbox: Vec<u8>,
    tickets: Vec<Ticket>,
    pub counts: Counts,
}

/// What has happened.
#[derive(Debug, Default)]
pub struct Counts {
    pub run: usize,
    pub fragments: usize,
    pub refused: usize,
    pub dropped: usize,
    pub superseded: usize,
    pub cancelled: usize,
    pub closed: usize,
    pub sent: usize,
}

impl Peer {
    /// A connection that has received `before`, or one that is not opened yet if there is none.
    pub fn prepare(shape: &Shape, before: &[u8]) -> Self {
        let mut config = AgentConfig::default();
        (shape.config)(&mut config);
        let mut peer = Self {
            agent: None,
            config: Arc::new(config.checked().unwrap()),
            application: shape.application,
            read: READ,
            inbox: Vec::with_capacity(4 << 20),
            tickets: Vec::new(),
            counts: Counts::default(),
        };
        if !before.is_empty() {
            peer.feed(before);
        }
        peer.counts = Counts::default();
        peer.read = shape.read;
        peer
    }

    /// Opens the connection, if it is not open, and reads these bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let now = Timestamp::from_millis(1);
        let config = Arc::clone(&self.config);
        let mut agent =
            self.agent.take().unwrap_or_else(|| AgentReactor::new(config, ConnectionId(1), Timestamp::ZERO));
        let mut used = 0;
        for read in bytes.chunks(self.read) {
            self.inbox.extend_from_slice(read);
            loop {
                let step = agent.on_bytes(now, &self.inbox[used..]);
                let action = step.action;
                match action {
                    Action::RunMessages(notify) => {
                        self.counts.run += 1;
                        for message in notify.messages() {
                            black_box(message.name());
                            for argument in message.args() {
                                black_box(argument);
                            }
                        }
                        self.tickets.push(notify.ticket);
                        let keep = if let Application::Keep(keep) = self.application { keep } else { 0 };
                        if self.tickets.len() > keep {
                            answer(&mut agent, now, &mut self.tickets);
                        }
                    }
                    Action::FragmentArrived(ids) => {
                        self.counts.fragments += 1;
                        for message in agent.arriving(ids).unwrap().new_messages() {
                            black_box(message.name());
                            for argument in message.args() {
                                black_box(argument);
                            }
                        }
                        if self.application == Application::Refuse {
                            agent.abort(now, ids).unwrap();
                        }
                    }
                    Action::AbortFragment(aborted) => match aborted.why {
                        Abort::Peer | Abort::Superseded => self.counts.dropped += 1,
                        _ => self.counts.refused += 1,
                    },
                    Action::CancelMessages(cancelled) => {
                        self.tickets.retain(|ticket| ticket.id() != cancelled.ticket);
                        match cancelled.why {
                            Cancel::Superseded => self.counts.superseded += 1,
                            _ => self.counts.cancelled += 1,
                        }
                    }
                    Action::Established(session) => drop(black_box(session)),
                    Action::Close(closed) => {
                        self.counts.closed += 1;
                        drop(black_box(closed));
                    }
                    Action::Paused | Action::SendFrames | Action::WantBytes { .. } => {
                        used += step.consumed;
                        if matches!(action, Action::Paused) {
                            answer(&mut agent, now, &mut self.tickets);
                        }
                        let waits = agent.outgoing().len();
                        if waits > 0 {
                            self.counts.sent += waits;
                            let _ = agent.on_sent(now, waits).unwrap();
                        }
                        if agent.interest().resume || matches!(action, Action::Paused) {
                            continue;
                        }
                        break;
                    }
                    other => panic!("{other:?}"),
                }
                used += step.consumed;
            }
            if used == self.inbox.len() {
                self.inbox.clear();
                used = 0;
            }
        }
        self.inbox.drain(..used);
        self.agent = Some(agent);
    }
}

fn answer(agent: &mut AgentReactor, now: Timestamp, tickets: &mut Vec<Ticket>) {
    for ticket in tickets.drain(..) {
        let mut actions = Actions::new();
        actions.set_var(Scope::Session, "ip_score", black_box(42_i32));
        agent.acknowledge(now, ticket, &actions).unwrap();
    }
}
