//! Backoff: agents that end their connections before they answer a request.

use super::*;
use crate::CloseReason;

const HELLO: &str =
    "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining";
const GONE: &str = "AGENT-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye";
const BROKEN: &str = "AGENT-DISCONNECT fin 0 0 status-code=uint32:13 message=string:broken";

/// The ways of an agent to fail after its handshake, and the errors of the requests that it did not answer.
fn refusals(profile: &EngineConfig) -> Vec<(&'static str, Refusal, u32)> {
    let (twice, code) = if profile.profile.skips_other_frames {
        ("closes after a second HELLO", 256 + 1)
    } else {
        ("says HELLO twice", 256 + 4)
    };
    let garbage = Refusal { ending: vec![0, 0, 0, 1, 0xff], ..Refusal::with(HELLO, "") };
    let mut all = vec![
        ("disconnects", Refusal::with(HELLO, BROKEN), 256 + 13),
        ("disconnects with status 0", Refusal::with(HELLO, GONE), 256),
        (twice, Refusal::with(HELLO, HELLO), code),
        ("sends garbage", garbage, 256 + 4),
        ("closes", Refusal::with(HELLO, ""), 256 + 1),
    ];
    for (name, refusal, code) in all.clone() {
        all.push((name, Refusal { after_notify: true, ..refusal }, code));
    }
    all
}

fn profiles() -> [EngineConfig; 4] {
    let (old, new) = (EngineConfig::haproxy_2_6(), EngineConfig::haproxy_3_1());
    [EngineConfig::default(), old, new, EngineConfig::haproxy_3_2()]
}

/// Keeps `callers` requests in the pool for three seconds: a millisecond after one has ended, the next is sent.
fn press(world: &mut World, callers: usize) {
    for _ in 0..3_000 {
        while world.pool.queued() + world.pool.waiting() < callers {
            let before = world.ended.len();
            world.ask().unwrap();
            if world.ended.len() > before {
                break;
            }
        }
        world.wait(1);
    }
}

#[test]
fn an_agent_that_answers_nothing_is_connected_to_at_a_bounded_rate() {
    for profile in profiles() {
        for (name, refusal, _) in refusals(&profile) {
            for callers in [1, 100] {
                let mut pool = PoolConfig::new(profile.clone(), 1);
                pool.engine.timeouts.message = Some(Duration::from_secs(1));
                let mut world = World::new(pool);
                world.refusal = Some(refusal.clone());
                press(&mut world, callers);
                let opened = world.opened.len();
                assert!((3..=20).contains(&opened), "{name}, {callers} callers: {opened} connections in 3 s");
                // Once the agent serves, all are answered within the longest pause.
                world.refusal = None;
                let from = world.ended.len();
                let requests: Vec<_> = (0..30).map(|_| world.ask().unwrap()).collect();
                world.wait(1_000);
                let answered = world.ended[from..].iter().filter(|(request, _)| requests.contains(request));
                let codes: Vec<_> = answered.map(|(_, code)| *code).collect();
                assert_eq!(codes, [0; 30], "{name}, {callers} callers");
            }
        }
    }
}

/// A pool without pipelining, with a processing timeout of one second, and an agent that ends like this.
fn world(refusal: impl Into<Option<Refusal>>) -> World {
    let mut pool = config(1);
    pool.engine.capabilities = Capabilities::NONE;
    let mut world = World::new(pool);
    world.refusal = refusal.into();
    world
}

#[test]
fn a_request_that_waits_in_vain_fails_with_what_the_agent_said() {
    for profile in profiles() {
        for (name, refusal, code) in refusals(&profile) {
            if refusal.after_notify {
                continue;
            }
            let mut pool = PoolConfig::new(profile.clone(), 1);
            pool.engine.timeouts.message = Some(Duration::from_secs(1));
            let mut world = World::new(pool);
            world.refusal = Some(refusal);
            world.ask().unwrap();
            world.wait(999);
            // Requests in flight fail at once; queued ones with the processing timeout.
            assert_eq!(world.codes().is_empty(), !name.starts_with("closes"), "{name}");
            world.wait(1);
            assert_eq!(world.codes(), [code], "{name}");
            let failure = world.pool.failure(0).unwrap();
            assert_eq!((failure.error.code(), failure.attempts), (code, world.opened.len() as u32), "{name}");
        }
    }
    // The message of the DISCONNECT is reported too.
    let mut world = world(Refusal::with(HELLO, BROKEN));
    world.ask().unwrap();
    let CloseReason::PeerDisconnect { status, message } = &world.failures[0].reason else { panic!() };
    assert_eq!((*status, &message[..]), (Status(13), &b"broken"[..]));
    let mut world = World::new(config(1));
    world.refusal = Some(Refusal::with(HELLO, &alloc::format!("{BROKEN}{}", "x".repeat(10_000))));
    world.ask().unwrap();
    let CloseReason::PeerDisconnect { message, .. } = &world.failures[0].reason else { panic!() };
    assert_eq!(message.len(), 256, "its beginning is kept");
}

#[test]
fn what_an_agent_said_is_forgotten_when_another_serves_and_when_time_has_passed() {
    // One agent of two serves, and is busy.
    let mut pool = config(2);
    pool.engine.capabilities = Capabilities::NONE;
    pool.max_connections = 1;
    let mut world = World::new(pool);
    world.answers = false;
    world.ask().unwrap();
    world.refusal = Some(Refusal::with(HELLO, BROKEN));
    world.ask().unwrap();
    world.wait(1_000);
    assert_eq!((world.codes(), world.opened[..2].to_vec()), (vec![1, 1], vec![0, 1]));
    // Long after the pause, a request that is queued for other reasons fails with `Timeout`.
    let mut pool = config(1);
    pool.max_connections = 1;
    let mut world = World::new(pool);
    world.refusal = Some(Refusal::with(HELLO, BROKEN));
    let request = world.ask().unwrap();
    world.pool.withdraw(world.now, request);
    world.wait(5_000);
    world.refusal = None;
    world.answers = false;
    world.ask().unwrap();
    world.ask().unwrap();
    world.wait(1_000);
    assert_eq!(world.codes(), [1, 1]);
}

#[test]
fn an_ack_on_a_new_connection_ends_the_backoff_and_one_on_an_old_connection_does_not() {
    let mut world = world(None);
    world.answers = false;
    world.ask().unwrap();
    // An agent at its limit of one connection: it serves the first, and refuses each new one.
    world.refusal = Some(Refusal::with(HELLO, BROKEN));
    for _ in 0..3_000 {
        if world.pool.queued() == 0 {
            world.ask().unwrap();
        }
        // Only new connections are refused; the first is served.
        let refusal = world.refusal.take();
        world.answer();
        world.refusal = refusal;
        world.wait(1);
    }
    assert!(world.opened.len() <= 20, "{} connections", world.opened.len());
    assert!(world.codes().iter().all(|code| *code == 0));
    assert!(world.pool.failure(0).is_some());
    // A new connection serves.
    world.refusal = None;
    let request = world.ask().unwrap();
    world.wait(999);
    assert!(world.pool.failure(0).is_some() && world.pool.queued() == 0, "it waits for its answer");
    let index = world.tickets.iter().position(|ticket| ticket.connection() != ConnectionId(0)).unwrap();
    world.answer_any(index);
    assert_eq!((world.ended.last(), world.pool.failure(0)), (Some(&(request, 0)), None));
}

#[test]
fn connections_that_fail_together_are_one_attempt_and_new_ones_are_tried_one_by_one() {
    let mut world = world(None);
    world.answers = false;
    for _ in 0..30 {
        world.ask().unwrap();
    }
    assert_eq!(world.opened.len(), 30);
    for id in 0..30 {
        world.disconnect(ConnectionId(id));
    }
    assert_eq!((world.codes(), world.pool.failure(0).unwrap().attempts), (vec![256 + 7; 30], 1));
    // A slow agent: one request per connection until it has answered, and another connection after each pause.
    world.tickets.clear();
    for _ in 0..30 {
        world.ask().unwrap();
    }
    let opened = |world: &mut World, millis| {
        world.wait(millis);
        (world.opened.len() - 30, world.tickets.len())
    };
    assert_eq!(opened(&mut world, 99), (0, 0));
    assert_eq!(opened(&mut world, 1), (1, 1));
    assert_eq!(opened(&mut world, 99), (1, 1));
    assert_eq!(opened(&mut world, 1), (2, 2));
    world.answer();
    assert_eq!(opened(&mut world, 0), (29, 29));
    let mut world = self::world(Refusal::with("", ""));
    world.pool = Pool::new(config(1).checked().unwrap(), world.now);
    world.ask().unwrap();
    world.refusal = None;
    world.answers = false;
    for _ in 0..10 {
        world.ask().unwrap();
    }
    world.wait(100);
    assert_eq!(world.tickets.len(), 1, "though pipelining was negotiated");
    world.answer();
    assert_eq!(world.tickets.len(), 10);
}

#[test]
fn an_agent_that_restarts_gracefully_is_not_waited_for() {
    // A drain: DISCONNECT 0 right after the handshake; the successor listens already.
    let mut world = world(Refusal::with(HELLO, GONE));
    world.ask().unwrap();
    assert_eq!((world.opened.len(), world.pool.queued()), (2, 1), "the first new attempt begins at once");
    world.refusal = None;
    world.wait(100);
    assert_eq!(world.codes(), [0]);
    // An agent that served and then drains has no backoff.
    for _ in 0..5 {
        let id = *world.connections.keys().next_back().unwrap();
        let (_, agent, _) = world.connections.get_mut(&id).unwrap();
        agent.disconnect(world.now, Status::NORMAL, "bye");
        world.flush(id);
        world.work();
        world.ask().unwrap();
    }
    assert_eq!((world.codes(), world.opened.len()), (vec![0; 6], 8));
}

#[test]
fn an_idle_close_long_after_the_handshake_is_no_failure() {
    for (lived, codes) in [(999, &[][..]), (1_000, &[0][..])] {
        let mut world = world(Refusal { after_notify: true, ..Refusal::with(HELLO, "") });
        let request = world.ask().unwrap();
        world.pool.withdraw(world.now, request);
        assert!(world.pool.failure(0).is_some(), "the agent closed on the NOTIFY");
        world.refusal = None;
        world.answers = false;
        let request = world.ask().unwrap();
        world.wait(100);
        world.pool.withdraw(world.now, request);
        world.wait(lived);
        let id = *world.connections.keys().next_back().unwrap();
        world.pool.on_input_eof(world.now, id, &[]);
        world.work();
        assert_eq!(world.pool.failure(0).is_none(), !codes.is_empty(), "after {lived} ms");
        world.answers = true;
        world.ask().unwrap();
        assert_eq!(world.codes()[1..], *codes, "after {lived} ms");
    }
}

#[test]
fn an_agent_that_breaks_the_protocol_and_does_not_close_holds_nothing() {
    let mut world = world(None);
    world.answers = false;
    world.ask().unwrap();
    // The engine awaits the agent's DISCONNECT.
    let bytes = [0, 0, 0, 1, 0xff];
    world.pool.on_bytes(world.now, ConnectionId(0), &bytes);
    assert!(world.pool.interest(ConnectionId(0)).write && !world.pool.interest(ConnectionId(0)).close);
    assert_eq!(world.pool.failure(0).unwrap().error.code(), 256 + 4);
    world.answers = true;
    let request = world.ask().unwrap();
    world.wait(100);
    assert!(world.ended.contains(&(request, 0)), "{:?}", world.ended);
}
