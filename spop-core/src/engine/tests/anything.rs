//! Random frames and events from an agent.

use proptest::{collection, prelude::*, sample::select};

use super::*;
use crate::frame::{Flags, FrameType, Header};

#[derive(Clone, Debug)]
enum Step {
    Frame(Vec<u8>),
    Bytes(Vec<u8>),
    Ask(usize),
    Timeout,
    Drain,
    Disconnect,
    Sent(usize),
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let types = [0_u8, 1, 2, 3, 101, 102, 103, 103, 103, 42];
    let payload = prop_oneof![
        4 => Just(vec![]),
        2 => collection::vec(any::<u8>(), 0..40),
        1 => Just(notation::parse(HELLO_ALL).unwrap().payload),
        1 => Just(
            notation::parse("AGENT-DISCONNECT fin 0 0 status-code=uint32:9 message=string:x").unwrap().payload
        ),
    ];
    (select(types.to_vec()), select(vec![0_u32, 1, 1, 1, 2, 3, 0xffff_ffff]), 0_u64..6, 0_u64..3, payload)
        .prop_map(|(frame_type, flags, stream, frame, payload)| {
            let ids = Ids::new(stream, frame);
            let header = Header { frame_type: FrameType::from_byte(frame_type), flags: Flags(flags), ids };
            let mut bytes = Vec::new();
            Frame { header, payload: &payload }.encode(&mut bytes);
            bytes
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => frame().prop_map(Step::Frame),
        1 => collection::vec(any::<u8>(), 0..30).prop_map(Step::Bytes),
        10 => select(vec![1_usize, 1, 1, 700, 5_000]).prop_map(Step::Ask),
        2 => Just(Step::Timeout),
        1 => Just(Step::Drain),
        1 => Just(Step::Disconnect),
        5 => (0_usize..600).prop_map(Step::Sent),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 2_000 }))]

    #[test]
    fn every_request_ends_once(
        config in select(vec![quick(EngineConfig::default()), old(), no_async(old()), new()]),
        greeted in prop::bool::weighted(0.9),
        whole: bool,
        steps in collection::vec(step(), 0..40),
    ) {
        let mut engine = Engine::new(config);
        let mut said = vec![];
        if greeted {
            said = engine.feed(&[HELLO_ALL]);
        }
        let mut asked = 0;
        for step in steps {
            match step {
                Step::Frame(bytes) | Step::Bytes(bytes) if whole => said.extend(engine.bytes(&bytes)),
                Step::Frame(bytes) | Step::Bytes(bytes) => {
                    for byte in bytes {
                        said.extend(engine.bytes(&[byte]));
                    }
                }
                Step::Ask(size) => asked += usize::from(engine.notify(None, size).is_ok()),
                Step::Timeout => {
                    if engine.reactor.deadline().is_some() {
                        said.extend(engine.timeout());
                    }
                }
                Step::Drain => {
                    engine.reactor.drain(engine.now);
                }
                Step::Disconnect => {
                    engine.reactor.disconnect(engine.now, Status::NORMAL);
                }
                Step::Sent(n) => {
                    let n = n.min(engine.reactor.outgoing().len());
                    let action = engine.reactor.on_sent(engine.now, n).unwrap();
                    Engine::log_action(&mut said, action);
                }
            }
            if engine.reactor.interest().resume {
                said.extend(engine.bytes(&[]));
            }
        }
        // The timeouts end everything, if the agent reads.
        loop {
            while !engine.reactor.outgoing().is_empty() {
                let n = engine.reactor.outgoing().len();
                let action = engine.reactor.on_sent(engine.now, n).unwrap();
                Engine::log_action(&mut said, action);
            }
            if engine.reactor.deadline().is_none() {
                break;
            }
            let before = engine.reactor.deadline();
            said.extend(engine.timeout());
            prop_assert!(engine.reactor.deadline().is_none_or(|after| after > before.unwrap()));
        }
        let closes: Vec<_> = said.iter().filter(|word| word.starts_with("close")).collect();
        prop_assert_eq!(closes.len(), 1, "{:?}", said);
        let (_, rest) = closes[0].split_once('[').unwrap();
        let unanswered = rest.split(']').next().unwrap().split_whitespace().count();
        let settled = said.iter().filter(|word| word.contains(" answered") || word.contains(" failed")).count();
        prop_assert_eq!(settled + unanswered, asked, "{:?}", said);
        prop_assert!(engine.reactor.interest().close && engine.reactor.in_flight() == 0);
    }
}
