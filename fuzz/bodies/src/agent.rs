//! An agent's connection under any events, against its invariants.

use std::time::Duration;

use crate::{
    codec::TYPES,
    driver::{Cuts, Driver},
    input::Input,
    model::{Bounds, PeerFrame},
    random::Random,
};
use spop_core::{
    Actions, AgentConfig, Scope, Status, Timer, Value,
    agent::PipeliningPolicy,
    frame::{Capabilities, Disconnect, Flags, FrameType, Header, Ids, put_frame},
    link::{Layers, Phase, Progress},
    notation,
};

/// The limits of the connections here, low enough to be reached.
pub const BOUNDS: Bounds = Bounds {
    frame: 256,
    payload: 300,
    payloads: 2,
    refused: 2,
    messages: 60,
    in_flight: 3,
    window: usize::MAX,
    outgoing: 200,
    fragmentation: true,
};

/// More than the payloads of a connection can take with these limits, and at most five requests in flight.
const ALL_PAYLOADS: usize = 8 << 10;

/// The limit of the memory of all payloads: one that is reached, or none that is.
pub const fn payload_bytes(is_reached: bool) -> usize {
    if is_reached { 500 } else { ALL_PAYLOADS }
}

/// An event of a connection. A ticket is selected by a number, modulo the number of tickets.
#[derive(Clone, Debug)]
pub enum Event {
    /// These frames arrive together.
    Frames(Vec<PeerFrame>),
    /// These bytes arrive.
    Bytes(Vec<u8>),
    /// The application answers with actions of about this length.
    Answer(usize, usize),
    /// The application passes a part of an answer.
    AnswerPart(usize, usize),
    /// The application aborts its answer.
    AbortAnswer(usize),
    /// The application fails a request.
    Fail(usize),
    /// The application releases a ticket: another connection sends the answer.
    Release(usize),
    /// The application refuses a payload that is arriving.
    Refuse(Ids),
    /// The peer reads all bytes.
    Take,
    /// The peer reads this many bytes.
    TakeSome(usize),
    /// This many milliseconds pass.
    Wait(u64),
    /// The application drains.
    Drain,
    /// A read would block.
    ReadBlocked,
    /// The driver shuts the write side.
    Shut(Progress),
    /// The application disconnects.
    Disconnect(u8),
    /// The peer shuts its write side.
    Eof,
    /// The transport fails.
    Reset,
}

/// Any events keep the invariants of the reactor, and have the same results however the bytes are cut.
pub fn agent(data: &[u8]) {
    let mut input = Input::new(data);
    let switches = input.byte();
    let is = |bit: u8| switches & 1 << bit != 0;
    let seed = input.number() as u64;
    let mut config = config(Bounds { in_flight: 1 + seed as usize % 5, outgoing: 600, ..BOUNDS });
    config.limits.max_payload_bytes = payload_bytes(seed & 1 == 0);
    config.watch_fragments = is(0);
    config.defer_output = is(1) && is(2) && is(3);
    if is(2) {
        config.pipelining = PipeliningPolicy::Always;
    }
    if is(1) {
        config.drain_timing = AgentConfig::default().drain_timing;
    }
    if is(4) {
        config.processing = AgentConfig::default().processing;
    }
    if is(3) {
        config.timeouts.message = Some(Duration::from_secs(3));
    }
    let layers = if is(4) { Layers::Data } else { Layers::Plain };
    let greeting = match switches >> 5 {
        0 => None,
        7 => {
            config.capabilities |= Capabilities::ASYNC;
            Some("async engine-id=string:e")
        }
        number => Some(["pipelining", "pipelining,fragmentation", "fragmentation"][usize::from(number) % 3]),
    };
    let mut events = Vec::new();
    while !input.is_empty() && events.len() < 200 {
        events.push(Event::read(&mut input));
    }
    check(&events, &config, greeting, layers, switches, seed);
}

impl Event {
    pub(super) fn read(input: &mut Input<'_>) -> Self {
        let byte = input.byte();
        match byte % 32 {
            0..=7 => Self::Frames(vec![read_frame(input)]),
            8..=11 => Self::Frames((0..=input.byte() % 6).map(|_| read_frame(input)).collect()),
            12..=15 => Self::Answer(input.byte().into(), input.number() % 320),
            16 => Self::AnswerPart(input.byte().into(), input.number() % 800),
            17 => Self::AbortAnswer(input.byte().into()),
            18 if byte >= 128 => Self::Release(input.byte().into()),
            18 => Self::Fail(input.byte().into()),
            19 => Self::Refuse(read_ids(input)),
            20 | 21 => Self::Take,
            22 => Self::TakeSome(1 + input.number() % 600),
            23 => Self::Wait(input.byte().into()),
            24 => Self::Wait(100 * u64::from(input.byte())),
            25 => Self::Drain,
            26 => Self::ReadBlocked,
            27 => Self::Shut(input.pick(&[Progress::Done, Progress::Started, Progress::Requested])),
            28 => Self::Disconnect(input.byte()),
            29 => Self::Eof,
            30 => Self::Reset,
            _ => Self::Bytes(input.bytes().to_vec()),
        }
    }
}

fn read_ids(input: &mut Input<'_>) -> Ids {
    let byte = u64::from(input.byte());
    Ids::new(byte & 3, byte >> 2 & 1)
}

fn read_frame(input: &mut Input<'_>) -> PeerFrame {
    let byte = input.byte();
    let frame_type = TYPES[usize::from(byte & 0x3f) % TYPES.len()];
    let ids = read_ids(input);
    let payload = match input.byte() {
        0 => Vec::new(),
        count @ 1..=199 => b"\x01m\x00".repeat(usize::from(count % 82)),
        200..=219 => b"\x01".to_vec(),
        220..=239 => b"m\x00".to_vec(),
        240..=249 => b"m".to_vec(),
        _ => input.bytes().iter().copied().take(240).collect(),
    };
    PeerFrame { frame_type, fin: byte & 0x40 == 0, abort: byte & 0xc0 == 0xc0, ids, payload }
}

/// Appends a frame in its wire format. The payload of a DISCONNECT is its status.
pub fn encode(frame: &PeerFrame, out: &mut Vec<u8>) {
    let flags = Flags(u32::from(frame.fin) | u32::from(frame.abort) << 1);
    let header = Header { frame_type: frame.frame_type, flags, ids: frame.ids };
    if frame.frame_type == FrameType::HaproxyDisconnect {
        let mut payload = Vec::new();
        let status = Status(frame.payload.first().copied().unwrap_or_default().into());
        Disconnect { status, message: b"" }.encode(&mut payload);
        put_frame(out, header, &payload);
    } else {
        put_frame(out, header, &frame.payload);
    }
}

pub(super) fn send(driver: &mut Driver, frame: &PeerFrame) {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes);
    driver.send(&bytes);
}

/// Actions of this encoded length, or of two bytes if it is too short.
pub(super) fn actions(len: usize) -> Actions {
    let mut actions = Actions::new();
    match len.checked_sub(7) {
        None => {}
        Some(text) => {
            let text = if text >= 240 { text - 1 } else { text };
            actions.set_var(Scope::Transaction, "x", Value::String(&vec![b'x'; text]));
        }
    }
    actions
}

/// A configuration with these limits.
pub fn config(bounds: Bounds) -> AgentConfig {
    let mut config = AgentConfig::default();
    config.max_frame_size = 256;
    (config.drain_timing, config.processing) = (None, None);
    config.limits.max_payload = bounds.payload;
    config.limits.max_payloads = bounds.payloads;
    config.limits.max_refused = bounds.refused;
    config.limits.max_messages = bounds.messages;
    config.limits.max_in_flight = bounds.in_flight;
    config.limits.max_outgoing = bounds.outgoing;
    config.capabilities = Capabilities::PIPELINING;
    if bounds.fragmentation {
        config.capabilities |= Capabilities::FRAGMENTATION;
    }
    config
}

/// The handshake. More items of the HELLO can follow the capabilities.
pub(super) fn hello(driver: &mut Driver, capabilities: &str) {
    let hello = notation::parse_bytes(&format!(
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
         capabilities=string:{capabilities}"
    ));
    driver.send(&hello.unwrap());
    driver.read();
    driver.take(usize::MAX);
    driver.wait(Duration::from_millis(2));
}

/// The ways to cut the received bytes.
pub fn ways(seed: u64) -> [Cuts; 4] {
    [Cuts::AsSent, Cuts::Joined, Cuts::Bytes, Cuts::Random(Random::seeded(seed))]
}

/// Runs the events with every way to cut, and ends the connection as `how` selects.
pub fn check(
    events: &[Event],
    config: &AgentConfig,
    greeting: Option<&str>,
    layers: Layers,
    how: u8,
    seed: u64,
) {
    let whole = run(events, config, greeting, layers, Cuts::AsSent);
    for cuts in ways(seed).into_iter().skip(1) {
        // Frames held back by a limit are processed differently once EOF is known.
        if config.defer_output && matches!(cuts, Cuts::Joined) {
            continue;
        }
        let cut = run(events, config, greeting, layers, cuts.clone());
        // How long a drain holds answers back depends on the bytes that have arrived; whether payloads reach the limit of their memory,
        // on a buffer that is kept for the next one, and when that is freed, on the number of writes.
        if config.drain_timing.is_some() || config.limits.max_payload_bytes < ALL_PAYLOADS {
            close(cut, how);
            continue;
        }
        assert_eq!(cut.log, whole.log, "{cuts:?}");
        assert_eq!(cut.sent, whole.sent, "{cuts:?}");
        // When memory is released depends on the number of writes.
        let deadlines = [&cut, &whole].map(|driver| driver.reactor.deadline());
        if !deadlines.iter().flatten().any(|(_, timer)| *timer == Timer::Memory) {
            assert_eq!(deadlines[0], deadlines[1], "{cuts:?}");
        }
        assert_eq!(cut.reactor.interest(), whole.reactor.interest(), "{cuts:?}");
    }
    close(whole, how);
}

fn run(events: &[Event], config: &AgentConfig, greeting: Option<&str>, layers: Layers, cuts: Cuts) -> Driver {
    let mut driver = Driver::new(config.clone(), layers, cuts);
    if let Some(capabilities) = greeting {
        hello(&mut driver, capabilities);
        let agreed = driver
            .reactor
            .session()
            .is_some_and(|session| session.capabilities.contains(Capabilities::ASYNC));
        assert_eq!(agreed, capabilities.starts_with("async"), "{capabilities}");
    }
    let (mut run, mut queued) = (0, 0);
    for event in events {
        let tickets = driver.tickets.len();
        let waiting = driver.reactor.in_flight();
        let pick = |index: &usize| (tickets > 0).then(|| index % tickets);
        match event {
            Event::Frames(burst) => {
                for frame in burst {
                    send(&mut driver, frame);
                }
            }
            Event::Bytes(bytes) => driver.send(bytes),
            Event::Answer(index, len) => {
                if let Some(index) = pick(index) {
                    driver.answer(index, &actions(*len));
                    queued += waiting - driver.reactor.in_flight();
                }
            }
            Event::AnswerPart(index, len) => {
                if let Some(index) = pick(index) {
                    driver.answer_part(index, &actions(*len));
                    assert_eq!(driver.tickets.len(), tickets, "a part uses no ticket up");
                }
            }
            Event::AbortAnswer(index) => {
                if let Some(index) = pick(index) {
                    driver.abort_answer(index);
                    queued += waiting - driver.reactor.in_flight();
                }
            }
            Event::Fail(index) => {
                if let Some(index) = pick(index) {
                    driver.fail(index);
                    queued += waiting - driver.reactor.in_flight();
                }
            }
            Event::Release(index) => {
                if let Some(index) = pick(index) {
                    driver.release(index);
                    queued += waiting - driver.reactor.in_flight();
                }
            }
            Event::Refuse(ids) => driver.refuse(*ids),
            Event::Take => {
                driver.take(usize::MAX);
            }
            Event::TakeSome(n) => {
                driver.take(*n);
            }
            Event::Wait(millis) => driver.wait(Duration::from_millis(*millis)),
            Event::Drain => driver.drain(),
            Event::ReadBlocked => driver.read_blocked(),
            Event::Shut(progress) => driver.shut(*progress),
            Event::Disconnect(status) => driver.disconnect(Status(u32::from(*status)), ""),
            Event::Eof => driver.end(),
            Event::Reset => driver.reset(),
        }
        driver.read();
        promises(&driver, config);
        run = count(&driver, "RunMessages");
    }
    let lost: usize = driver
        .log
        .iter()
        .filter_map(|line| line.strip_prefix("Lost")?.split("messages=").nth(1))
        .map(|rest| rest.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    let cancelled = count(&driver, "CancelMessages");
    let waiting = driver.reactor.in_flight();
    assert_eq!(run, queued + cancelled + lost + waiting, "{:#?}", driver.log);
    assert!(count(&driver, "Close") <= 1, "{:#?}", driver.log);
    driver
}

fn count(driver: &Driver, word: &str) -> usize {
    driver.log.iter().filter(|line| line.split(' ').next() == Some(word)).count()
}

fn promises(driver: &Driver, config: &AgentConfig) {
    let reactor = &driver.reactor;
    let (interest, deadline) = (reactor.interest(), reactor.deadline());
    let limits = &config.limits;
    assert!(reactor.in_flight() <= limits.max_in_flight);
    assert!(reactor.reassembly_bytes() <= limits.max_payload_bytes);
    // One payload can exceed the limit: a frame, or what was put together.
    let largest = limits.max_payload.max(config.max_frame_size as usize);
    let payloads = reactor.payload_bytes() + reactor.reassembly_bytes();
    assert!(payloads < limits.max_payload_bytes + 2 * largest, "{payloads} bytes of payloads");
    assert_ne!(reactor.phase(), Phase::Greeted, "an agent answers at once");
    if reactor.phase() == Phase::Closing {
        assert_eq!(reactor.in_flight(), 0);
        assert_eq!(reactor.reassembly_bytes(), 0);
        assert!(interest.close || deadline.is_some());
        return;
    }
    assert!(!interest.close);
    assert_eq!(interest.shut, None);
    assert_eq!(interest.write, !reactor.outgoing().is_empty());
    assert!(!interest.resume, "the driver has obeyed");
    if reactor.outgoing_bytes() >= limits.max_outgoing && !config.defer_output {
        assert!(!interest.read);
    }
    // Only the application may be awaited without a deadline.
    if reactor.in_flight() == 0 {
        assert!(deadline.is_some(), "nothing ends this: {interest:?}");
    }
    if !reactor.outgoing().is_empty() {
        assert!(deadline.is_some_and(|(at, _)| at <= driver.now + Duration::from_secs(30)));
    }
    if let Some((at, timer)) = deadline {
        assert!(at > driver.now || !matches!(timer, Timer::Idle), "{timer:?} is late");
    }
}

/// Ends the connection in one of several ways, with every step of closing.
fn close(mut driver: Driver, how: u8) {
    driver.disconnect(Status::NORMAL, "the end");
    match how % 3 {
        // The peer does nothing more.
        0 => driver.wait(Duration::from_secs(10)),
        // The transport fails.
        1 => driver.reset(),
        _ => {
            driver.take(usize::MAX);
            driver.wait(Duration::from_millis(100));
            driver.take(usize::MAX);
            driver.end();
            driver.read();
            driver.shut(Progress::Done);
            driver.shut(Progress::Done);
        }
    }
    assert!(driver.reactor.interest().close, "{:?}", driver.reactor);
    assert_eq!(driver.reactor.deadline(), None);
    assert!(driver.tickets.len() <= count(&driver, "RunMessages"));
    while !driver.tickets.is_empty() {
        driver.answer(0, &Actions::new());
        assert_eq!(driver.log.last().map(String::as_str), Some("Dropped"));
    }
    assert_eq!(count(&driver, "Close"), 1);
    assert!(driver.reactor.outgoing().is_empty());
}
