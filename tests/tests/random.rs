//! Random events: the reactor does what the model does, the same however its input is cut, and keeps its promises.

#![allow(clippy::indexing_slicing)] // It is a test.

use std::time::Duration;

use proptest::{collection, prelude::*, sample};
use spop_core::{
    AgentConfig,
    agent::PipeliningPolicy,
    frame::{FrameType, Ids},
    link::{Layers, Progress},
};
use spop_fuzz_bodies::{
    agent::{BOUNDS, Event, check, config, payload_bytes, ways},
    model::{Bounds, PeerFrame},
    reference::against_the_model,
};

fn ids() -> impl Strategy<Value = Ids> + Clone {
    (0..4_u64, 0..2_u64).prop_map(|(stream, frame)| Ids::new(stream, frame))
}

/// Payloads that make messages, alone or one behind the other, and some that do not.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => Just(b"\x01m\x00".to_vec()),
        2 => Just(Vec::new()),
        2 => Just(b"\x01".to_vec()),
        2 => Just(b"m\x00".to_vec()),
        2 => Just(b"\x01m\x00".repeat(60)),
        1 => Just(b"\xff".to_vec()),
    ]
}

fn peer_frame() -> impl Strategy<Value = PeerFrame> {
    let frame_type = prop_oneof![
        40 => Just(FrameType::Notify),
        30 => Just(FrameType::Unset),
        3 => Just(FrameType::Unknown(42)),
        1 => Just(FrameType::HaproxyDisconnect),
        1 => sample::select(vec![FrameType::Ack, FrameType::AgentHello, FrameType::HaproxyHello]),
    ];
    let flags = prop_oneof![5 => Just((true, false)), 4 => Just((false, false)), 1 => Just((true, true)), 1 => Just((false, true))];
    (frame_type, flags, ids(), payload()).prop_map(|(frame_type, (fin, abort), ids, payload)| PeerFrame {
        frame_type,
        fin,
        abort,
        ids,
        payload,
    })
}

/// A frame of a payload.
fn part(first: bool, fin: bool, abort: bool, ids: Ids, payload: &[u8]) -> PeerFrame {
    let frame_type = if first { FrameType::Notify } else { FrameType::Unset };
    PeerFrame { frame_type, fin, abort, ids, payload: payload.to_vec() }
}

/// Frames that follow the rules much more often than not.
fn burst() -> impl Strategy<Value = Vec<PeerFrame>> {
    let whole = (ids(), 0..3_usize)
        .prop_map(|(ids, count)| vec![part(true, true, false, ids, &b"\x01m\x00".repeat(count))]);
    // Whole, too big, or aborted.
    let fragmented = (ids(), sample::select(vec![1, 3, 60, 80, 120]), any::<[sample::Index; 2]>(), 0..8_u8);
    let fragmented = fragmented.prop_map(|(ids, count, cuts, end)| {
        let payload = b"\x01m\x00".repeat(count);
        let mut cuts = cuts.map(|cut| cut.index(payload.len()).min(240));
        cuts.sort_unstable();
        let last = &payload[cuts[1]..(cuts[1] + 240).min(payload.len())];
        let abort = end == 0 || cuts[1] + 240 < payload.len();
        vec![
            part(true, false, false, ids, &payload[..cuts[0]]),
            part(false, false, false, ids, &payload[cuts[0]..cuts[1]]),
            part(false, true, abort, ids, last),
        ]
    });
    // The fragments of two payloads, mixed.
    let mixed = (ids(), ids()).prop_filter("two", |(a, b)| a != b).prop_map(|(a, b)| {
        vec![
            part(true, false, false, a, b"\x01"),
            part(true, false, false, b, b"\x01m"),
            part(true, true, false, Ids::new(9, 9), b"\x01m\x00"),
            part(false, true, false, a, b"m\x00"),
            part(false, true, false, b, b"\x00"),
        ]
    });
    let open = ids().prop_map(|ids| vec![part(true, false, false, ids, b"\x01m")]);
    let unknown = ids().prop_map(|ids| {
        vec![PeerFrame { frame_type: FrameType::Unknown(42), ..part(true, true, false, ids, b"x") }]
    });
    prop_oneof![
        40 => whole,
        20 => fragmented,
        4 => mixed,
        4 => open,
        2 => unknown,
        3 => collection::vec(peer_frame(), 1..3),
    ]
}

/// What the model knows.
fn plain_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        100 => collection::vec(burst(), 1..3).prop_map(|bursts| Event::Frames(bursts.concat())),
        80 => (any::<usize>(), prop_oneof![9 => 0..100_usize, 1 => 240..300_usize])
            .prop_map(|(ticket, len)| Event::Answer(ticket, len)),
        10 => any::<usize>().prop_map(Event::AbortAnswer),
        20 => ids().prop_map(Event::Refuse),
        60 => Just(Event::Take),
        1 => (0..5_u8).prop_map(Event::Disconnect),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        200 => plain_event(),
        1 => collection::vec(any::<u8>(), 0..20).prop_map(Event::Bytes),
        1 => collection::vec(0..1_u8, 0..4).prop_map(Event::Bytes),
        15 => (any::<usize>(), 0..400_usize).prop_map(|(ticket, len)| Event::AnswerPart(ticket, len)),
        15 => any::<usize>().prop_map(Event::Fail),
        10 => any::<usize>().prop_map(Event::Release),
        50 => (1..400_usize).prop_map(Event::TakeSome),
        40 => prop_oneof![0..2_u64, 0..2_000_u64, 0..20_000_u64].prop_map(Event::Wait),
        1 => Just(Event::Drain),
        20 => Just(Event::ReadBlocked),
        1 => sample::select(vec![Progress::Done, Progress::Started, Progress::Requested]).prop_map(Event::Shut),
        1 => Just(Event::Eof),
        1 => Just(Event::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_reactor_does_what_the_model_does(
        events in collection::vec(plain_event(), 1..60),
        fragmentation in prop::bool::weighted(0.9),
        alone in prop::bool::weighted(0.2),
        in_flight in 1..6_usize,
        end: bool,
        seed: u64,
    ) {
        let bounds = Bounds { fragmentation, in_flight, window: if alone { 1 } else { usize::MAX }, ..BOUNDS };
        for cuts in ways(seed) {
            against_the_model(bounds, &events, end, cuts);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_events_keep_the_promises_and_lead_to_the_same_however_cut(
        events in collection::vec(any_event(), 1..50),
        in_flight in 1..6_usize,
        always: bool,
        message: bool,
        farewell: bool,
        watch: bool,
        capabilities in sample::select(vec!["pipelining", "pipelining,async", "pipelining,fragmentation"]),
        layers in sample::select(vec![Layers::Plain, Layers::Data]),
        how in 0..3_u8,
        seed: u64,
    ) {
        let mut config = config(Bounds { in_flight, outgoing: 600, ..BOUNDS });
        config.limits.max_payload_bytes = payload_bytes(seed & 1 == 0);
        config.watch_fragments = watch;
        if always {
            config.pipelining = PipeliningPolicy::Always;
            config.processing = AgentConfig::default().processing;
        }
        if farewell {
            config.drain_timing = AgentConfig::default().drain_timing;
        }
        if message {
            config.timeouts.message = Some(Duration::from_secs(3));
        }
        check(&events, &config, Some(capabilities), layers, how, seed);
    }
}
