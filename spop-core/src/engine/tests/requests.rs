//! Requests, fragments, answers, and ACKs that match no request.

use super::*;

#[test]
fn requests_are_numbered_by_habit() {
    let mut engine = Engine::greeted(new(), HELLO);
    for stream in [1, 3, 5] {
        assert_eq!(engine.notify(None, 1), Ok(Ids::new(stream, 1)));
    }
    assert_eq!(engine.notify(Some(Ids::new(9, 1)), 1), Err(NotifyError::OwnIds));
    let mut engine = Engine::greeted(old(), HELLO);
    for stream in [0, 1] {
        assert_eq!(engine.notify(None, 1), Ok(Ids::new(stream, 1)));
    }
    assert_eq!(engine.notify(Some(Ids::new(1, 2)), 1), Ok(Ids::new(1, 2)));
    assert_eq!(engine.notify(Some(Ids::new(1, 2)), 1), Err(NotifyError::InUse(Ids::new(1, 2))));
    assert_eq!(engine.sent(), ["NOTIFY fin 0 1", "NOTIFY fin 1 1", "NOTIFY fin 1 2"]);
}

#[test]
fn the_window_is_what_was_negotiated() {
    for (hello, window) in [(HELLO, 20), (HELLO_NONE, 1)] {
        let mut engine = Engine::greeted(new(), hello);
        assert_eq!((0..30).take_while(|_| engine.notify(None, 1).is_ok()).count(), window);
        assert_eq!(engine.notify(None, 1), Err(NotifyError::Busy));
        assert_eq!(engine.feed(&["ACK fin 1 1"]), ["1/1 answered"]);
        assert!(engine.notify(None, 1).is_ok());
    }
}

#[test]
fn answers_come_in_any_order_and_count_once() {
    let mut engine = Engine::greeted(old(), HELLO);
    for _ in 0..3 {
        engine.notify(None, 1).unwrap();
    }
    assert_eq!(
        engine.feed(&[
            "ACK fin 2 1",
            "ACK fin,abort 0 1",
            "ACK fin 2 1",
            "ACK fin 9 9",
            "TYPE:42 fin 0 0",
            "ACK fin 1 1"
        ]),
        ["2/1 answered", "0/1 answered", "1/1 answered"]
    );
    assert_eq!((engine.reactor.ignored_acks(), engine.reactor.skipped_frames()), (2, 1));
}

#[test]
fn a_request_that_times_out_leaves_the_connection_well() {
    let mut engine = Engine::greeted(old(), HELLO);
    engine.notify(Some(Ids::new(1, 1)), 1).unwrap();
    assert_eq!(engine.timeout(), ["1/1 failed 1"]);
    // The same identifiers are used again, and the late answer matches them.
    engine.notify(Some(Ids::new(1, 1)), 1).unwrap();
    assert_eq!(engine.feed(&["ACK fin 1 1", "ACK fin 1 1"]), ["1/1 answered"]);
    assert_eq!(engine.sent(), ["NOTIFY fin 1 1", "NOTIFY fin 1 1"]);
}

#[test]
fn without_pipelining_a_late_ack_is_waited_for_or_not() {
    let mut engine = Engine::greeted(old(), HELLO_NONE);
    engine.notify(None, 1).unwrap();
    assert_eq!(engine.timeout(), ["0/1 failed 1"]);
    assert_eq!(engine.notify(None, 1), Err(NotifyError::Busy));
    assert!(engine.feed(&["ACK fin 0 1"]).is_empty());
    engine.notify(None, 1).unwrap();
    engine.sent();
    assert!(engine.feed(&["ACK fin 0 1"]).is_empty());
    assert_eq!(engine.sent(), ["HAPROXY-DISCONNECT fin 0 0 status-code=uint32:12"]);
    assert_eq!(engine.eof(), ["close 257 [1/1]"]);

    let mut engine = Engine::greeted(new(), HELLO_NONE);
    engine.notify(None, 1).unwrap();
    assert_eq!(engine.timeout(), ["1/1 failed 1"]);
    engine.notify(None, 1).unwrap();
    assert_eq!(engine.feed(&["ACK fin 1 1", "ACK fin 3 1"]), ["3/1 answered"]);
}

#[test]
fn long_payloads_leave_in_fragments_of_the_size_haproxy_makes_them() {
    let mut engine = Engine::greeted(old(), HELLO_ALL);
    engine.notify(None, 224 - 7).unwrap();
    assert_eq!(engine.sent(), ["NOTIFY fin 0 1"]);
    engine.notify(None, 600).unwrap();
    engine.notify(None, 1).unwrap();
    assert_eq!(engine.sent(), ["NOTIFY - 1 1", "UNSET - 1 1", "UNSET fin 1 1", "NOTIFY fin 2 1"]);
    engine.notify(None, 5_000).unwrap();
    assert_eq!(engine.notify(None, 1), Err(NotifyError::Busy), "fragments are never interleaved");
    let lengths = |bytes: &[u8]| u32::from_be_bytes(*bytes.first_chunk().unwrap());
    assert_eq!(lengths(engine.reactor.outgoing()), 7 + 224);
    assert_eq!(engine.sent().len(), 23);
    assert!(engine.notify(None, 1).is_ok());
}

#[test]
fn a_payload_that_cannot_be_fragmented_is_error_3() {
    for engine in [
        Engine::greeted(old(), HELLO_NONE),
        Engine::greeted(new(), HELLO_ALL),
        Engine::greeted(EngineConfig { send_frag_payload: false, ..old() }, HELLO_ALL),
    ] {
        let mut engine = engine;
        assert_eq!(engine.notify(None, 600), Err(NotifyError::TooBig { size: 608, limit: 224 }));
        assert!(engine.reactor.outgoing().is_empty() && engine.reactor.in_flight() == 0);
    }
}

#[test]
fn a_refused_payload_is_error_4_and_its_rest_is_not_sent() {
    let mut engine = Engine::greeted(no_async(old()), HELLO_ALL);
    engine.notify(None, 5_000).unwrap();
    let queued = engine.reactor.outgoing().len();
    assert!(engine.feed(&["ACK fin 0 1 set txn a=int32:1"]).is_empty(), "too early to be an answer");
    assert_eq!(engine.feed(&["ACK fin,abort 0 1"]), ["0/1 failed 4"]);
    assert_eq!(engine.reactor.outgoing().len(), queued, "no FIN and no ABORT closes it");
    engine.sent();
    assert!(engine.feed(&["ACK fin 0 1"]).is_empty());
    // After the last fragment, ABORT is ignored.
    engine.notify(None, 300).unwrap();
    assert_eq!(engine.feed(&["ACK fin,abort 1 1 set txn a=int32:1"]), ["1/1 answered"]);
}

#[test]
fn a_timeout_amid_fragments_aborts_them() {
    let mut engine = Engine::greeted(old(), HELLO_ALL);
    engine.notify(None, 5_000).unwrap();
    assert_eq!(engine.timeout(), ["0/1 failed 1"]);
    let sent = engine.sent();
    assert!(sent.len() < 10 && sent[0] == "NOTIFY - 0 1", "{sent:?}");
    assert_eq!(sent.last().unwrap(), "UNSET fin,abort 0 1");
    engine.notify(None, 300).unwrap();
    assert_eq!(engine.timeout(), ["1/1 failed 1"]);
    assert_eq!(engine.sent(), ["NOTIFY - 1 1", "UNSET fin 1 1"]);
}

#[test]
fn an_ack_may_take_another_connection_of_the_engine() {
    let (mut home, mut other) = (Engine::greeted(old(), HELLO_ALL), Engine::greeted(old(), HELLO_ALL));
    home.notify(Some(Ids::new(7, 1)), 1).unwrap();
    other.inbox.extend_from_slice(&notation::parse_bytes("ACK fin 7 1 set txn a=int32:1").unwrap());
    let EngineAction::Unclaimed(ack) = other.inbox.feed(|input| other.reactor.on_bytes(other.now, input))
    else {
        panic!()
    };
    let answer = home.reactor.claim(home.now, ack.clone()).unwrap();
    assert_eq!((answer.id.ids(), answer.actions().iter().count()), (Ids::new(7, 1), 1));
    assert_eq!(home.reactor.claim(home.now, ack.clone()).unwrap_err(), ack);
}

#[test]
fn fragmented_answers_are_taken_by_who_announced_it() {
    let mut engine = Engine::greeted(quick(EngineConfig::default()), HELLO_ALL);
    for _ in 0..3 {
        engine.notify(None, 1).unwrap();
    }
    assert!(engine.feed(&["ACK - 0 1 hex:01", "ACK - 1 1 hex:01", "UNSET - 0 1 hex:02"]).is_empty());
    assert_eq!(
        engine.feed(&["UNSET fin,abort 1 1", "UNSET fin 0 1 hex:03"]),
        ["1/1 failed 4", "0/1 answered"]
    );
    assert!(engine.feed(&["ACK - 9 9", "UNSET - 9 9", "UNSET fin 9 9"]).is_empty());
    assert!(engine.feed(&["UNSET fin 9 9"]).is_empty());
    engine.sent();
    assert_eq!(engine.eof(), ["close 257 [2/1]"]);
}

#[test]
fn fragmented_answers_have_limits_and_a_timeout() {
    let mut config = quick(EngineConfig::default());
    config.limits.max_payload = 3;
    config.limits.max_payloads = 1;
    config.timeouts.frame = Some(Duration::from_secs(1));
    let mut engine = Engine::greeted(config, HELLO_ALL);
    for _ in 0..5 {
        engine.notify(None, 1).unwrap();
    }
    engine.sent();
    assert_eq!(engine.feed(&["ACK - 0 1 hex:01020304"]), ["0/1 failed 2"]);
    assert!(engine.feed(&["UNSET fin 0 1 hex:05"]).is_empty(), "the rest is swallowed");
    assert_eq!(engine.feed(&["ACK - 1 1 hex:0102", "UNSET - 1 1 hex:0304"]), ["1/1 failed 2"]);
    assert!(engine.feed(&["ACK - 2 1 hex:01"]).is_empty());
    assert_eq!(engine.timeout(), ["2/1 failed 1"], "a second before the request would have timed out");
    assert!(engine.feed(&["UNSET fin 2 1", "ACK - 3 1 hex:01", "ACK - 4 1 hex:01"]).is_empty());
    assert_eq!(engine.sent(), ["HAPROXY-DISCONNECT fin 0 0 status-code=uint32:11"]);
}

#[test]
fn what_is_asked_and_answered_is_not_in_the_debug_output_of_an_engine() {
    let mut engine = Engine::greeted(quick(EngineConfig::default()), HELLO_ALL);
    let secret = [0x5e_u8; 16];
    let forms = ["^^^^", "5e5e", "94, 94", "94,94"];
    for _ in 0..3 {
        engine.reactor.notify_raw(engine.now, None, &secret).unwrap();
    }
    // In fragments, some of them queued.
    engine.reactor.notify_raw(engine.now, None, &[0x5e; 4_000]).unwrap();
    assert!(engine.reactor.outgoing_bytes() > engine.reactor.outgoing().len());
    assert!(engine.feed(&["ACK - 0 1 hex:5e5e5e5e5e5e"]).is_empty());
    engine.inbox.extend_from_slice(&notation::parse_bytes("ACK fin 1 1 hex:5e5e5e5e5e5e").unwrap());
    let EngineAction::Answered(answer) =
        engine.inbox.feed(|input| engine.reactor.on_bytes(engine.now, input))
    else {
        panic!()
    };
    let answer = format!("{answer:?}");
    engine.inbox.extend_from_slice(&notation::parse_bytes("ACK fin 77 1 hex:5e5e5e5e5e5e").unwrap());
    let unclaimed = engine.inbox.feed(|input| engine.reactor.on_bytes(engine.now, input));
    let unclaimed = format!("{unclaimed:?}");
    let mut shown = vec![format!("{:?}", engine.reactor), answer, unclaimed];
    shown.push(format!("{:#?}", engine.reactor).replace(char::is_whitespace, ""));
    for shown in shown {
        assert!(forms.iter().all(|form| !shown.contains(form)), "{shown}");
    }
}

#[test]
fn a_payload_of_just_the_limit_is_taken() {
    let mut config = quick(EngineConfig::default());
    config.limits.max_payload = 3;
    let mut engine = Engine::greeted(config, HELLO_ALL);
    for _ in 0..2 {
        engine.notify(None, 1).unwrap();
    }
    assert_eq!(engine.feed(&["ACK - 0 1 hex:0102", "UNSET fin 0 1 hex:03"]), ["0/1 answered"]);
    assert_eq!(engine.feed(&["ACK - 1 1 hex:010203", "UNSET fin 1 1"]), ["1/1 answered"]);
}
