//! The end of a session.

use super::*;

#[test]
fn what_the_old_one_answers_the_new_one_dies_of() {
    for (line, code) in [
        ("ACK - 1 1", 10),
        ("UNSET - 1 1", 10),
        ("NOTIFY - 1 1", 4),
        ("ACK fin 1 2", 0),
        ("ACK fin 99 1", 0),
        ("ACK fin 0 1", 0),
        ("TYPE:42 fin 0 0", 0),
    ] {
        let mut engine = Engine::greeted(no_async(old()), HELLO);
        engine.notify(Some(Ids::new(1, 1)), 1).unwrap();
        engine.sent();
        assert!(engine.feed(&[line]).is_empty());
        if code == 0 {
            assert!(engine.sent().is_empty());
            assert_eq!(engine.feed(&["ACK fin 1 1"]), ["1/1 answered"]);
        } else {
            assert_eq!(
                engine.sent(),
                [format!("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:{code}")],
                "{line}"
            );
            let bye = "AGENT-DISCONNECT fin 0 0 status-code=uint32:0 message=string:\"\"";
            assert_eq!(engine.feed(&["ACK fin 1 1", bye]), ["close 256 [1/1]"]);
        }

        let mut engine = Engine::greeted(new(), HELLO);
        engine.notify(None, 1).unwrap();
        engine.sent();
        assert!(engine.feed(&[line, "ACK fin 1 1"]).is_empty(), "{line}");
        assert!(engine.reactor.outgoing().is_empty());
        assert_eq!(engine.reactor.interest(), crate::Interest::default());
        assert_eq!(engine.timeout(), ["1/1 failed 1", "close 257 []"], "{line}");
        assert!(engine.reactor.interest().close);
    }
}

#[test]
fn an_old_one_stalls_on_a_frame_of_length_zero() {
    let mut engine = Engine::greeted(old(), HELLO);
    engine.notify(None, 1).unwrap();
    assert!(engine.bytes(&[0, 0, 0, 0]).is_empty());
    assert_eq!(engine.timeout(), ["0/1 failed 1", "close 257 []"]);
}

#[test]
fn an_agent_that_goes_takes_its_requests_along() {
    let bye = "AGENT-DISCONNECT fin 0 0 status-code=uint32:4 message=string:bye";
    for config in [no_async(old()), new()] {
        let mut engine = Engine::greeted(config.clone(), HELLO);
        let ids = engine.notify(None, 1).unwrap();
        engine.sent();
        assert_eq!(engine.feed(&[bye, "ACK fin 1 1"]), [format!("close 260 [{ids}]")]);
        assert!(engine.sent().is_empty() && engine.reactor.interest().close);

        let mut engine = Engine::greeted(config, HELLO);
        let ids = engine.notify(None, 1).unwrap();
        engine.sent();
        let goodbye = engine.reactor.config.profile.sends_disconnect;
        assert_eq!(engine.eof(), [format!("close 257 [{ids}]")]);
        assert_eq!(engine.sent().len(), usize::from(goodbye));
    }
    let mut engine = Engine::greeted(old(), HELLO_ALL);
    engine.notify(None, 1).unwrap();
    engine.sent();
    assert_eq!(engine.feed(&[bye]), ["close 260 [0/1] orphaned"]);
}

/// A draining engine, and its request in flight.
fn draining(config: EngineConfig) -> (Engine, Ids) {
    let mut engine = Engine::greeted(config, HELLO);
    let ids = engine.notify(None, 1).unwrap();
    engine.sent();
    engine.reactor.drain(engine.now);
    assert!(!engine.reactor.interest().resume);
    (engine, ids)
}

#[test]
fn a_drain_ends_with_the_last_answer() {
    for (config, goodbye) in [(no_async(old()), true), (new(), false)] {
        let (mut engine, ids) = draining(config);
        assert_eq!(engine.notify(None, 1), Err(NotifyError::NoSession));
        let said = engine.feed(&[&format!("ACK fin {} {}", ids.stream, ids.frame)]);
        assert_eq!(said[0], format!("{ids} answered"));
        if goodbye {
            assert_eq!(engine.sent(), ["HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0"]);
        } else {
            assert_eq!(said[1], "close 256 []");
        }
    }
}

#[test]
fn a_drain_ends_before_what_comes_behind_the_last_answer() {
    for apart in [false, true] {
        for (config, goodbye) in [(no_async(old()), true), (new(), false)] {
            let (mut engine, ids) = draining(config);
            let mut said = vec![];
            let ack = format!("ACK fin {} {}", ids.stream, ids.frame);
            // An error: fragments were not announced.
            let frames = [&*ack, "ACK - 1 1"];
            if apart {
                for frame in frames {
                    said.extend(engine.feed(&[frame]));
                }
            } else {
                said.extend(engine.feed(&frames));
            }
            if goodbye {
                assert_eq!(engine.sent(), ["HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0"]);
                said.extend(
                    engine.feed(&["AGENT-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye"]),
                );
            }
            assert_eq!(said[0], format!("{ids} answered"));
            assert_eq!(said[1..], ["close 256 []"], "apart: {apart}");
        }
    }
}

#[test]
fn a_failed_transport_fails_what_waits() {
    let mut engine = Engine::greeted(old(), HELLO);
    engine.notify(None, 1).unwrap();
    let mut said = vec![];
    let action = engine.reactor.on_transport_error(engine.now);
    Engine::log_action(&mut said, action);
    assert_eq!(said, ["close 257 [0/1]"]);
    assert!(engine.reactor.interest().close && engine.reactor.deadline().is_none());
    assert_eq!(engine.notify(None, 1), Err(NotifyError::NoSession));
}

#[test]
fn codes_are_those_of_set_on_error() {
    let errors = [
        EngineError::Timeout,
        EngineError::Resources,
        EngineError::TooBig,
        EngineError::Aborted,
        EngineError::Interrupted,
        EngineError::Unknown,
        EngineError::Spop(Status::NORMAL),
        EngineError::Spop(Status(99)),
    ]
    .map(|error| (error.code(), error.to_string()));
    assert_eq!(errors.clone().map(|(code, _)| code), [1, 2, 3, 4, 5, 255, 256, 355]);
    for (code, words) in errors {
        assert!(words.starts_with(&format!("{code} (")), "{words}");
    }
}

#[test]
fn half_a_frame_does_not_keep_a_connection_from_being_idle() {
    let mut engine = Engine::greeted(old(), HELLO);
    assert!(engine.reactor.config.timeouts.frame.is_none());
    assert!(engine.bytes(&[0]).is_empty());
    assert!(engine.timeout().is_empty());
    assert_eq!(engine.sent(), ["HAPROXY-DISCONNECT fin 0 0 status-code=uint32:2"]);
}

#[test]
fn a_frame_at_fault_is_no_loss_however_it_arrives() {
    for cut in 0..4 {
        let mut engine = Engine::greeted(old(), HELLO);
        let (head, rest) = [0xff; 4].split_at(cut);
        engine.inbox.extend_from_slice(head);
        let _ = engine.inbox.feed(|input| engine.reactor.on_bytes(engine.now, input));
        engine.inbox.extend_from_slice(rest);
        let action = engine.inbox.feed(|input| engine.reactor.on_bytes(engine.now, input));
        let EngineAction::Close(ended) = action else { panic!("{action:?}") };
        assert_eq!(ended.closed.lost.frame_bytes, 0, "cut after {cut} bytes");
    }
}
