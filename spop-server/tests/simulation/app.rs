//! The handler of an agent: answers at once, later, in parts, fails, panics, keeps its requests, or never answers.

use std::{cell::RefCell, collections::BTreeSet, panic::resume_unwind, rc::Rc, time::Duration};

use spop_core::{
    Actions, ConnectionId, Scope, Status, Timestamp,
    agent::{Failure, FailureKind, Partial, Reply, TicketId, Watch},
    frame::Capabilities,
};
use spop_server::{Cancellation, Cancelled, Handler, Outcome, Request, Responder};

use crate::{
    kept::{Kept, Store},
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
    /// The connections whose requests were answered at this time.
    pub replied: BTreeSet<ConnectionId>,
    /// Requests of its own.
    pub store: Store,
    pub cancelled: usize,
    /// Connections that an answer disconnects now.
    pub disconnects: Vec<ConnectionId>,
    /// Those that an answer was to disconnect at some time.
    pub disconnected: BTreeSet<ConnectionId>,
    /// Calls, and those of them that answered at once.
    pub calls: usize,
    pub at_once: usize,
    pub released: usize,
    /// Answers that were given, and those of them whose requests were superseded before they could be sent.
    pub given: usize,
    pub crossed: usize,
    /// Cancellations of requests that have ended.
    pub ended: Vec<Cancellation>,
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
        self.calls += 1;
        let conn = request.connection().id();
        let name = request.messages().iter().next().unwrap().name().to_vec();
        let payload = request.messages().payload().len();
        if let Err(fault) = self.store.admit(conn, payload, &self.pending) {
            self.ledger.borrow_mut().faults.push(fault);
        }
        self.given += usize::from(name == b"large");
        match name.as_slice() {
            b"hoard" => return self.hoard(request, payload),
            b"copy" => {
                self.given += 1;
                request.into_owned().each().for_each(drop);
                return Actions::new().into();
            }
            b"large" => {
                return Actions::new().set(Scope::Transaction, "x", "x".repeat(15_000).as_str()).into();
            }
            b"refuse" => self.ledger.borrow_mut().faults.push("a request that was refused is handled".into()),
            _ => {}
        }
        let n: u64 = request.arg("n").unwrap();
        let decision = self.rng.pick(&self.decisions);
        let session = request.session();
        let fragments = session.peer_capabilities.contains(Capabilities::FRAGMENTATION);
        let too_long = decision == Decision::Long && session.max_frame_size < 4_000;
        let unsendable = (decision == Decision::Parts || too_long) && !fragments;
        // A failure is its answer.
        let replied = !matches!(
            decision,
            Decision::Later
                | Decision::Slow
                | Decision::Keep
                | Decision::Guard
                | Decision::Never
                | Decision::Parts
                | Decision::Disconnect
        );
        self.at_once += usize::from(decision == Decision::Now);
        let acks = matches!(decision, Decision::Now | Decision::Long | Decision::Copy | Decision::Abort);
        self.given += usize::from(acks);
        let replied = replied.then_some(self.now);
        let handled = Handled { node: self.node, conn, at: self.now, decision, replied, unsendable };
        self.ledger.borrow_mut().handle(n, handled);
        // Another answer may be given while this handler runs: also that to a request which this one supersedes.
        let namesake = self.pending.iter().position(|it| it.responder.ids() == request.ids());
        if let Some(index) = namesake.filter(|_| self.rng.permille(500)) {
            let older = self.pending[index].responder.connection();
            let shared = older.session().shared_engine();
            let supersedes = shared.is_some() && shared == session.shared_engine() && older.id() != conn;
            self.crossed += usize::from(supersedes && decision.defers());
            self.reply(index);
        } else if self.rng.permille(100) && !self.pending.is_empty() {
            let index = self.rng.below(self.pending.len());
            self.reply(index);
        }
        match decision {
            Decision::Now => actions(n).into(),
            Decision::Long => long_actions(n).into(),
            Decision::Copy => {
                drop(request.into_owned());
                actions(n).into()
            }
            Decision::Later | Decision::Slow | Decision::Never => self.defer(request, n, decision),
            Decision::Keep | Decision::Guard => {
                let reply_at = self.now + self.rng.up_to(Duration::from_millis(400));
                let drop_at = reply_at + self.rng.up_to(Duration::from_secs(2));
                let mut kept = Kept::new(request, payload, Some((n, reply_at)), drop_at);
                if decision == Decision::Guard {
                    kept.drop_request();
                }
                self.store.kept.push(kept);
                Outcome::Later
            }
            Decision::Parts => {
                request.send_part(part());
                if self.rng.permille(500) {
                    return self.defer(request, n, decision);
                }
                self.ledger.borrow_mut().replied(n, self.now);
                self.given += 1;
                actions(n).into()
            }
            Decision::Fail => Err::<Actions, _>("no").into(),
            Decision::FailWith => failed_with(actions(n)),
            Decision::FailLong => {
                failed_with(Actions::new().set(Scope::Transaction, "x", "x".repeat(50_000).as_str()))
            }
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

    fn watch(&mut self, arriving: Partial<'_>) -> Watch {
        match arriving.messages().next().map(|message| message.name()) {
            Some(b"refuse") => Watch::Refuse,
            Some(b"boom") => resume_unwind(Box::new("boom".repeat(500))),
            _ => Watch::Continue,
        }
    }

    fn cancel(&mut self, _request: TicketId, _why: Cancelled) {
        self.cancelled += 1;
    }

    fn release_memory(&mut self) {
        self.released += 1;
    }
}

impl App {
    pub fn new(
        node: usize,
        ledger: &Rc<RefCell<Ledger>>,
        rng: Rng,
        decisions: &[Decision],
        store: Store,
    ) -> Self {
        Self {
            node,
            ledger: Rc::clone(ledger),
            rng,
            now: Timestamp::ZERO,
            decisions: decisions.to_vec(),
            pending: Vec::new(),
            replied: BTreeSet::new(),
            store,
            cancelled: 0,
            disconnects: Vec::new(),
            disconnected: BTreeSet::new(),
            calls: 0,
            at_once: 0,
            released: 0,
            given: 0,
            crossed: 0,
            ended: Vec::new(),
        }
    }

    fn defer(&mut self, request: Request<'_>, n: u64, decision: Decision) -> Outcome {
        let due = match decision {
            Decision::Never => self.now + Duration::from_secs(1_000_000_000),
            // Later than HAProxy waits, and before the server gives up.
            Decision::Slow => {
                self.now + Duration::from_millis(1_500) + self.rng.up_to(Duration::from_secs(5))
            }
            _ => self.now + self.rng.up_to(Duration::from_millis(400)),
        };
        request.defer(|responder| self.pending.push(Pending { due, n, decision, responder }))
    }

    /// Keeps a request for some time, and answers nothing.
    fn hoard(&mut self, request: Request<'_>, payload: usize) -> Outcome {
        let drop_at = self.now + Duration::from_secs(1) + self.rng.up_to(Duration::from_secs(2));
        self.store.kept.push(Kept::new(request, payload, None, drop_at));
        Outcome::Later
    }

    fn reply(&mut self, index: usize) {
        let Pending { n, decision, responder, .. } = self.pending.swap_remove(index);
        self.replied.insert(responder.connection().id());
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
                self.ledger.borrow_mut().replied(n, self.now);
                self.given += usize::from(!responder.is_cancelled());
                let long = responder.session().max_frame_size > 4_000 && self.rng.permille(300);
                responder.reply(if long { long_actions(n) } else { actions(n) });
            }
        }
    }

    /// Gives all answers now that are due soon.
    pub fn burst(&mut self, now: Timestamp) {
        let soon = now + Duration::from_millis(400);
        self.pending.iter_mut().filter(|it| it.due < soon).for_each(|it| it.due = now);
    }

    /// When the next answer is given, or the next request dropped.
    pub fn next_due(&self) -> Option<Timestamp> {
        let pending = self.pending.iter().map(|pending| pending.due);
        pending.chain(self.store.kept.iter().map(Kept::next_due)).min()
    }

    /// Gives the answers that are due, and gives up what is not needed any more.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = now;
        self.pending.retain(|pending| !pending.responder.is_cancelled());
        while let Some(index) = self.pending.iter().position(|pending| pending.due <= now) {
            self.reply(index);
        }
        self.ended.extend(self.store.drop_due(now));
    }
}

pub fn actions(n: u64) -> Actions {
    Actions::new().set(Scope::Transaction, "n", n)
}

fn long_actions(n: u64) -> Actions {
    actions(n).set(Scope::Transaction, "x", "x".repeat(3_000).as_str())
}

fn part() -> Actions {
    Actions::new().set(Scope::Transaction, "part", true)
}

fn failed_with(actions: Actions) -> Outcome {
    let mut failure = Failure::new(FailureKind::HandlerFailed, "no");
    failure.answer = Some(actions.into());
    Reply::Fail(failure).into()
}

fn disconnect() -> Reply {
    Reply::Disconnect { status: Status(42), message: "go".into() }
}
