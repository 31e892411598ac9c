//! The handler of an agent: answers at once, later, in parts, fails, panics, keeps its requests, or never answers.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    rc::Rc,
    time::Duration,
};

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
    /// Requests wait, and their answers are long.
    pub crowded: bool,
    /// The server queues a few long answers at most on a connection.
    pub short_queue: bool,
    pub cancelled: usize,
    /// Connections that an answer disconnects now.
    pub disconnects: Vec<ConnectionId>,
    /// Those that an answer was to disconnect at some time.
    pub disconnected: BTreeSet<ConnectionId>,
    /// Calls, and those of them that answered at once.
    pub calls: usize,
    pub at_once: usize,
    pub released: usize,
    /// Payloads that it has refused.
    pub refused: u64,
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
        let decision = if self.crowded { Decision::Later } else { decision };
        let session = request.session();
        let fragments = session.peer_capabilities.contains(Capabilities::FRAGMENTATION);
        let too_long = decision == Decision::Long && session.max_frame_size < 4_000;
        let in_fragments = decision == Decision::Parts || too_long;
        let unsendable = in_fragments && !fragments;
        // They exceed a short queue, if others are in it.
        let may_exceed = in_fragments && self.short_queue;
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
        let handled =
            Handled { node: self.node, conn, at: self.now, decision, replied, unsendable, may_exceed };
        self.ledger.borrow_mut().handle(n, handled);
        self.answer_another(&request, decision);
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
            Some(b"refuse") => {
                self.refused += 1;
                Watch::Refuse
            }
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
            crowded: false,
            short_queue: false,
            cancelled: 0,
            disconnects: Vec::new(),
            disconnected: BTreeSet::new(),
            calls: 0,
            at_once: 0,
            released: 0,
            refused: 0,
            given: 0,
            crossed: 0,
            ended: Vec::new(),
        }
    }

    /// Another answer may be given while a handler runs: also that to a request which this one supersedes.
    fn answer_another(&mut self, request: &Request<'_>, decision: Decision) {
        let (session, conn) = (request.session(), request.connection().id());
        let superseded = self.pending.iter().position(|it| {
            let shared = it.responder.session().shared_engine();
            let of_engine = shared.is_some() && shared == session.shared_engine();
            of_engine && it.responder.ids() == request.ids() && it.responder.connection().id() != conn
        });
        if let Some(index) = superseded.filter(|_| self.rng.permille(900)) {
            self.crossed += usize::from(decision.defers());
            self.reply(index);
        } else if self.rng.permille(100) && !self.pending.is_empty() {
            let index = self.rng.below(self.pending.len());
            self.reply(index);
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
                let long = self.rng.permille(300) || self.crowded;
                let long = long && responder.session().max_frame_size > 4_000;
                responder.reply(if long { long_actions(n) } else { actions(n) });
            }
        }
    }

    /// Gives all answers now that are due soon.
    pub fn burst(&mut self, now: Timestamp) {
        let soon = now + Duration::from_millis(400);
        self.pending.iter_mut().filter(|it| it.due < soon).for_each(|it| it.due = now);
    }

    /// The connection with the most requests that wait.
    pub fn busiest(&self) -> Option<ConnectionId> {
        let mut waiting = BTreeMap::<_, usize>::new();
        for pending in &self.pending {
            *waiting.entry(pending.responder.connection().id()).or_default() += 1;
        }
        waiting.into_iter().max_by_key(|(_, count)| *count).map(|(id, _)| id)
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
