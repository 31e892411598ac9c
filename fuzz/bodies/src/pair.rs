//! The two reactors against each other, over any connection, with any events at any time.

use std::time::Duration;

use crate::{
    echo::{GARBLED, Profile, check_frames, handler, question},
    input::Input,
};
use spop_core::{
    AgentConfig, EngineConfig, Status,
    engine::{EngineError, NotifyId},
    frame::{Capabilities, Ids},
    link::{CloseReason, Side},
    testing::{Conditions, Cuts, Pair},
};

/// An event of a pair.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The engine sends a request of this size, which selects the kind, the size and the delay of its answer.
    Ask {
        /// The decision, see `echo.rs`.
        kind: u32,
        /// The length of the answer, in bytes.
        answer: u32,
        /// The delay of the answer, in microseconds.
        micros: u32,
        /// The length of the request, in bytes.
        body: usize,
    },
    /// The engine sends a request with the identifiers of its last one.
    Again,
    /// This many microseconds pass.
    Pass(u64),
    /// The agent drains.
    DrainAgent,
    /// The engine drains.
    DrainEngine,
    /// The agent disconnects.
    DisconnectAgent,
    /// The engine disconnects.
    DisconnectEngine,
    /// One side of the connection is shut without its reactor.
    HalfClose(Side),
    /// The connection breaks.
    Lose,
    /// The connection breaks after this many bytes.
    LoseAfter(Side, u64),
    /// A side sends one of [`INJECTED`], which its reactor did not send.
    Say(Side, usize),
}

/// Frames that are not legal, and data that is not a frame.
pub const INJECTED: [&str; 10] = [
    "ACK fin 0 1",
    "ACK fin,abort 1 1 set txn x=int32:1",
    "ACK - 1 1 hex:01",
    "ACK fin 99 7",
    "UNSET fin 0 1",
    "UNSET - 1 1 hex:00",
    "NOTIFY fin 0 1 echo n=uint32:0 n=uint32:1 n=uint32:0 body=binary:00",
    "NOTIFY - 1 1 echo n=uint32:2 n=uint32:1 n=uint32:0 body=binary:00",
    "TYPE:42 fin 1 1",
    "",
];

/// The setting of a run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The engine.
    pub engine: EngineConfig,
    /// The capabilities of the agent.
    pub agent_can: Capabilities,
    /// The agent's frame size.
    pub size: u32,
    /// The connection.
    pub conditions: Conditions,
    /// The connection from the agent to the engine.
    pub way_back: Conditions,
    /// The agent refuses a payload once this many bytes of it have arrived.
    pub refuse_at: usize,
    /// The agent's limits.
    pub max_in_flight: usize,
    /// The agent's limits.
    pub max_outgoing: usize,
}

/// Every request ends once, every connection ends, limits hold, and no frame exceeds the negotiated size.
pub fn pair(data: &[u8]) {
    let mut input = Input::new(data);
    let engine = input.pick(&Profile::ALL).config();
    let can = input.byte();
    let agent_can = [Capabilities::FRAGMENTATION, Capabilities::PIPELINING, Capabilities::ASYNC]
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| can >> bit & 1 == 0)
        .fold(Capabilities::NONE, |all, (_, one)| all | one);
    let mut conditions = Conditions::default();
    conditions.latency = Duration::from_micros(input.pick(&[0, 1, 40_000]));
    conditions.bandwidth = input.pick(&[None, Some(1 << 20), Some(2_000)]);
    conditions.cuts = match input.byte() % 4 {
        0 => Cuts::Whole,
        3 => Cuts::Each,
        _ => Cuts::Random,
    };
    conditions.buffer = input.pick(&[1 << 16, 100]);
    conditions.seed = input.byte().into();
    conditions.record = true;
    let setup = Setup {
        engine,
        agent_can,
        size: input.pick(&[256, 257, 300, 1_024, 16_380]),
        way_back: conditions.clone(),
        conditions,
        refuse_at: 16 * usize::from(input.byte()),
        max_in_flight: 1 + usize::from(input.byte()) % 40,
        max_outgoing: input.pick(&[10_000, 100, 1 << 20]),
    };
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < 60 {
        let side = |input: &mut Input<'_>| input.pick(&[Side::Engine, Side::Agent]);
        steps.push(match input.byte() % 32 {
            0..=15 => Step::Ask {
                kind: input.pick(&[0, 0, 1, 1, 1, 2, 3, 4, 0, 1, 2, 3, 4, 9]),
                answer: (input.number() % 3_000) as u32,
                micros: 20_000 * u32::from(input.byte()),
                body: input.number() % 3_000,
            },
            16 | 17 => Step::Again,
            18..=22 => Step::Pass(46 * input.number() as u64),
            23 | 24 => Step::Pass(input.byte().into()),
            25 => Step::DrainAgent,
            26 => Step::DrainEngine,
            27 => Step::DisconnectAgent,
            28 => Step::DisconnectEngine,
            29 => Step::HalfClose(side(&mut input)),
            30 if input.byte() < 128 => Step::Lose,
            30 => Step::Say(side(&mut input), usize::from(input.byte()) % INJECTED.len()),
            _ => Step::LoseAfter(side(&mut input), input.number() as u64),
        });
    }
    storm(setup, &steps);
}

/// Runs the steps, and then until no event is left.
pub fn storm(setup: Setup, steps: &[Step]) {
    let Setup { engine, agent_can, size, conditions, way_back, refuse_at, max_in_flight, max_outgoing } =
        setup;
    let agreed = engine.max_frame_size.min(size);
    let window = engine.max_waiting_frames;
    let mut agent = AgentConfig::default();
    (agent.max_frame_size, agent.capabilities) = (size, agent_can);
    // Without it, an agent whose application drops every ticket would stop reading, and never end.
    agent.timeouts.message = Some(Duration::from_secs(20));
    agent.limits.max_in_flight = max_in_flight;
    agent.limits.max_outgoing = max_outgoing;
    agent.limits.max_payload = 2_500;
    agent.watch_fragments = true;
    let mut pair = Pair::with(conditions, engine, agent, handler)
        .with_way_back(way_back)
        .refusing(move |part| part.payload().len() > refuse_at);
    pair.run_handshake();
    let mut asked = Vec::new();
    for step in steps {
        match *step {
            Step::Ask { kind, answer, micros, body } => {
                asked.extend(pair.notify(None, &question(&[kind, answer, micros], body)));
            }
            Step::Again => {
                if let Some(id) = asked.last().copied() {
                    let ids: Ids = NotifyId::ids(id);
                    asked.extend(pair.notify(Some(ids), &question(&[0, 1, 0], 1)));
                }
            }
            Step::Pass(micros) => pair.run_for(Duration::from_micros(micros)),
            Step::DrainAgent => pair.drain_agent(),
            Step::DrainEngine => pair.drain_engine(),
            Step::DisconnectAgent => pair.disconnect_agent(Status(500), "enough"),
            Step::DisconnectEngine => pair.disconnect_engine(Status::NORMAL),
            Step::HalfClose(side) => pair.half_close(side),
            Step::Lose => pair.lose(),
            Step::LoseAfter(side, bytes) => pair.break_after(side, bytes),
            Step::Say(side, what) if INJECTED[what].is_empty() => pair.inject_raw(side, &[0xff; 9]),
            Step::Say(side, what) => pair.say(side, INJECTED[what]).unwrap(),
        }
        // One frame may exceed the limit, and one answer may be sent in fragments beyond it.
        assert!(pair.agent().outgoing_bytes() <= 2 * max_outgoing + 3_100 + max_in_flight * 100);
        assert!(pair.agent().in_flight() <= max_in_flight);
        assert!(pair.engine().in_flight() <= window && pair.engine().outgoing_bytes() <= window * 16_384);
    }
    pair.run_until_settled();
    let mut settled: Vec<_> = pair.outcomes().iter().map(|(id, _)| *id).collect();
    settled.sort_unstable();
    assert_eq!(settled, asked);
    for (_, outcome) in pair.outcomes() {
        // Answered, or failed for a specific reason.
        let named = !outcome.is_waiting() && outcome.error() != Some(EngineError::Unknown);
        assert!(named, "{}", outcome.sentence());
    }
    pair.run_to_end();
    assert!(pair.is_over(), "engine {:?}, agent {:?}", pair.engine(), pair.agent());
    assert!(pair.engine_ended().is_some() && pair.agent_closed().is_some());
    // An injected frame can lie in the middle of a frame, and change its request.
    if !steps.iter().any(|step| matches!(step, Step::Say(..))) {
        let closed = pair.agent_closed().map(|closed| &closed.reason);
        assert!(!matches!(closed, Some(CloseReason::Disconnect(GARBLED))), "a question was garbled");
        if pair.session().is_some() {
            check_frames(&pair, agreed);
        }
    }
}
