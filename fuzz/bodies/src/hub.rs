//! Many connections of several engines, whose answers may be sent on any connection of their engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::input::Input;
use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, ConnectionId, Scope, Settled, Status, Ticket, Timestamp,
    frame::{AckAction, AckActions, Capabilities, Frame, FrameType, Ids},
    hub::{Connections, Held, Hub},
    notation,
    testing::Inbox,
};

const NOW: Timestamp = Timestamp::ZERO;
const ENGINES: [&str; 3] = ["a", "b", "c"];
const MAX_ORPHANS: usize = 3;

struct Net {
    reactors: Reactors,
    /// The engine of a connection.
    engines: BTreeMap<ConnectionId, usize>,
    hub: Hub,
    tickets: Vec<(Ticket, usize)>,
    /// The current request of each engine and identifiers: the last.
    newest: BTreeMap<(usize, Ids), usize>,
    /// The engine of each request, and its identifiers.
    asked: Vec<(usize, Ids)>,
    /// Requests that were cancelled, and must not be answered any more.
    cancelled: BTreeSet<usize>,
    /// The queued answers of each connection.
    queued: BTreeMap<ConnectionId, BTreeSet<usize>>,
    answered: BTreeSet<usize>,
}

#[derive(Default)]
struct Reactors(BTreeMap<ConnectionId, AgentReactor>);

impl Connections for Reactors {
    fn get(&mut self, connection: ConnectionId) -> Option<&mut AgentReactor> {
        self.0.get_mut(&connection)
    }
}

/// No answer goes to another engine, none is given twice or after its request was superseded, all queued answers are sent, and
/// the memory of the hub is bounded.
pub fn hub(data: &[u8]) {
    let mut input = Input::new(data);
    let mut net = Net {
        reactors: Reactors::default(),
        engines: BTreeMap::new(),
        hub: Hub::new(MAX_ORPHANS),
        tickets: Vec::new(),
        newest: BTreeMap::new(),
        asked: Vec::new(),
        cancelled: BTreeSet::new(),
        queued: BTreeMap::new(),
        answered: BTreeSet::new(),
    };
    for id in 0..4 {
        net.connect(ConnectionId(id), usize::from(id == 3));
    }
    let mut next = 4;
    let mut steps = 0;
    while !input.is_empty() && steps < 300 {
        steps += 1;
        let what = input.byte();
        let target = input.byte();
        match what % 16 {
            0 => {
                net.connect(ConnectionId(next), usize::from(target) % ENGINES.len());
                next += 1;
            }
            1..=6 => net.ask(target, Ids::new(u64::from(what >> 4 & 3), 1)),
            7..=11 => net.answer(target, if what >= 240 { 400 } else { 1 }),
            12 => net.send(target),
            13 => net.leave(target),
            14 => net.end(target),
            _ => net.abort(target),
        }
        net.promises();
    }
    while !net.tickets.is_empty() {
        net.answer(0, 1);
    }
    while !net.reactors.0.is_empty() {
        net.send(0);
        net.leave(0);
    }
    assert_eq!((net.hub.engines(), net.hub.waiting()), (0, 0));
}

impl Net {
    fn pick(&self, target: u8) -> Option<ConnectionId> {
        let count = self.reactors.0.len();
        self.reactors.0.keys().nth(usize::from(target) % count.max(1)).copied()
    }

    fn connect(&mut self, id: ConnectionId, engine: usize) {
        if self.reactors.0.len() >= 12 {
            return;
        }
        let capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
        // Complete frames are sent: `send` decodes them.
        let mut config = AgentConfig::default();
        (config.capabilities, config.max_frame_size) = (capabilities, 256);
        let mut reactor =
            AgentReactor::new(Arc::new(config.checked().expect("a configuration that can work")), id, NOW);
        let hello = notation::parse_bytes(&format!(
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:1000 \
             capabilities=string:\"pipelining,async\" engine-id=string:{}",
            ENGINES[engine]
        ));
        let mut inbox = Inbox::from(&hello.expect("a HELLO")[..]);
        let Action::Established(session) = inbox.feed(|input| reactor.on_bytes(NOW, input)) else {
            panic!("no session")
        };
        assert!(self.hub.join(id, &session));
        let len = reactor.outgoing().len();
        let _ = reactor.on_sent(NOW, len);
        self.reactors.0.insert(id, reactor);
        self.engines.insert(id, engine);
    }

    fn ask(&mut self, target: u8, ids: Ids) {
        let Some(id) = self.pick(target) else { return };
        self.frame(id, &format!("NOTIFY fin {} {} m", ids.stream, ids.frame), ids);
    }

    fn abort(&mut self, target: u8) {
        let Some(id) = self.pick(target) else { return };
        let Some(ids) =
            self.tickets.iter().map(|(ticket, _)| ticket).find(|ticket| ticket.connection() == id)
        else {
            return;
        };
        let ids = ids.ids();
        self.frame(id, &format!("UNSET fin,abort {} {}", ids.stream, ids.frame), ids);
    }

    /// The peer sends a frame.
    fn frame(&mut self, id: ConnectionId, sentence: &str, ids: Ids) {
        let mut inbox = Inbox::from(&notation::parse_bytes(sentence).expect("a sentence")[..]);
        let engine = self.engines[&id];
        loop {
            let reactor = self.reactors.0.get_mut(&id).expect("it lives");
            if !reactor.interest().read {
                return;
            }
            match inbox.feed(|input| reactor.on_bytes(NOW, input)) {
                Action::RunMessages(notify) => {
                    let number = self.asked.len();
                    self.asked.push((engine, ids));
                    if let Some(older) = self.newest.insert((engine, ids), number) {
                        self.cancelled.insert(older);
                    }
                    if let Held::Supersedes(other, ticket) = self.hub.hold(NOW, &notify.ticket) {
                        assert_eq!(self.engines[&other], engine, "supersedes across engines");
                        if let Some(reactor) = self.reactors.0.get_mut(&other) {
                            let _ = reactor.release(NOW, ticket);
                        }
                    }
                    self.tickets.push((notify.ticket, number));
                }
                Action::CancelMessages(cancelled) => {
                    let of = |(ticket, _): &&(Ticket, usize)| {
                        ticket.connection() == id && ticket.id() == cancelled.ticket
                    };
                    if let Some((_, number)) = self.tickets.iter().find(of) {
                        self.cancelled.insert(*number);
                    }
                    self.hub.cancel(id, cancelled.ids, cancelled.ticket);
                }
                Action::AbortFragment(_) => {}
                Action::SendFrames | Action::WantBytes { .. } | Action::Paused => return,
                Action::Close(_) => {
                    self.hub.leave(id);
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// A ticket is answered. An answer that does not fit is a failure.
    fn answer(&mut self, target: u8, len: usize) {
        if self.tickets.is_empty() {
            return;
        }
        let (ticket, number) = self.tickets.swap_remove(usize::from(target) % self.tickets.len());
        let (engine, ids) = self.asked[number];
        assert_eq!(ticket.ids(), ids);
        let mut actions = Actions::new();
        actions.set_var(Scope::Transaction, "n", number as u64);
        for _ in 1..len {
            actions.unset_var(Scope::Transaction, "x");
        }
        match self.hub.settle(NOW, ticket, &actions, &mut self.reactors) {
            Ok((Settled::Queued | Settled::Late { .. }, target)) => {
                let target = target.expect("it is queued somewhere");
                assert_eq!(self.engines[&target], engine, "an answer crosses engines");
                assert!(!self.cancelled.contains(&number), "answers a NOTIFY that was cancelled");
                assert!(self.answered.insert(number), "a second answer");
                self.queued.entry(target).or_default().insert(number);
            }
            Ok((Settled::Dropped, target)) => assert!(target.is_none() || self.cancelled.contains(&number)),
            Ok((other, _)) => panic!("a new way to settle: {other:?}"),
            Err((target, error)) => {
                assert_eq!(self.engines[&target], engine, "an answer crosses engines");
                let reactor = self.reactors.0.get_mut(&target).expect("it lives");
                assert!(reactor.fail(NOW, error.into_ticket()).is_ok());
            }
        }
    }

    /// A connection sends its outgoing bytes.
    fn send(&mut self, target: u8) {
        let Some(id) = self.pick(target) else { return };
        let reactor = self.reactors.0.get_mut(&id).expect("it lives");
        let out = reactor.outgoing().to_vec();
        let _ = reactor.on_sent(NOW, out.len());
        let mut queued = self.queued.remove(&id).unwrap_or_default();
        let mut rest = &out[..];
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let (frame, after) = after.split_at(u32::from_be_bytes(*len) as usize);
            let frame = Frame::decode(frame).expect("a frame");
            if frame.header.frame_type == FrameType::Ack && !frame.payload.is_empty() {
                let actions = AckActions::decode(frame.payload).expect("actions");
                let Some(AckAction::SetVar { value, .. }) = actions.iter().next() else {
                    panic!("no variable")
                };
                let number = usize::try_from(value.as_integer().expect("a number")).expect("small");
                assert!(queued.remove(&number), "sent, but not queued");
                assert_eq!(self.asked[number], (self.engines[&id], frame.header.ids));
            }
            rest = after;
        }
        assert!(queued.is_empty(), "queued, but not sent: {queued:?}");
    }

    /// The agent ends a session.
    fn end(&mut self, target: u8) {
        let Some(id) = self.pick(target) else { return };
        let reactor = self.reactors.0.get_mut(&id).expect("it lives");
        reactor.disconnect(NOW, Status::NORMAL, "");
        self.hub.leave(id);
    }

    /// A connection is gone.
    fn leave(&mut self, target: u8) {
        let Some(id) = self.pick(target) else { return };
        self.reactors.0.remove(&id);
        self.queued.remove(&id);
        self.hub.leave(id);
    }

    fn promises(&self) {
        let waiting: usize = self.reactors.0.values().map(AgentReactor::in_flight).sum();
        assert!(self.hub.waiting() <= waiting + ENGINES.len() * MAX_ORPHANS);
        assert!(self.hub.engines() <= ENGINES.len());
    }
}
