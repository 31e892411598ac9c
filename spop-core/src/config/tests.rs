//! Every bound of every configuration: the value at the bound is valid, and the one beyond it is refused with the field's name.

use alloc::{string::ToString, vec};
use core::time::Duration;

use bytes::Bytes;

use super::{Checked, ConfigError};
use crate::{
    Actions, AgentConfig, EngineConfig, Scope, Status,
    accept::{AcceptConfig, OpenConfig},
    agent::{DrainTiming, OnFailure},
    engine::pool::PoolConfig,
    frame::Capabilities,
};

const ZERO: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_nanos(1);

/// The error of the defaults with this change, if any.
fn agent(change: impl FnOnce(&mut AgentConfig)) -> Option<ConfigError> {
    let mut config = AgentConfig::default();
    change(&mut config);
    config.checked().err()
}

fn engine(change: impl FnOnce(&mut EngineConfig)) -> Option<ConfigError> {
    let mut config = EngineConfig::default();
    change(&mut config);
    config.checked().err()
}

fn pool(change: impl FnOnce(&mut PoolConfig)) -> Option<ConfigError> {
    let mut config = PoolConfig::new(EngineConfig::default(), 1);
    change(&mut config);
    config.checked().err()
}

/// `good` is valid for the field, and `bad` is not.
macro_rules! bound {
    ($check:ident, $field:literal, $($path:ident).+, $good:expr, $bad:expr, $text:literal) => {
        assert_eq!($check(|config| config.$($path).+ = $good), None, "{} at its bound", $field);
        let error = $check(|config| config.$($path).+ = $bad).expect($field);
        assert_eq!((&*error.field, &*error.to_string()), ($field, concat!("`", $field, "` is ", $text)));
    };
}

#[test]
fn what_is_there_to_begin_with_can_work() {
    assert!(AgentConfig::default().checked().is_ok() && AcceptConfig::default().checked().is_ok());
    for engine in [EngineConfig::default(), EngineConfig::haproxy_2_6(), EngineConfig::haproxy_3_1()] {
        assert!(engine.clone().checked().is_ok());
        assert!(PoolConfig::new(engine, 1).checked().is_ok());
    }
    assert!(EngineConfig::haproxy_3_2().checked().is_ok() && OpenConfig::default().checked().is_ok());
    let (agent, engine) = (Checked::<AgentConfig>::default(), Checked::<EngineConfig>::default());
    assert!(agent.into_inner().checked().is_ok() && engine.into_inner().checked().is_ok());
    let (accept, open) = (Checked::<AcceptConfig>::default(), Checked::<OpenConfig>::default());
    assert!(accept.into_inner().checked().is_ok() && open.into_inner().checked().is_ok());
}

/// Both sides have these fields.
macro_rules! both {
    ($check:ident) => {
        bound!($check, "max_frame_size", max_frame_size, 256, 255, "255, and must be at least 256");
        bound!(
            $check,
            "max_frame_size",
            max_frame_size,
            4 << 20,
            (4 << 20) + 1,
            "4194305, and must be at most the 4194304 of `limits.max_payload_bytes`"
        );
        bound!($check, "limits.max_payload", limits.max_payload, 1, 0, "0, and must be at least 1");
        bound!(
            $check,
            "limits.max_payload",
            limits.max_payload,
            4 << 20,
            (4 << 20) + 1,
            "4194305, and must be at most the 4194304 of `limits.max_payload_bytes`"
        );
        bound!(
            $check,
            "limits.max_payload_bytes",
            limits.max_payload_bytes,
            1 << 20,
            0,
            "0, and must be at least 1"
        );
        bound!($check, "limits.max_payloads", limits.max_payloads, 1, 0, "0, and must be at least 1");
        bound!($check, "limits.max_messages", limits.max_messages, 1, 0, "0, and must be at least 1");
        bound!($check, "limits.max_in_flight", limits.max_in_flight, 1, 0, "0, and must be at least 1");
        bound!($check, "limits.max_outgoing", limits.max_outgoing, 1, 0, "0, and must be at least 1");
        bound!($check, "limits.max_engine_id", limits.max_engine_id, 1, 0, "0, and must be at least 1");
        bound!($check, "limits.max_refused", limits.max_refused, 1, 0, "0, and must be at least 1");
        bound!($check, "max_waiting_frames", max_waiting_frames, 1, 0, "0, and must be at least 1");
        bound!(
            $check,
            "timeouts.hello",
            timeouts.hello,
            Some(SHORT),
            Some(ZERO),
            "zero, and must be longer; `None` waits for ever"
        );
        bound!(
            $check,
            "timeouts.frame",
            timeouts.frame,
            None,
            Some(ZERO),
            "zero, and must be longer; `None` waits for ever"
        );
        bound!(
            $check,
            "timeouts.idle",
            timeouts.idle,
            Some(SHORT),
            Some(ZERO),
            "zero, and must be longer; `None` waits for ever"
        );
        bound!(
            $check,
            "timeouts.write",
            timeouts.write,
            Some(SHORT),
            Some(ZERO),
            "zero, and must be longer; `None` waits for ever"
        );
        bound!(
            $check,
            "timeouts.message",
            timeouts.message,
            Some(SHORT),
            Some(ZERO),
            "zero, and must be longer; `None` waits for ever"
        );
        bound!($check, "timeouts.linger", timeouts.linger, SHORT, ZERO, "zero, and must be longer");
        assert_eq!($check(|config| config.timeouts.drain = ZERO), None, "it disconnects at once");
    };
}

#[test]
#[rustfmt::skip] // One bound, one line or two.
fn the_bounds_of_both_sides() {
    both!(agent);
    both!(engine);
}

#[test]
#[rustfmt::skip]
fn the_bounds_of_an_agent() {
    bound!(
        agent, "processing", processing, None, Some(ZERO),
        "zero, and must be longer; `None` says that it is not known"
    );
    bound!(
        agent, "max_age", max_age, Some(SHORT), Some(ZERO),
        "zero, and must be longer; `None` keeps connections of any age"
    );
    let drain = agent(|config| (config.timeouts.drain, config.max_age) = (ZERO, Some(SHORT))).unwrap();
    assert_eq!(
        drain.to_string(),
        "`timeouts.drain` is zero, and must be longer for `max_age` to have an effect"
    );
    assert_eq!(agent(|config| config.drain_after_refusal = Some(ZERO)), None);
    let timing = DrainTiming { hold: ZERO, silence: ZERO, idle: ZERO };
    assert_eq!(agent(|config| config.drain_timing = Some(timing)), None);
    // A setting without effect is valid.
    assert_eq!(agent(|config| (config.watch_fragments, config.capabilities) = (true, Capabilities::NONE)), None);
}

#[test]
fn an_answer_to_failures_that_fits_no_frame_is_refused() {
    let answer = |value: usize| {
        let mut actions = Actions::new();
        actions.set_var(Scope::Transaction, "v", &*vec![b'x'; value]);
        agent(|config| (config.max_frame_size, config.on_failure) = (256, OnFailure::Answer(actions)))
    };
    // The header takes 7 bytes, and the action 8 before its value.
    assert_eq!(answer(256 - 7 - 8), None);
    let error = answer(256 - 7 - 8 + 1).unwrap().to_string();
    assert_eq!(error, "`on_failure` is an answer of 250 bytes, and must be at most 249 bytes long");

    let message = |len: usize| {
        let message = "x".repeat(len);
        agent(|config| config.on_failure = OnFailure::Disconnect { status: Status::UNKNOWN, message })
    };
    assert_eq!(message(180), None);
    let error = message(181).unwrap().to_string();
    assert_eq!(error, "`on_failure` is a message of 181 bytes, and must be at most 180 bytes long");
}

#[test]
fn an_engine_has_a_name_that_fits_its_hello_or_none() {
    let named = |len: usize| {
        engine(|config| {
            config.max_frame_size = 256;
            config.engine_id = Some(Bytes::from(vec![b'x'; len]));
        })
    };
    assert_eq!(
        named(0).unwrap().to_string(),
        "`engine_id` is empty, and must be `None`, or tell this engine from others"
    );
    let longest = (1..300).take_while(|len| named(*len).is_none()).last().unwrap();
    let error = named(longest + 1).unwrap();
    assert_eq!(error.field, "engine_id");
    assert_eq!(error.value, alloc::format!("{} bytes long", longest + 1));
    assert_eq!(error.bound, alloc::format!("at most {longest}, for the HELLO to fit `max_frame_size`"));
    let hello = |len: usize| {
        let mut config = EngineConfig { max_frame_size: 256, ..EngineConfig::default() };
        config.engine_id = Some(Bytes::from(vec![b'x'; len]));
        let config = alloc::sync::Arc::new(config.checked().unwrap());
        crate::EngineReactor::new(config, crate::ConnectionId(1), crate::Timestamp::ZERO).outgoing().len()
    };
    assert_eq!(hello(longest), 4 + 256);
    bound!(engine, "profile.stalls_at", profile.stalls_at, Some(1), Some(0), "0, and must be at least 1");
}

#[test]
#[rustfmt::skip]
fn the_bounds_of_a_pool() {
    const MILLI: Duration = Duration::from_millis(1);
    const LESS: Duration = Duration::from_micros(999);
    bound!(pool, "agents", agents, 1, 0, "0, and must be at least 1");
    bound!(pool, "max_connections", max_connections, 1, 0, "0, and must be at least 1");
    bound!(pool, "max_queue", max_queue, 1, 0, "0, and must be at least 1");
    bound!(
        pool, "max_conn_rate", max_conn_rate, Some(1), Some(0),
        "0, and must be at least 1; `None` is unlimited"
    );
    bound!(
        pool, "max_err_rate", max_err_rate, None, Some(0), "0, and must be at least 1; `None` is unlimited"
    );
    bound!(pool, "retry_after", retry_after, MILLI, LESS, "999µs, and must be at least 1ms");
    bound!(
        pool, "max_retry_after", max_retry_after, Duration::from_millis(100), Duration::from_millis(99),
        "99ms, and must be at least the 100ms of `retry_after`"
    );
    bound!(pool, "check_every", check_every, Some(MILLI), Some(LESS), "999µs, and must be at least 1ms");
    bound!(pool, "rise", rise, 1, 0, "0, and must be at least 1");
    bound!(pool, "fall", fall, 1, 0, "0, and must be at least 1");
    bound!(
        pool, "engine.limits.max_payloads", engine.limits.max_payloads, 1, 0, "0, and must be at least 1"
    );
}

#[test]
fn what_comes_before_a_session_takes_time() {
    let text = |result: Result<(), ConfigError>| result.unwrap_err().to_string();
    let mut accept = AcceptConfig::new();
    accept.timeout = ZERO;
    assert_eq!(text(accept.clone().checked().map(drop)), "`timeout` is zero, and must be longer");
    (accept.timeout, accept.linger) = (SHORT, ZERO);
    assert_eq!(text(accept.checked().map(drop)), "`linger` is zero, and must be longer");
    let open = OpenConfig { timeout: ZERO, ..OpenConfig::default() };
    assert_eq!(text(open.checked().map(drop)), "`timeout` is zero, and must be longer");
}

#[cfg(feature = "std")]
#[test]
fn for_servers_it_is_an_input_error_with_the_reason_inside() {
    let error = agent(|config| config.max_frame_size = 100).unwrap();
    let io = std::io::Error::from(error.clone());
    assert_eq!((io.kind(), io.to_string()), (std::io::ErrorKind::InvalidInput, error.to_string()));
    let inside = io.get_ref().and_then(|inside| inside.downcast_ref::<ConfigError>());
    assert_eq!(inside, Some(&error));
}
