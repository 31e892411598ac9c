//! An engine's connection under any events.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{codec::TYPES, driver::Cuts, input::Input, random::Random};
use spop_core::{
    ConnectionId, EngineAction, EngineConfig, EngineReactor, Status, Timestamp,
    engine::NotifyId,
    frame::{Flags, Header, Ids, put_frame},
    link::{Layers, Phase, Progress},
    notation,
    testing::Inbox,
};

#[derive(Clone, Debug)]
enum Event {
    Bytes(Vec<u8>),
    Ask(Option<Ids>, usize),
    Wait(u64),
    Take(usize),
    Drain,
    Disconnect,
    Eof,
    Reset,
    Shut(Progress),
    ReadBlocked,
}

/// Every request ends once, deadlines advance, limits hold; and the results do not depend on how the bytes are cut.
pub fn engine(data: &[u8]) {
    let mut input = Input::new(data);
    let switches = input.byte();
    let is = |bit: u8| switches & 1 << bit != 0;
    let mut config = match switches & 3 {
        0 => EngineConfig::default(),
        1 => EngineConfig::haproxy_2_6(),
        2 => EngineConfig::haproxy_3_2(),
        _ => EngineConfig::haproxy_3_1(),
    };
    config.max_frame_size = 1_000;
    config.healthcheck = is(2) && is(3) && is(4);
    config.engine_id = is(3).then(|| "an-id".into());
    config.limits.max_payload = 600;
    config.limits.max_payload_bytes = 1_000;
    config.limits.max_payloads = 2;
    config.limits.max_refused = 2;
    config.limits.max_outgoing = 2_000;
    config.timeouts.hello = Some(Duration::from_secs(5));
    config.timeouts.message = Some(Duration::from_secs(2));
    config.timeouts.idle = Some(Duration::from_secs(30));
    config.timeouts.write = Some(Duration::from_secs(20));
    config.timeouts.frame = is(4).then_some(Duration::from_secs(3));
    let layers = if is(5) { Layers::Data } else { Layers::Plain };
    let mut events = Vec::new();
    if is(6) {
        let capabilities = ["pipelining,fragmentation,async", "pipelining", ""][usize::from(switches % 3)];
        let hello = notation::parse_bytes(&format!(
            "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:400 capabilities=string:\"{capabilities}\""
        ));
        events.extend([Event::Take(usize::MAX), Event::Bytes(hello.unwrap())]);
    }
    let seed = u64::from(switches);
    while !input.is_empty() && events.len() < 200 {
        events.push(Event::read(&mut input));
    }
    let whole = run(&events, &config, layers, Cuts::AsSent);
    // Some profiles depend on how bytes arrive.
    if !config.profile.rejects_split_frames
        && !config.profile.fin_hides_disconnect
        && config.profile.stalls_at.is_none()
        && !config.healthcheck
    {
        for cuts in [Cuts::Bytes, Cuts::Random(Random::seeded(seed))] {
            assert_eq!(run(&events, &config, layers, cuts.clone()), whole, "{cuts:?}");
        }
    } else {
        run(&events, &config, layers, Cuts::Bytes);
    }
}

impl Event {
    fn read(input: &mut Input<'_>) -> Self {
        match input.byte() % 32 {
            0..=13 => Self::Bytes((0..=input.byte() % 4).flat_map(|_| read_frame(input)).collect()),
            14..=18 => Self::Ask(None, 3 * usize::from(input.byte())),
            19 => Self::Ask(Some(Ids::new((input.byte() % 4).into(), 1)), 3),
            20 => Self::Ask(None, input.number() % 3_000),
            21 => Self::Wait(input.byte().into()),
            22 => Self::Wait(100 * u64::from(input.byte())),
            23 | 24 => Self::Take(usize::MAX),
            25 => Self::Take(input.byte().into()),
            26 => Self::Drain,
            27 => Self::Disconnect,
            28 => match input.byte() % 4 {
                0 => Self::Eof,
                1 => Self::Reset,
                2 => Self::ReadBlocked,
                _ => Self::Shut(input.pick(&[Progress::Done, Progress::Started, Progress::Requested])),
            },
            _ => Self::Bytes(input.bytes().to_vec()),
        }
    }
}

fn read_frame(input: &mut Input<'_>) -> Vec<u8> {
    let byte = input.byte();
    let mut frame_type = TYPES[usize::from(byte & 0x3f) % TYPES.len()];
    if frame_type == TYPES[0] {
        frame_type = spop_core::frame::FrameType::Ack;
    }
    let flags = match byte >> 6 {
        0 | 1 => Flags::FIN,
        2 => Flags::NONE,
        _ => Flags(u32::from(input.byte())),
    };
    let ids = input.byte();
    let ids = Ids::new(u64::from(ids & 7), u64::from(ids >> 3 & 3));
    let mut bytes = Vec::new();
    let disconnect;
    let payload = match input.byte() {
        0 => &[][..],
        len @ 1..=199 => &[b'x'; 400][..2 * usize::from(len)],
        200..=229 => {
            disconnect = notation::parse("AGENT-DISCONNECT fin 0 0 status-code=uint32:9 message=string:x");
            &disconnect.unwrap().payload.clone()[..]
        }
        _ => input.bytes(),
    };
    put_frame(&mut bytes, Header { frame_type, flags, ids }, payload);
    bytes
}

struct Driver<'a> {
    reactor: EngineReactor,
    config: &'a EngineConfig,
    cuts: Cuts,
    now: Timestamp,
    inbox: Inbox,
    eof: bool,
    log: Vec<String>,
    sent: Vec<u8>,
    /// Every request, and the number of its outcomes.
    asked: BTreeMap<NotifyId, usize>,
    closed: bool,
}

/// Runs the events, then all timers. Returns the actions and the sent bytes.
fn run(events: &[Event], config: &EngineConfig, layers: Layers, cuts: Cuts) -> (Vec<String>, Vec<u8>) {
    let now = Timestamp::from_millis(1_000);
    let reactor = EngineReactor::new(
        Arc::new(config.clone().checked().expect("a configuration that can work")),
        ConnectionId(1),
        now,
    )
    .with_layers(layers);
    let mut driver = Driver {
        reactor,
        config,
        cuts,
        now,
        inbox: Inbox::new(),
        eof: false,
        log: vec![],
        sent: vec![],
        asked: BTreeMap::new(),
        closed: false,
    };
    for event in events {
        driver.event(event);
        driver.promises();
    }
    driver.run_to_end();
    (driver.log, driver.sent)
}

impl Driver<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Bytes(bytes) => self.bytes(bytes),
            Event::Ask(ids, size) => {
                let waiting = self.reactor.in_flight();
                match self.reactor.notify_raw(self.now, *ids, &vec![b'q'; *size]) {
                    Ok(id) => {
                        assert!(self.asked.insert(id, 0).is_none(), "a second {id:?}");
                        assert_eq!(self.reactor.in_flight(), waiting + 1);
                    }
                    Err(error) => {
                        assert_eq!(self.reactor.in_flight(), waiting);
                        self.log.push(format!("{error:?}"));
                    }
                }
            }
            Event::Wait(millis) => self.wait(Duration::from_millis(*millis)),
            Event::Take(n) => self.take(*n),
            Event::Drain => {
                self.reactor.drain(self.now);
                self.resume();
            }
            Event::Disconnect => {
                self.reactor.disconnect(self.now, Status::NORMAL);
                self.resume();
            }
            Event::Eof => {
                if self.reactor.interest().read && !self.eof {
                    self.eof = true;
                    self.input(true);
                }
            }
            Event::Reset => {
                let action = self.reactor.on_transport_error(self.now);
                self.note(action);
            }
            Event::Shut(progress) => {
                if let Ok(action) = self.reactor.on_write_shut(self.now, *progress) {
                    self.note(action);
                }
            }
            Event::ReadBlocked => {
                let action = self.reactor.on_read_blocked(self.now);
                self.note(action);
            }
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.eof && self.reactor.interest().read {
            let len = match &mut self.cuts {
                Cuts::AsSent | Cuts::Joined => rest.len(),
                Cuts::Bytes => 1,
                Cuts::Random(random) => random.piece(rest.len()),
            };
            let (piece, more) = rest.split_at(len);
            self.inbox.extend_from_slice(piece);
            rest = more;
            self.hear();
        }
    }

    fn hear(&mut self) {
        self.input(false);
    }

    fn resume(&mut self) {
        while self.reactor.interest().resume {
            self.input(false);
        }
    }

    fn input(&mut self, eof: bool) {
        let mut inbox = std::mem::take(&mut self.inbox);
        let (reactor, now) = (&mut self.reactor, self.now);
        let mut action = if eof {
            inbox.feed(|input| reactor.on_input_eof(now, input))
        } else {
            inbox.feed(|input| reactor.on_bytes(now, input))
        };
        while self.note(action) {
            action = inbox.feed(|input| self.reactor.on_bytes(now, input));
        }
        self.inbox = inbox;
        self.resume();
    }

    fn take(&mut self, n: usize) {
        let mut left = n;
        while left > 0 && self.reactor.interest().write {
            let piece = &self.reactor.outgoing()[..self.reactor.outgoing().len().min(left)];
            let len = piece.len();
            self.sent.extend_from_slice(piece);
            left -= len;
            let action = self.reactor.on_sent(self.now, len).expect("so much was outgoing");
            self.note(action);
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((at, timer)) = self.reactor.deadline().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(at);
            while {
                let action = self.reactor.on_timeout(self.now);
                self.note(action)
            } {}
            if let Some((next, again)) = self.reactor.deadline() {
                assert!(next > self.now, "after {timer:?} at {at} the deadline of {again:?} is {next}");
            }
        }
        self.now = until;
    }

    fn note(&mut self, action: EngineAction<'_>) -> bool {
        let line = match action {
            EngineAction::Established(session) => format!("{session:?}"),
            EngineAction::Answered(answer) => {
                self.end(answer.id);
                let actions = answer.actions();
                format!("{:?} {} {:?}", answer.id, actions.iter().count(), actions.error())
            }
            EngineAction::Failed(failure) => {
                self.end(failure.id);
                format!("{failure:?}")
            }
            EngineAction::Unclaimed(ack) => {
                assert!(self.reactor.claim(self.now, ack.clone()).is_err(), "it was not for this connection");
                format!("{ack:?}")
            }
            EngineAction::SendFrames => {
                assert!(!self.reactor.outgoing().is_empty(), "SendFrames without frames");
                return false;
            }
            EngineAction::WantBytes { at_least } => {
                assert!(at_least > 0, "WantBytes that wants none");
                return false;
            }
            EngineAction::Close(ended) => {
                assert!(!self.closed, "a second Close");
                self.closed = true;
                ended.unanswered.iter().for_each(|id| self.end(*id));
                self.log.push(format!("{ended:?}"));
                return false;
            }
            other => panic!("a new action: {other:?}"),
        };
        self.log.push(line);
        true
    }

    fn end(&mut self, id: NotifyId) {
        assert!(!self.reactor.is_waiting(id));
        let ends = self.asked.get_mut(&id).expect("it was asked");
        *ends += 1;
        assert_eq!(*ends, 1, "{id:?} ends twice");
    }

    fn promises(&self) {
        let reactor = &self.reactor;
        let (interest, deadline, limits) = (reactor.interest(), reactor.deadline(), &self.config.limits);
        assert_eq!(self.asked.values().filter(|ends| **ends == 0).count(), reactor.in_flight());
        assert!(reactor.in_flight() <= self.config.max_waiting_frames);
        // A payload that is accepted below the limit may exceed it, and only a DISCONNECT may follow.
        assert!(reactor.outgoing_bytes() <= limits.max_outgoing + 3_100 + 300);
        if interest.write {
            assert!(!reactor.outgoing().is_empty());
        }
        if reactor.phase() == Phase::Closing && !interest.close {
            assert!(deadline.is_some(), "nothing ends this");
        }
        assert!(deadline.is_some() || interest.close, "nothing ends this: {interest:?}");
    }

    /// The timeouts end everything, if the agent reads.
    fn run_to_end(&mut self) {
        for _ in 0..10_000 {
            self.take(usize::MAX);
            let interest = self.reactor.interest();
            if interest.shut.is_some() {
                let action = self.reactor.on_write_shut(self.now, Progress::Done).expect("it was asked for");
                self.note(action);
                continue;
            }
            let Some((at, _)) = self.reactor.deadline() else { break };
            self.wait(at.since(self.now));
        }
        assert!(self.reactor.interest().close && self.reactor.in_flight() == 0, "{:?}", self.reactor);
        assert!(self.closed && self.asked.values().all(|ends| *ends == 1), "{:?}", self.asked);
    }
}
