//! The handler of an agent: answers at once, later, in parts, fails, panics, or never answers.

use std::{cell::RefCell, collections::BTreeSet, panic::resume_unwind, rc::Rc, time::Duration};

use spop_core::{
    Actions, ConnectionId, Scope, Status, Timestamp,
    agent::{Reply, TicketId},
    frame::Capabilities,
};
use spop_server::{Cancelled, Handler, Outcome, Request, Responder};

use crate::{
    ledger::{Decision, Handled, Ledger},
    rng::Rng,
};

pub struct App {
    pub node: usize,
    pub ledger: Rc<RefCell<Ledger>>,
    pub rng: Rng,
    pub now: Timestamp,
    /// What handlers do with requests.
    pub decisions: Vec<Decision>,
    pub pending: Vec<Pending>,
    pub cancelled: usize,
    /// Connections that an answer disconnects now.
    pub disconnects: Vec<ConnectionId>,
    /// Those that an answer was to disconnect at some time.
    pub disconnected: BTreeSet<ConnectionId>,
}

/// A request that is answered later.
pub struct Pending {
    pub due: Timestamp,
    pub n: u64,
    pub decision: Decision,
    pub responder: Responder,
}

impl Handler for App {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        let n: u64 = request.arg("n").unwrap();
        let decision = self.rng.pick(&self.decisions);
        let fragments = request.session().peer_capabilities.contains(Capabilities::FRAGMENTATION);
        let unsendable = decision == Decision::Parts && !fragments;
        let conn = request.connection().id();
        // A failure is its answer.
        let replied =
            !matches!(decision, Decision::Later | Decision::Never | Decision::Parts | Decision::Disconnect);
        let handled = Handled { node: self.node, conn, at: self.now, decision, replied, unsendable };
        self.ledger.borrow_mut().handle(n, handled);
        // Another answer may be given while this handler runs.
        if self.rng.permille(100) && !self.pending.is_empty() {
            let index = self.rng.below(self.pending.len());
            self.reply(index);
        }
        match decision {
            Decision::Now => {
                self.ledger.borrow_mut().replied(n);
                actions(n).into()
            }
            Decision::Later | Decision::Never => self.defer(request, n, decision),
            Decision::Parts => {
                request.send_part(part());
                if self.rng.permille(500) {
                    return self.defer(request, n, decision);
                }
                self.ledger.borrow_mut().replied(n);
                actions(n).into()
            }
            Decision::Fail => Err::<Actions, _>("no").into(),
            Decision::Panic => resume_unwind(Box::new("boom")),
            Decision::PanicLater => request.defer(|_responder| resume_unwind(Box::new("boom"))),
            Decision::Dropped => request.defer(drop),
            Decision::Abort => Reply::Abort.into(),
            Decision::Disconnect if self.rng.permille(500) => self.defer(request, n, decision),
            Decision::Disconnect => {
                self.disconnects.push(conn);
                self.disconnected.insert(conn);
                disconnect().into()
            }
        }
    }

    fn cancel(&mut self, _request: TicketId, _why: Cancelled) {
        self.cancelled += 1;
    }
}

impl App {
    fn defer(&mut self, request: Request<'_>, n: u64, decision: Decision) -> Outcome {
        let due = match decision {
            Decision::Never => self.now + Duration::from_secs(1_000_000_000),
            _ => self.now + self.rng.up_to(Duration::from_millis(400)),
        };
        request.defer(|responder| self.pending.push(Pending { due, n, decision, responder }))
    }

    fn reply(&mut self, index: usize) {
        let Pending { n, decision, responder, .. } = self.pending.swap_remove(index);
        match decision {
            Decision::Never => drop(responder),
            Decision::Disconnect => {
                if !responder.is_cancelled() {
                    let conn = responder.connection().id();
                    self.disconnects.push(conn);
                    self.disconnected.insert(conn);
                }
                responder.reply(disconnect());
            }
            _ => {
                if decision == Decision::Parts && self.rng.permille(500) {
                    responder.send_part(part());
                }
                self.ledger.borrow_mut().replied(n);
                responder.reply(actions(n));
            }
        }
    }

    /// When the next answer is given.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.pending.iter().map(|pending| pending.due).min()
    }

    /// Gives the answers that are due, and gives up what is not needed any more.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = now;
        self.pending.retain(|pending| !pending.responder.is_cancelled());
        while let Some(index) = self.pending.iter().position(|pending| pending.due <= now) {
            self.reply(index);
        }
    }
}

fn actions(n: u64) -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "n", n);
    actions
}

fn part() -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "part", true);
    actions
}

fn disconnect() -> Reply {
    Reply::Disconnect { status: Status(42), message: "go".into() }
}
