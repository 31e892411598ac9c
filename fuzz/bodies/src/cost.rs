//! What a peer can make an agent's connection cost: work is bounded by the bytes it sends and the calls of the driver.
//!
//! Work is the number of basic blocks that were executed. The fuzz target counts them by instrumentation, so new code is counted
//! without changes here. Where there is no instrumentation, as in the unit tests, work is 0.

use std::{sync::Arc, sync::OnceLock, time::Duration};

use crate::{codec::TYPES, input::Input};
use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, ConnectionId, Scope, Status, Ticket, Timestamp,
    frame::{Flags, FrameType, Header, Ids, Message, put_frame},
    notation,
    testing::Inbox,
};

/// Basic blocks for nothing at all, for each call, and for each byte. An ordinary NOTIFY of 92 bytes takes about 250.
const BASE: u64 = 5_000;
const PER_CALL: u64 = 300;
const PER_BYTE: u64 = 30;

/// The most bytes of an input and of a burst, and the most calls.
const MAX_BYTES: u64 = 100_000;
const MAX_BURST: usize = 30_000;
const MAX_CALLS: u64 = 5_000;

static COUNTER: OnceLock<fn() -> u64> = OnceLock::new();

/// Sets how work is counted.
pub fn count_work(counter: fn() -> u64) {
    let _ = COUNTER.set(counter);
}

fn work() -> u64 {
    COUNTER.get().map_or(0, |counter| counter())
}

/// No events cost more than their bytes and calls allow.
pub fn cost(data: &[u8]) {
    let mut input = Input::new(data);
    let mut run = Run::new(&mut input);
    while !input.is_empty() && !run.is_over() {
        run.event(&mut input);
        run.check();
    }
    run.call(|agent, now| agent.disconnect(now, Status::NORMAL, ""));
    run.check();
}

struct Run {
    agent: AgentReactor,
    now: Timestamp,
    inbox: Inbox,
    tickets: Vec<Ticket>,
    /// The bytes of a read.
    read: usize,
    /// Whether the driver sends what is queued.
    sends: bool,
    work: u64,
    calls: u64,
    bytes: u64,
}

impl Run {
    fn new(input: &mut Input<'_>) -> Self {
        let switches = input.byte();
        let mut config = AgentConfig::default();
        config.watch_fragments = switches & 1 != 0;
        let limits = &mut config.limits;
        if switches & 2 != 0 {
            limits.max_messages = usize::MAX;
        }
        limits.max_in_flight = input.pick(&[256, 1, 20, 3_000]);
        limits.max_payloads = input.pick(&[16, 16, 1, 4]);
        limits.max_refused = input.pick(&[256, 3_000, 1, 20]);
        limits.max_payload = input.pick(&[1 << 20, 500, 1]);
        limits.max_payload_bytes = input.pick(&[4 << 20, 1 << 20, 1 << 20, 1 << 20]);
        limits.max_outgoing = input.pick(&[1 << 20, 1_000, 1]);
        config.defer_output = switches & 0x1c == 0x1c;
        let greeting = ["pipelining,async,fragmentation", "fragmentation,pipelining", ""];
        let greeting = greeting[usize::from(switches >> 5) % greeting.len()];
        let agent = AgentReactor::new(
            Arc::new(config.checked().expect("a configuration that can work")),
            ConnectionId(1),
            Timestamp::ZERO,
        );
        let (now, inbox, tickets) = (Timestamp::from_millis(1), Inbox::new(), Vec::new());
        let mut run =
            Self { agent, now, inbox, tickets, read: 16_384, sends: true, work: 0, calls: 0, bytes: 0 };
        if switches & 0x0c != 0x08 {
            let hello = notation::parse_bytes(&format!(
                "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:1048576 \
                 capabilities=string:\"{greeting}\" engine-id=string:e"
            ));
            run.feed(&hello.expect("a HELLO"));
        }
        run
    }

    fn event(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=7 => {
                let bytes = burst(input);
                self.feed(&bytes);
            }
            8 => self.answer(usize::MAX, input.flag()),
            9 => self.answer(input.byte().into(), input.flag()),
            10 => {
                self.now = self.now + Duration::from_millis(input.pick(&[1, 100, 1_000, 10_000, 40_000]));
                for _ in 0..2_000 {
                    if self.call(AgentReactor::on_timeout).ends_input() {
                        break;
                    }
                }
                self.send();
            }
            11 => {
                let ids = Ids::new(input.byte().into(), 1);
                let _ = self.call(|agent, now| agent.abort(now, ids));
            }
            12 => self.call(AgentReactor::drain),
            13 => self.read = input.pick(&[16_384, 1, 12, 1_000]),
            14 => {
                self.sends = input.flag();
                self.send();
            }
            _ => {
                let bytes = input.bytes().to_vec();
                self.feed(&bytes);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.bytes >= MAX_BYTES || self.calls >= MAX_CALLS
    }

    fn check(&self) {
        let Self { work, calls, bytes, .. } = *self;
        let bound = BASE + PER_CALL * calls + PER_BYTE * bytes;
        assert!(work <= bound, "{work} blocks in {calls} calls for {bytes} bytes, at most {bound}");
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut AgentReactor, Timestamp) -> T) -> T {
        let before = work();
        let result = call(&mut self.agent, self.now);
        self.work += work() - before;
        self.calls += 1;
        result
    }

    fn feed(&mut self, bytes: &[u8]) {
        if self.inbox.len() > MAX_BURST {
            return;
        }
        for read in bytes.chunks(self.read) {
            if self.is_over() {
                return;
            }
            self.bytes += read.len() as u64;
            self.inbox.extend_from_slice(read);
            self.process();
            // As a driver does before it sleeps.
            self.call(|agent, _| (agent.deadline(), agent.interest()));
        }
    }

    /// Passes the input to the reactor, until it can process no more.
    fn process(&mut self) {
        loop {
            let Self { agent, inbox, .. } = self;
            let before = work();
            let action = inbox.feed(|input| agent.on_bytes(self.now, input));
            self.work += work() - before;
            self.calls += 1;
            match action {
                Action::RunMessages(notify) => {
                    let before = work();
                    notify.messages().iter().for_each(|message| look(&message));
                    self.work += work() - before;
                    self.tickets.push(notify.ticket);
                }
                Action::FragmentArrived(ids) => {
                    let before = work();
                    if let Some(arriving) = agent.arriving(ids) {
                        arriving.new_messages().for_each(|message| look(&message));
                        let _ = arriving.incomplete();
                    }
                    self.work += work() - before;
                }
                action if action.ends_input() => {
                    drop(action);
                    self.send();
                    if !self.agent.interest().resume {
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    fn answer(&mut self, count: usize, newest: bool) {
        for _ in 0..count.min(self.tickets.len()) {
            let ticket = if newest { self.tickets.pop() } else { Some(self.tickets.swap_remove(0)) };
            let Some(ticket) = ticket else { break };
            let mut actions = Actions::new();
            actions.set_var(Scope::Transaction, "x", true);
            if let Err(error) = self.call(|agent, now| agent.acknowledge(now, ticket, &actions)) {
                let ticket = error.into_ticket();
                let _ = self.call(|agent, now| agent.fail(now, ticket));
            }
        }
        self.send();
        if self.agent.interest().resume {
            self.process();
        }
    }

    fn send(&mut self) {
        while self.sends && !self.agent.outgoing().is_empty() {
            let len = self.agent.outgoing().len();
            let _ = self.call(|agent, now| agent.on_sent(now, len));
        }
    }
}

fn look(message: &Message<'_>) {
    let _ = message.name();
    let _ = message.args().count();
}

/// Frames of one kind, with identifiers that stay, ascend or descend.
fn burst(input: &mut Input<'_>) -> Vec<u8> {
    let frame_type = input.pick(&TYPES);
    let flags = Flags(u32::from(input.pick(&[1_u8, 0, 0, 1, 3, 2])));
    let (mut stream, step) = (u64::from(input.byte()), input.pick(&[0, 1, u64::MAX, 1 << 40]));
    if input.flag() {
        stream += 1_000;
    }
    let frame = u64::from(frame_type != FrameType::HaproxyDisconnect);
    let size = input.pick(&[0, 1, 2, 3, 12, 100, 255, 600, 15_000]);
    let payload = match input.byte() % 6 {
        0 => Vec::new(),
        1 => vec![0; size],
        2 => {
            // A message of many arguments.
            let mut payload = vec![1, b'm', u8::try_from(size / 2).unwrap_or(u8::MAX)];
            payload.resize(3 + 2 * usize::from(payload[2]), 0);
            payload
        }
        3 => vec![b"\x01m\x00".as_slice(); size / 3].concat(),
        4 => input.bytes().to_vec(),
        _ => b"\x01m\x00".to_vec(),
    };
    let times = 1 + usize::from(input.byte()) * input.pick(&[1, 0, 8]);
    let mut out = Vec::new();
    for _ in 0..times {
        put_frame(&mut out, Header { frame_type, flags, ids: Ids::new(stream, frame) }, &payload);
        stream = stream.wrapping_add(step);
        if out.len() > MAX_BURST {
            break;
        }
    }
    out
}
