//! Scenarios of single features.

use super::*;
use crate::{
    agent::{FailureKind, PipeliningPolicy},
    engine::EngineError,
    link::CloseReason,
};

fn pair(profile: Profile) -> Pair<impl FnMut(&Call<'_>) -> Decision> {
    Pair::new(profile.config(), AgentConfig::default(), handler)
}

fn codes<H>(pair: &Pair<H>) -> Vec<u32> {
    pair.outcomes().iter().map(|(_, outcome)| outcome.error().map_or(0, EngineError::code)).collect()
}

#[test]
fn each_reply_has_its_outcome() {
    for profile in Profile::ALL {
        let mut pair = pair(profile);
        let said = |outcome: Outcome| outcome.sentence();
        assert_eq!(said(pair.ask(&question(&[0, 1, 0], 9)).unwrap()), "set txn blob=binary:79");
        assert_eq!(said(pair.ask(&question(&[1, 1, 500_000], 9)).unwrap()), "set txn blob=binary:79");
        assert_eq!(pair.now(), Timestamp::from_millis(500));
        assert_eq!(said(pair.ask(&question(&[2, 1, 0], 9)).unwrap()), "1 (no answer in time)");
        assert_eq!(said(pair.ask(&question(&[3, 1, 0], 9)).unwrap()), "no");
        assert_eq!(said(pair.ask(&question(&[4, 1, 0], 9)).unwrap()), "");
        let last = pair.ask(&question(&[77, 1, 0], 9)).unwrap();
        assert_eq!(last.error().map(EngineError::code), Some(333), "{profile:?}");
        pair.run_to_end();
        assert!(pair.is_over());
    }
}

#[test]
fn what_handlers_of_adapters_say_is_a_reply() {
    let mut actions = Actions::new();
    actions.set_var(Scope::Request, "a", true);
    let bye = crate::agent::Reply::Disconnect { status: Status(90), message: "bye".into() };
    for (reply, sentence, code) in [
        (Decision::from(actions.clone()), "set req a=bool:true", None),
        (Ok::<_, &str>(actions).into(), "set req a=bool:true", None),
        (Err::<Actions, _>("no such address").into(), "no such address", None),
        (bye.into(), "346 (the session ended with status 90 (a code of the application))", Some(346)),
    ] {
        let mut pair = Pair::new(Profile::Old.config(), AgentConfig::default(), |_| reply.clone());
        let outcome = pair.ask(&question(&[0, 1, 0], 1)).unwrap();
        assert_eq!((outcome.sentence(), outcome.error().map(EngineError::code)), (sentence.into(), code));
    }
}

#[test]
fn late_answers_do_not_fill_the_buffer_of_a_haproxy() {
    let mut config = Profile::New.config();
    config.timeouts.message = Some(Duration::from_millis(10));
    let agent = AgentConfig { pipelining: PipeliningPolicy::Always, ..AgentConfig::default() };
    let mut pair = Pair::new(config, agent, handler);
    assert!(pair.run_handshake());
    // Sixty late answers at once; the next request must still be answered.
    for late in [60_000, 49_000, 38_000] {
        for _ in 0..20 {
            pair.notify(None, &question(&[1, 690, late], 9)).unwrap();
        }
        pair.run_for(Duration::from_millis(11));
    }
    assert_eq!(codes(&pair), [1; 60]);
    pair.run_for(Duration::from_millis(26));
    pair.notify(None, &question(&[1, 690, 2_000], 9)).unwrap();
    pair.run_until_settled();
    assert_eq!(codes(&pair).last(), Some(&0));
}

#[test]
fn the_longest_identifiers_come_back() {
    let config = AgentConfig { max_frame_size: 256, ..AgentConfig::default() };
    let mut pair = Pair::new(Profile::Spec.config(), config, handler);
    assert!(pair.run_handshake());
    let long = [1 << 25, u64::from(u32::MAX), u64::MAX];
    for (stream, frame) in long.into_iter().flat_map(|stream| long.map(|frame| (stream, frame))) {
        for size in [1, 2_000] {
            let id = pair.notify(Some(Ids::new(stream, frame)), &question(&[0, 600, 0], size)).unwrap();
            pair.run_until_settled();
            let (settled, outcome) = pair.take_outcomes().next().unwrap();
            assert_eq!((settled, outcome.error()), (id, None));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_on_the_side_that_made_it() {
    let mut pair = pair(Profile::New);
    assert!(matches!(pair.ask(&question(&[0, 1, 0], 20_000)), Err(NotifyError::TooBig { .. })));
    let outcome = pair.ask(&question(&[0, 20_000, 0], 1)).unwrap();
    assert_eq!(outcome.payload(), Some(&[][..]));
    assert!(outcome.failure().unwrap().contains("more than the"), "{outcome:?}");
    assert_eq!(pair.counts().refused, 1);
}

#[test]
fn an_outcome_says_why_the_handler_gave_no_answer() {
    let mut config = AgentConfig::default();
    config.timeouts.message = Some(Duration::from_millis(80));
    let mut decisions = vec![
        Decision::Fail("no database".into()),
        Decision::Never,
        Decision::After(Duration::from_millis(20), Actions::new()),
    ]
    .into_iter();
    let mut times = vec![];
    let mut pair = Pair::new(Profile::Old.config(), config, |call: &Call<'_>| {
        times.push(call.now());
        decisions.next().unwrap()
    });
    let failures = [
        Some((FailureKind::HandlerFailed, "no database")),
        Some((FailureKind::TimedOut, "no answer after 80ms: TimedOut")),
        None,
    ];
    for failure in failures {
        let outcome = pair.ask(&question(&[], 1)).unwrap();
        // HAProxy gets an empty ACK each time.
        assert_eq!(outcome.payload(), Some(&[][..]));
        assert_eq!(outcome.failure_kind().zip(outcome.failure()), failure);
    }
    drop(pair);
    // The handler has the virtual time.
    assert_eq!(times, [Timestamp::ZERO, Timestamp::ZERO, Timestamp::from_millis(80)]);
}

#[test]
fn a_failure_after_the_outcome_is_not_that_of_the_next_request() {
    let mut config = AgentConfig::default();
    config.timeouts.message = Some(Duration::from_secs(3));
    let mut asked = 0;
    let mut pair = Pair::new(Profile::Spec.config(), config, |_: &Call<'_>| {
        asked += 1;
        if asked == 1 { Decision::Never } else { Decision::Now(Actions::new()) }
    });
    pair.run_handshake();
    let ids = Some(Ids::new(7, 1));
    pair.notify(ids, &question(&[], 1)).unwrap();
    // The engine waits for 2 seconds.
    pair.run_for(Duration::from_secs(4));
    assert_eq!(codes(&pair), [1]);
    pair.notify(ids, &question(&[], 1)).unwrap();
    pair.run_until_settled();
    let outcomes: Vec<_> = pair.take_outcomes().map(|(_, outcome)| outcome.failure().is_some()).collect();
    assert_eq!(outcomes, [false, false]);
}

#[test]
fn fragments_go_both_ways_where_they_are_announced() {
    let config = AgentConfig { max_frame_size: 256, ..AgentConfig::default() };
    let mut pair = Pair::new(Profile::Spec.config(), config, handler);
    let outcome = pair.ask(&question(&[0, 50_000, 0], 100_000)).unwrap();
    assert!(outcome.payload().is_some_and(|payload| payload.len() > 50_000), "{:?}", outcome.error());
}

#[test]
fn a_payload_is_refused_by_what_has_arrived_of_it() {
    let agent = AgentConfig { max_frame_size: 256, watch_fragments: true, ..AgentConfig::default() };
    for profile in [Profile::Spec, Profile::Old] {
        let mut pair = Pair::new(profile.config(), agent.clone(), handler)
            .refusing(|part| part.messages().next().is_some_and(|message| message.get("n").is_some()));
        assert_eq!(pair.ask(&question(&[0, 1, 0], 100_000)).unwrap().error(), Some(EngineError::Aborted));
        assert_eq!(pair.ask(&question(&[0, 1, 0], 1)).unwrap().error(), None);
        assert_eq!(pair.counts().aborted, 1);
    }
}

#[test]
fn a_slow_payload_times_out_and_is_aborted_on_both_sides() {
    let agent = AgentConfig { max_frame_size: 256, ..AgentConfig::default() };
    let conditions = Conditions { bandwidth: Some(1_000), buffer: 100, ..Conditions::default() };
    let mut pair = Pair::with(conditions, Profile::Old.config(), agent, handler);
    assert_eq!(pair.ask(&question(&[0, 1, 0], 100_000)).unwrap().error(), Some(EngineError::Timeout));
    pair.run_for(Duration::from_secs(3));
    assert_eq!((pair.counts().asked, pair.counts().aborted), (0, 1));
    assert_eq!(pair.ask(&question(&[0, 1, 0], 1)).unwrap().error(), None);
}

#[test]
fn a_drained_agent_serves_what_has_arrived() {
    for profile in Profile::ALL {
        let mut config = profile.config();
        config.capabilities = Capabilities::PIPELINING;
        let agent = AgentConfig { pipelining: PipeliningPolicy::Always, ..AgentConfig::default() };
        let mut pair = Pair::new(config, agent, handler);
        assert!(pair.run_handshake());
        for _ in 0..20 {
            pair.notify(None, &question(&[1, 1, 1_000], 1)).unwrap();
        }
        pair.run_for(Duration::from_micros(10));
        pair.drain_agent();
        pair.run_to_end();
        assert_eq!(codes(&pair), [0; 20]);
        assert!(pair.is_over());
        assert_eq!(pair.agent_closed().unwrap().reason, CloseReason::Drained);
    }
}

#[test]
fn a_lost_connection_fails_what_waits() {
    for bytes in [0, 1, 120, 150, 400] {
        let mut pair = pair(Profile::Old);
        pair.break_after(Side::Engine, bytes);
        if pair.run_handshake() {
            for _ in 0..20 {
                pair.notify(None, &question(&[2, 1, 0], 1)).unwrap();
            }
            pair.run_to_end();
            assert_eq!(codes(&pair), [257; 20]);
        }
        assert_eq!(pair.engine_ended().unwrap().closed.reason, CloseReason::Transport);
        assert!(pair.is_over());
    }
}

#[test]
fn a_half_closed_connection_ends() {
    for profile in Profile::ALL {
        let mut pair = pair(profile);
        pair.run_handshake();
        pair.notify(None, &question(&[1, 1, 1_000], 1)).unwrap();
        pair.run_for(Duration::from_micros(10));
        pair.half_close(Side::Agent);
        pair.run_to_end();
        assert_eq!(codes(&pair), [257]);
        assert!(pair.is_over());
    }
}

#[test]
fn answers_never_fill_the_buffer_of_a_haproxy_that_would_stall() {
    // One at a time, of whatever length.
    let mut one = pair(Profile::New);
    one.run_handshake();
    for size in [900, 12_000, 16_000, 900] {
        for _ in 0..20 {
            assert!(one.ask(&question(&[0, size, 0], 1)).unwrap().error().is_none(), "{size}");
        }
    }
    // Twenty at a time, up to the limit for each; a longer one is the handler's error.
    let config = AgentConfig { pipelining: PipeliningPolicy::Always, ..AgentConfig::default() };
    let mut twenty = Pair::new(Profile::New.config(), config, handler);
    twenty.run_handshake();
    // The overhead of a blob: the action, and the header of the frame.
    let bound = 16_384 / 21 - 4 - 7 - 11;
    for (size, sentence) in [(bound, "set"), (bound + 1, "the")] {
        for _ in 0..20 {
            twenty.notify(None, &question(&[1, size, 5_000], 1)).unwrap();
        }
        twenty.run_until_settled();
        let outcomes: Vec<_> = twenty.take_outcomes().map(|(_, outcome)| outcome.sentence()).collect();
        assert_eq!(outcomes.len(), 20);
        assert!(outcomes.iter().all(|said| said.split(' ').next() == Some(sentence)), "{size}: {outcomes:?}");
    }
}

#[test]
fn a_request_that_was_given_up_is_cancelled_by_the_next() {
    let mut config = Profile::New.config();
    config.timeouts.message = Some(Duration::from_millis(10));
    let mut pair = Pair::new(config, AgentConfig::default(), handler);
    pair.run_handshake();
    for _ in 0..100 {
        let given_up = pair.ask(&question(&[1, 12_000, 20_000_000], 1)).unwrap();
        assert_eq!(given_up.error().map(EngineError::code), Some(1));
    }
    assert_eq!(pair.ask(&question(&[0, 12_000, 0], 1)).unwrap().error(), None);
}

#[test]
fn a_health_check_finds_the_agent_well() {
    for profile in [Profile::Old, Profile::New] {
        let config = EngineConfig { healthcheck: true, ..profile.config() };
        let mut pair = Pair::new(config, AgentConfig::default(), handler);
        assert!(!pair.run_handshake());
        assert!(pair.engine_ended().unwrap().is_healthy());
        pair.run_to_end();
        assert!(pair.is_over());
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let conditions = Conditions { cuts: Cuts::Random, seed, record: true, ..Conditions::default() };
        let mut config = Profile::Old.config();
        config.max_frame_size = 256;
        let mut pair = Pair::with(conditions, config, AgentConfig::default(), handler);
        pair.run_handshake();
        for micros in 0..20 {
            pair.notify(None, &question(&[1, 10, micros * 7 % 5], 1)).unwrap();
        }
        pair.run_until_settled();
        (pair.now(), pair.notation_of(Side::Agent))
    };
    assert_eq!(run(1), run(1));
}

#[test]
fn a_side_can_be_made_to_say_what_it_never_would() {
    let mut pair = pair(Profile::Old);
    assert!(pair.run_handshake());
    pair.notify(None, &question(&[2, 1, 0], 1)).unwrap();
    pair.say(Side::Agent, "ACK fin 0 1 set txn forged=bool:true").unwrap();
    pair.run_until_settled();
    assert_eq!(pair.take_outcomes().next().unwrap().1.sentence(), "set txn forged=bool:true");
    assert!(pair.say(Side::Engine, "no such frame").is_err());
    pair.inject_raw(Side::Engine, &[0xff; 4]);
    pair.run_to_end();
    let reason = pair.agent_closed().unwrap().reason.clone();
    assert!(
        matches!(reason, CloseReason::Violation(ref breach) if breach.status() == Status::TOO_BIG),
        "{reason}"
    );
    assert!(pair.is_over());
}

#[test]
fn bytes_arrive_in_the_pieces_that_are_wanted() {
    // HAProxy 3.1 and later rejects a HELLO that is split behind the frame type.
    for (lengths, well) in [(vec![500], true), (vec![10, 500], true), (vec![11, 500], false), (vec![], true)]
    {
        let way_back = Conditions { cuts: Cuts::Lengths(lengths.clone()), ..Conditions::default() };
        let mut pair = pair(Profile::New).with_way_back(way_back);
        assert_eq!(pair.run_handshake(), well, "{lengths:?}");
    }
}

#[test]
fn the_directions_differ() {
    let millis = Duration::from_millis;
    let way_back = Conditions { latency: millis(30), ..Conditions::default() };
    let way = Conditions { latency: millis(5), ..Conditions::default() };
    let mut pair =
        Pair::with(way, Profile::Old.config(), AgentConfig::default(), handler).with_way_back(way_back);
    assert!(pair.run_handshake());
    assert_eq!(pair.now(), Timestamp::from_millis(35));
    assert_eq!(pair.ask(&question(&[1, 1, 1_000], 1)).unwrap().took(), Some(millis(36)));
}

#[test]
fn chance_finds_the_byte_at_which_a_connection_breaks() {
    let mut survived = [0, 0];
    for seed in 0..200 {
        let lost = Conditions { lost_within: Some(200), seed, ..Conditions::default() };
        let mut pair = Pair::with(lost, Profile::Old.config(), AgentConfig::default(), handler)
            .with_way_back(Conditions::default());
        survived[usize::from(pair.run_handshake())] += 1;
        for _ in 0..9 {
            let _ = pair.notify(None, &question(&[0, 1, 0], 9));
        }
        pair.run_to_end();
        assert!(pair.is_over());
        assert_eq!(pair.engine_ended().unwrap().closed.reason, CloseReason::Transport, "{seed}");
    }
    assert!(survived.iter().all(|count| *count > 40), "{survived:?}");
}

/// Prints the throughput. Run it by name, in a release build.
#[test]
#[ignore = "a measurement"]
fn speed() {
    const ROUNDS: u32 = 50_000;
    for profile in [Profile::Old, Profile::New] {
        let mut answer = Actions::new();
        answer.set_var(Scope::Transaction, "score", 42_i32);
        let mut pair = Pair::new(profile.config(), AgentConfig::default(), |_| Decision::Now(answer.clone()));
        let list = question(&[0, 1, 0], 10);
        pair.run_handshake();
        let start = std::time::Instant::now();
        for _ in 0..ROUNDS {
            for _ in 0..20 {
                pair.notify(None, &list).unwrap();
            }
            pair.run_until_settled();
            assert_eq!(pair.take_outcomes().len(), 20);
        }
        let each = start.elapsed() / (20 * ROUNDS);
        std::println!("{profile:?}: {each:?} an exchange");
    }
}
