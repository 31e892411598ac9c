//! The profiles of HAProxy's versions, as measured with 2.6.12, 3.0.11, 3.2.26, 3.4.7 and 3.5-dev5.

use super::*;
use crate::{CloseReason, Interest, Timer};

const BYE: &str = "AGENT-DISCONNECT fin 0 0 status-code=uint32:42 message=string:bye";

fn v3_2() -> EngineConfig {
    quick(EngineConfig::haproxy_3_2())
}

#[test]
fn hello_and_disconnect_in_segments_are_taken_from_3_2_26_on() {
    let hello = notation::parse_bytes(HELLO).unwrap();
    let bye = notation::parse_bytes(BYE).unwrap();
    for cut in 1..hello.len() {
        let mut engine = Engine::new(v3_2());
        engine.sent();
        let mut said = engine.bytes(&hello[..cut]);
        said.extend(engine.bytes(&hello[cut..]));
        assert_eq!(said, ["established"], "cut at {cut}");
        engine.notify(None, 1).unwrap();
        let cut = cut.min(bye.len() - 1);
        let mut said = engine.bytes(&bye[..cut]);
        said.extend(engine.bytes(&bye[cut..]));
        assert_eq!(said, ["close 298 [1/1]"], "cut at {cut}");
    }
}

#[test]
fn a_bad_hello_is_told_from_3_2_on_and_the_reply_is_not_awaited() {
    let bad = "AGENT-HELLO fin 0 0 version=string:1.0 max-frame-size=uint32:256 capabilities=string:\"\"";
    let mut engine = Engine::new(v3_2());
    engine.sent();
    assert_eq!(engine.feed(&[bad]), ["close 264 []"]);
    assert!(!engine.reactor.interest().close, "the DISCONNECT comes first");
    assert_eq!(engine.sent(), ["HAPROXY-DISCONNECT fin 0 0 status-code=uint32:8"]);
    // After other faults of the handshake, and in health checks, it closes without a DISCONNECT.
    let mut engine = Engine::new(v3_2());
    engine.sent();
    assert_eq!(engine.feed(&["ACK fin 1 1"]), ["close 260 []"]);
    assert!(engine.reactor.outgoing().is_empty() && engine.reactor.interest().close);
    let mut engine = Engine::new(EngineConfig { healthcheck: true, ..v3_2() });
    engine.sent();
    assert_eq!(engine.feed(&[bad]), ["close 264 []"]);
    assert!(engine.reactor.outgoing().is_empty() && engine.reactor.interest().close);
}

#[test]
fn frames_out_of_place_are_skipped_by_all_of_them() {
    for config in [no_async(old()), new(), v3_2()] {
        let mut engine = Engine::greeted(config, HELLO);
        let ids = engine.notify(None, 1).unwrap();
        let ids = [ids, engine.notify(None, 1).unwrap()];
        engine.sent();
        let [first, second] = ids.map(|ids| format!("{} {}", ids.stream, ids.frame));
        let (notify, unset) = (format!("NOTIFY fin {second}"), format!("UNSET fin {second}"));
        let (ack, other) = (format!("ACK fin {first}"), format!("ACK fin {second}"));
        let frames = [HELLO, &notify, &ack, &unset, &unset, "TYPE:42 fin 1 1", HELLO, &other];
        assert_eq!(engine.feed(&frames), ids.map(|ids| format!("{ids} answered")));
        // Also byte by byte.
        let ids = engine.notify(None, 1).unwrap();
        engine.sent();
        let ack = format!("ACK fin {} {}", ids.stream, ids.frame);
        let bytes: Vec<_> =
            [HELLO, &unset, &ack].iter().flat_map(|line| notation::parse_bytes(line).unwrap()).collect();
        if !engine.reactor.config.profile.rejects_split_frames {
            let said: Vec<_> = bytes.iter().flat_map(|byte| engine.bytes(&[*byte])).collect();
            assert_eq!(said, [format!("{ids} answered")]);
        }
    }
    // An engine as specified rejects them.
    for line in [HELLO, "NOTIFY fin 0 1", "UNSET fin 0 1"] {
        let mut engine = Engine::greeted(quick(EngineConfig::default()), HELLO);
        engine.notify(None, 1).unwrap();
        engine.sent();
        assert!(engine.feed(&[line]).is_empty());
        assert!(engine.sent()[0].starts_with("HAPROXY-DISCONNECT fin 0 0"), "{line}");
    }
}

#[test]
fn a_full_buffer_makes_a_connection_deaf_and_it_stays_in_use() {
    for config in [new(), v3_2()] {
        let mut engine = Engine::greeted(config, HELLO);
        engine.notify(None, 1).unwrap();
        engine.sent();
        assert!(engine.feed(&["ACK fin 1 1 hex:00*16373"]).is_empty());
        assert_eq!(engine.reactor.interest(), Interest::default());
        // Further requests are sent, and none is answered.
        assert_eq!(engine.notify(None, 1), Ok(Ids::new(3, 1)));
        assert_eq!(engine.sent(), ["NOTIFY fin 3 1"]);
        assert!(engine.feed(&["ACK fin 3 1"]).is_empty() && engine.eof().is_empty());
        assert_eq!(engine.timeout(), ["1/1 failed 1", "3/1 failed 1"]);
        engine.notify(None, 1).unwrap();
        assert_eq!(engine.sent(), ["NOTIFY fin 5 1"]);
        assert_eq!(engine.timeout(), ["5/1 failed 1"]);
        // `timeout idle` ends it.
        assert_eq!(engine.reactor.deadline().unwrap().1, Timer::Idle);
        engine.now = engine.reactor.deadline().unwrap().0;
        let EngineAction::Close(ended) = engine.reactor.on_timeout(engine.now) else { panic!() };
        assert_eq!(ended.closed.reason, CloseReason::Stalled);
        assert!(engine.reactor.interest().close);
    }
    let mut engine = Engine::greeted(no_async(old()), HELLO);
    engine.notify(Some(Ids::new(1, 1)), 1).unwrap();
    assert_eq!(engine.feed(&["ACK fin 1 1 hex:00*16373"]), ["1/1 answered"]);
}

#[test]
fn a_malformed_disconnect_ends_the_requests_at_once() {
    for config in [new(), v3_2()] {
        let mut engine = Engine::greeted(config, HELLO);
        engine.notify(None, 1).unwrap();
        assert_eq!(engine.feed(&["AGENT-DISCONNECT fin 0 0 hex:7a7a7a7a"]), ["close 260 [1/1]"]);
        assert!(engine.reactor.interest().close);
    }
}

#[test]
fn the_end_of_input_behind_a_disconnect_hides_it_from_requests() {
    for (config, fails_at_once) in [(no_async(old()), true), (new(), true), (v3_2(), false)] {
        let mut engine = Engine::greeted(config, HELLO);
        let ids = engine.notify(None, 1).unwrap();
        engine.sent();
        engine.inbox.extend_from_slice(&notation::parse_bytes(BYE).unwrap());
        if fails_at_once {
            assert_eq!(engine.eof(), [format!("close 298 [{ids}]")]);
        } else {
            assert!(engine.eof().is_empty());
            assert_eq!(engine.timeout(), [format!("{ids} failed 1"), "close 257 []".into()]);
        }
    }
    // A FIN that arrives later has no effect; and without a request in flight the DISCONNECT is processed.
    let mut engine = Engine::greeted(v3_2(), HELLO);
    engine.notify(None, 1).unwrap();
    assert_eq!(engine.feed(&[BYE]), ["close 298 [1/1]"]);
    let mut engine = Engine::greeted(v3_2(), HELLO);
    engine.inbox.extend_from_slice(&notation::parse_bytes(BYE).unwrap());
    assert_eq!(engine.eof(), ["close 298 []"]);
}

/// The profiles in a `Pair`.
mod in_a_pair {
    use super::*;
    use crate::{
        Actions, AgentConfig, Scope, Value,
        agent::PipeliningPolicy,
        link::Side,
        testing::{Decision, Pair},
    };

    fn agent(capabilities: Capabilities) -> AgentConfig {
        AgentConfig { capabilities, pipelining: PipeliningPolicy::Always, ..AgentConfig::default() }
    }

    fn question() -> MessageList {
        let mut list = MessageList::new();
        list.message("m");
        list
    }

    #[test]
    fn the_next_notify_comes_before_the_late_ack_from_3_1_on() {
        for (config, reuses) in [(old(), false), (new(), true), (v3_2(), true)] {
            let mut slow = true;
            let mut pair = Pair::new(config, agent(Capabilities::NONE), |_| {
                let delay = if core::mem::take(&mut slow) { 3_000 } else { 100 };
                Decision::After(Duration::from_millis(delay), Actions::new())
            });
            assert!(pair.run_handshake());
            pair.notify(None, &question()).unwrap();
            assert_eq!(pair.notify(None, &question()), Err(NotifyError::Busy), "one at a time");
            pair.run_for(Duration::from_secs(2));
            assert_eq!(pair.outcomes().len(), 1, "timed out");
            let next = pair.notify(None, &question());
            assert_eq!(next.is_ok(), reuses);
            pair.run_for(Duration::from_millis(500));
            assert_eq!(pair.outcomes().len(), if reuses { 2 } else { 1 });
            pair.run_for(Duration::from_secs(1));
            assert!(pair.notify(None, &question()).is_ok());
        }
    }

    #[test]
    fn twenty_wait_with_pipelining_and_one_without() {
        for config in [new(), v3_2()] {
            for (capabilities, most) in [(Capabilities::PIPELINING, 20), (Capabilities::NONE, 1)] {
                let mut pair = Pair::new(config.clone(), agent(capabilities), |_| Decision::Never);
                assert!(pair.run_handshake());
                assert_eq!((0..30).take_while(|_| pair.notify(None, &question()).is_ok()).count(), most);
            }
        }
    }

    #[test]
    fn an_agent_that_fills_the_buffer_is_not_heard_any_more() {
        for config in [new(), v3_2()] {
            let mut pair =
                Pair::new(config, agent(Capabilities::PIPELINING), |_| Decision::Now(Actions::new()));
            assert!(pair.run_handshake());
            pair.notify(None, &question()).unwrap();
            pair.run_until_settled();
            let mut actions = Actions::new();
            actions.set_var(Scope::Transaction, "x", Value::Binary(&[0; 2_000]));
            let mut bytes = vec![];
            for stream in 1..=9 {
                let ids = Ids::new(stream, 1);
                let header = crate::frame::Header {
                    frame_type: crate::frame::FrameType::Ack,
                    flags: crate::frame::Flags::FIN,
                    ids,
                };
                crate::frame::put_frame(&mut bytes, header, actions.as_bytes());
            }
            pair.notify(None, &question()).unwrap();
            pair.run_until_settled();
            pair.inject_raw(Side::Agent, &bytes);
            pair.run_for(Duration::from_millis(1));
            for _ in 0..3 {
                let asked = pair.notify(None, &question()).unwrap();
                pair.run_for(Duration::from_secs(2));
                let (id, outcome) = pair.outcomes().last().unwrap();
                assert_eq!(*id, asked);
                assert!(outcome.error().is_some(), "{outcome:?}");
            }
        }
    }
}
