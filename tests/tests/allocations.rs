//! What the agent's reactor allocates: nothing for a NOTIFY in steady state, and never more than its limits allow. And what an
//! idle connection takes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // It is a test.

use std::{hint::black_box, sync::Arc};

use allocation_counter::{AllocationInfo, measure};
use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, Clock, CloseReason, ConnectionId, Notify, Scope, Settled,
    Ticket, Timestamp, accept::Peer, config::Checked, notation, testing::Inbox,
};
use spop_server::{Agent as Server, Conn, Driver, Request, ServerConfig};

const NOW: Timestamp = Timestamp::ZERO;
const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async engine-id=string:4d4602a4-4b2b-49e3-a1b2-000000000000";

fn frame(line: &str) -> Vec<u8> {
    notation::parse_bytes(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

struct Agent {
    reactor: AgentReactor,
    inbox: Inbox,
    tickets: Vec<Ticket>,
    /// Whether the peer reads.
    reads: bool,
    closed: bool,
}

impl Agent {
    fn new(config: AgentConfig) -> Self {
        let mut inbox = Inbox::from(&vec![0; 64 << 10][..]);
        inbox.clear();
        Self {
            reactor: AgentReactor::new(Arc::new(config.checked().unwrap()), ConnectionId(1), NOW),
            inbox,
            tickets: Vec::with_capacity(128),
            reads: true,
            closed: false,
        }
    }

    fn established(config: AgentConfig) -> Self {
        let mut agent = Self::new(config);
        agent.receive(&frame(HELLO), true);
        agent
    }

    /// One turn of a driver: what one read brought in, what it leads to, one write.
    fn receive(&mut self, bytes: &[u8], answer_at_once: bool) {
        self.inbox.extend_from_slice(bytes);
        loop {
            match self.inbox.feed(|input| self.reactor.on_bytes(NOW, input)) {
                Action::RunMessages(notify) => {
                    let ticket = read(notify);
                    if answer_at_once { answer(&mut self.reactor, ticket) } else { self.tickets.push(ticket) }
                }
                Action::SendFrames | Action::WantBytes { .. } | Action::Paused => break,
                Action::Close(_) => {
                    self.closed = true;
                    break;
                }
                _ => {}
            }
        }
        for ticket in self.tickets.drain(..) {
            answer(&mut self.reactor, ticket);
        }
        while self.reads && !self.reactor.outgoing().is_empty() {
            let n = black_box(self.reactor.outgoing()).len();
            let _ = self.reactor.on_sent(NOW, n);
        }
    }
}

fn answer(reactor: &mut AgentReactor, ticket: Ticket) {
    let mut actions = Actions::new();
    actions.set_var(Scope::Session, "ip_score", 77_i32).set_var(Scope::Transaction, "reason", "a reason");
    assert_eq!(reactor.acknowledge(NOW, ticket, &actions), Ok(Settled::Queued));
}

/// Reads every argument.
fn read(notify: Notify<'_>) -> Ticket {
    for message in notify.messages() {
        black_box(message.name());
        for (name, value) in message.args() {
            black_box((name, value, value.as_str(), value.as_ip()));
        }
    }
    notify.ticket
}

fn notifies(count: u64) -> Vec<u8> {
    (0..count)
        .flat_map(|n| {
            frame(&format!(
                "NOTIFY fin {} 1 check-ip ip=ipv4:203.0.113.7 v6=ipv6:2001:db8::1 path=string:/index.html \
                 method=string:GET port=int64:443 neg=int64:-1 tls=bool:true ua=null body=binary:00ff*40 ; log",
                2 * n + 1
            ))
        })
        .collect()
}

fn steady(batch: u64, answer_at_once: bool, blocked: bool) -> AllocationInfo {
    let mut agent = Agent::established(AgentConfig::default());
    let bytes = notifies(batch);
    let mut turn = move || {
        // The tickets are collected where a vector is: it is the application's, and it keeps it.
        agent.inbox.extend_from_slice(&bytes);
        loop {
            match agent.inbox.feed(|input| agent.reactor.on_bytes(NOW, input)) {
                Action::RunMessages(notify) => {
                    let ticket = read(notify);
                    if answer_at_once {
                        answer(&mut agent.reactor, ticket);
                    } else {
                        agent.tickets.push(ticket);
                    }
                }
                Action::SendFrames | Action::WantBytes { .. } => break,
                other => panic!("{other:?}"),
            }
        }
        while let Some(ticket) = agent.tickets.pop() {
            answer(&mut agent.reactor, ticket);
        }
        let n = black_box(agent.reactor.outgoing()).len();
        let _ = agent.reactor.on_sent(NOW, n);
        black_box((agent.reactor.interest(), agent.reactor.deadline()));
        if blocked {
            let _ = agent.reactor.on_read_blocked(NOW);
        }
    };
    (0..100).for_each(|_| turn());
    measure(|| (0..1_000).for_each(|_| turn()))
}

#[test]
fn one_notify_at_a_time_allocates_nothing() {
    assert_eq!(steady(1, true, false).count_total, 0);
    assert_eq!(steady(1, false, false).count_total, 0);
    assert_eq!(steady(1, true, true).count_total, 0, "with each read followed by one that blocks");
}

#[test]
fn thirty_two_pipelined_notifies_allocate_nothing() {
    assert_eq!(steady(32, true, false).count_total, 0, "answered one by one");
    assert_eq!(steady(32, false, false).count_total, 0, "answered last to first");
}

// ---- peers that mean no good ----

fn limited() -> AgentConfig {
    let mut config = AgentConfig::default();
    config.limits.max_payload = 64 << 10;
    config.limits.max_payload_bytes = 256 << 10;
    config.max_frame_size = 256 << 10;
    config.limits.max_outgoing = 32 << 10;
    config.limits.max_in_flight = 16;
    config
}

/// What a reactor of [`limited`] may hold at any moment: its payloads, one of them twice while it grows; what is to be
/// sent, in a buffer that doubles, twice while it grows; and a little for itself.
const PAYLOADS: u64 = (256 + 64) << 10;
const OUTGOING: u64 = 3 * (32 << 10);
const ITSELF: u64 = 16 << 10;

/// The most memory that is held while `peer` plays.
fn peak(peer: impl FnOnce(&mut Agent)) -> AllocationInfo {
    let mut agent = Agent::new(limited());
    agent.receive(&frame(HELLO), true);
    // A split makes the inbox one that is shared; what follows is not its first.
    agent.receive(&frame("NOTIFY fin 1 1 m"), true);
    measure(|| peer(&mut agent))
}

#[test]
fn a_peer_that_opens_payloads_and_leaves_them_holds_the_limit() {
    let starts: Vec<_> = (0..16).map(|n| frame(&format!("NOTIFY - {n} 1 raw:x"))).collect();
    let mores: Vec<_> = (0..16).map(|n| frame(&format!("UNSET - {n} 1 raw:\"x\"*1000"))).collect();
    let info = peak(|agent| {
        for bytes in &starts {
            agent.receive(bytes, true);
        }
        for bytes in (0..100).flat_map(|_| &mores) {
            agent.receive(bytes, true);
            assert!(agent.reactor.reassembly_bytes() <= 256 << 10);
        }
        assert!(!agent.closed);
    });
    assert!(info.bytes_max <= PAYLOADS + ITSELF, "{info:?}");
    assert!(info.bytes_max > 128 << 10, "the limit was nowhere near: {info:?}");
}

#[test]
fn a_peer_that_aborts_and_starts_again_holds_nothing() {
    let start = frame("NOTIFY - 5 1 raw:\"x\"*16000");
    let more = frame("UNSET - 5 1 raw:\"x\"*16000");
    let abort = frame("UNSET fin,abort 5 1");
    let info = peak(|agent| {
        for _ in 0..1_000 {
            for bytes in [&start, &more, &more, &abort] {
                agent.receive(bytes, true);
            }
            assert_eq!(agent.reactor.reassembly_bytes(), 0);
        }
        assert!(!agent.closed);
    });
    assert!(info.bytes_max <= (128 << 10) + ITSELF, "{info:?}");
    assert!(info.bytes_current <= ITSELF.cast_signed(), "{info:?}");
}

#[test]
fn a_peer_that_floods_one_id_holds_one_message() {
    let notify = frame("NOTIFY fin 5 1 m body=string:\"x\"*1000");
    let start = frame("NOTIFY - 5 1 raw:\"x\"*1000");
    let info = peak(|agent| {
        for _ in 0..10_000 {
            agent.inbox.extend_from_slice(&notify);
            agent.inbox.extend_from_slice(&start);
            loop {
                match agent.inbox.feed(|input| agent.reactor.on_bytes(NOW, input)) {
                    // Never answered.
                    Action::RunMessages(notify) => drop(notify),
                    Action::SendFrames | Action::WantBytes { .. } => break,
                    Action::Close(closed) => panic!("{closed}"),
                    _ => {}
                }
            }
            assert!(agent.reactor.in_flight() <= 1);
        }
    });
    assert!(info.bytes_max <= ITSELF, "{info:?}");
}

#[test]
fn a_peer_that_never_reads_is_not_read_from() {
    let notify = frame("NOTIFY fin 5 1 m");
    let too_big = frame("NOTIFY - 7 1 raw:\"x\"*16000");
    let more: Vec<_> = (0..5).flat_map(|_| frame("UNSET - 7 1 raw:\"x\"*16000")).collect();
    for bytes in [notify, [too_big, more].concat()] {
        let info = peak(|agent| {
            agent.reads = false;
            for _ in 0..100_000 {
                if !agent.reactor.interest().read {
                    break;
                }
                agent.receive(&bytes, true);
            }
            assert!(!agent.reactor.interest().read, "it goes on reading");
            assert!(!agent.closed);
        });
        assert!(info.bytes_max <= PAYLOADS + OUTGOING + ITSELF, "{info:?}");
    }
}

#[test]
fn refusals_are_remembered_within_their_limit() {
    // 256, and an index of them.
    const REFUSALS: u64 = 256 * 80;
    let frames: Vec<_> = (0..5_000)
        .map(|n| {
            let start = frame(&format!("NOTIFY - {n} 1 raw:\"x\"*16000"));
            let more = frame(&format!("UNSET - {n} 1 raw:\"x\"*16000"));
            (start, more)
        })
        .collect();
    let info = peak(|agent| {
        for (start, more) in &frames {
            agent.receive(start, true);
            for _ in 0..5 {
                agent.receive(more, true);
            }
        }
        assert!(!agent.closed);
    });
    assert!(info.bytes_current <= (ITSELF + REFUSALS).cast_signed(), "{info:?}");
    assert!(info.bytes_max <= (256 << 10) + ITSELF + REFUSALS, "{info:?}");
}

#[test]
fn unknown_frames_and_swallowed_fragments_hold_nothing() {
    let unknown = frame("TYPE:42 fin 7 7 raw:\"x\"*1000");
    let start = frame("NOTIFY - 5 1 raw:x");
    let more = frame("UNSET - 5 1 raw:\"x\"*1000");
    let info = peak(|agent| {
        agent.receive(&start, true);
        agent.reactor.abort(NOW, spop_core::frame::Ids::new(5, 1)).unwrap();
        for _ in 0..10_000 {
            agent.receive(&unknown, true);
            agent.receive(&more, true);
        }
        assert_eq!(agent.reactor.skipped_frames(), 10_000);
        assert!(!agent.closed);
    });
    assert!(info.bytes_max <= ITSELF, "{info:?}");
}

#[test]
fn a_length_allocates_nothing() {
    let mut agent = Agent::new(AgentConfig::default());
    agent.inbox.extend_from_slice(&[0, 0, 0x3f, 0xfc]);
    let info = measure(|| {
        let action = agent.inbox.feed(|input| agent.reactor.on_bytes(NOW, input));
        assert!(matches!(action, Action::WantBytes { at_least: 16_380 }), "{action:?}");
    });
    assert_eq!(info.count_total, 0);

    let mut agent = Agent::new(AgentConfig::default());
    agent.inbox.extend_from_slice(&[0xff; 4]);
    let info = measure(|| match agent.inbox.feed(|input| agent.reactor.on_bytes(NOW, input)) {
        Action::Close(closed) => assert!(matches!(closed.reason, CloseReason::Violation(_))),
        other => panic!("{other:?}"),
    });
    assert!(info.bytes_max < 2_000, "{info:?}");
}

#[test]
fn a_waiting_connection_takes_little() {
    let mut agent = None;
    let hello = frame(HELLO);
    let config = Arc::<Checked<AgentConfig>>::default();
    let info = measure(|| {
        let mut reactor = AgentReactor::new(Arc::clone(&config), ConnectionId(1), NOW);
        let mut inbox = Inbox::from(&hello[..]);
        while !matches!(inbox.feed(|input| reactor.on_bytes(NOW, input)), Action::SendFrames) {}
        let n = reactor.outgoing().len();
        let _ = reactor.on_sent(NOW, n);
        let _ = reactor.on_read_blocked(NOW);
        drop(inbox);
        agent = Some(reactor);
    });
    assert!(info.bytes_current <= SESSION, "{info:?}");
    // Thousands of connections may be idle: every field counts.
    assert!(size_of::<AgentReactor>() <= 336, "{} bytes", size_of::<AgentReactor>());
}

/// What a reactor allocates for its session and the engine-id. Debug builds also list dropped tickets.
const SESSION: i64 = 40 + 48 + 36 + if cfg!(debug_assertions) { 304 } else { 0 };

#[test]
fn an_idle_connection_of_a_server_takes_little_whatever_it_did_before() {
    let server = Server::new(ServerConfig::default(), Clock::start()).unwrap();
    // The slots of the registry are allocated for four.
    let _first = server.connection(NOW, Peer::unnamed());
    let mut handler = |_: Request<'_>| {
        let mut actions = Actions::new();
        actions.set_var(Scope::Session, "ip_score", 77_i32);
        actions
    };
    let hello = frame(HELLO);
    let batch: Vec<u8> = (0..20).flat_map(|id| frame(&format!("NOTIFY fin {id} 1 m"))).collect();
    let mut idle = |batches: usize| {
        let mut kept = None;
        let info = measure(|| {
            let mut conn = server.connection(NOW, Peer::unnamed());
            for input in std::iter::once(&hello).chain(std::iter::repeat_n(&batch, batches)) {
                assert_eq!(conn.on_bytes(NOW, &mut handler, input), input.len());
                let n = conn.outgoing().len();
                conn.on_sent(NOW, &mut handler, n).unwrap();
            }
            conn.on_timeout(Timestamp::from_millis(1_000), &mut handler);
            kept = Some(conn);
        });
        info.bytes_current
    };
    let (unused, used) = (idle(0), idle(100));
    assert_eq!(unused, used);
    // What its requests and other threads see of it.
    assert!(used <= 200 + SESSION, "{used} bytes");
    // 48 bytes are for the metrics, 16 for debug builds.
    assert!(size_of::<Driver<Conn>>() <= 488 + 48 + 16, "{} bytes", size_of::<Driver<Conn>>());
}
