//! Counts, times and rates of a pool.

use super::*;

/// The time in the queue, the time to the answer, and the sum.
fn times(millis: [Option<u64>; 3]) -> Times {
    let [queue, wait, processing] = millis.map(|millis| millis.map(Duration::from_millis));
    Times { queue, wait, processing, ..Times::default() }
}

#[test]
fn a_request_has_its_time_in_the_queue_and_its_time_on_the_wire() {
    let mut pool = config(1);
    pool.engine.capabilities = Capabilities::NONE;
    pool.max_connections = 1;
    let mut world = World::new(pool);
    world.answers = false;
    for _ in 0..3 {
        world.ask().unwrap();
    }
    world.wait(30);
    world.answer();
    world.wait(5);
    world.answer();
    assert_eq!(world.times[0], times([Some(0), Some(30), Some(30)]));
    assert_eq!(world.times[1], times([Some(30), Some(5), Some(35)]));
    let load = world.pool.counts();
    assert_eq!((load.applets, load.idles, load.sending, load.waiting), (1, 0, 0, 1));
    // One request is never answered, and the one behind it never sent.
    world.ask().unwrap();
    world.wait(1_000);
    assert_eq!(world.codes(), [0, 0, 1, 1]);
    assert_eq!(world.times[2], times([Some(35), None, Some(1_000)]));
    assert_eq!(world.times[3], times([None, None, Some(1_000)]));
    let load = world.pool.counts();
    assert_eq!((load.errors, load.processed, load.sending, load.waiting), (2, 4, 0, 0));
    // A withdrawn request counts as processed, once, and not as an error.
    world.pool.withdraw(world.now, world.ended[0].0);
    let request = world.ask().unwrap();
    world.pool.withdraw(world.now, request);
    world.pool.withdraw(world.now, request);
    assert_eq!((world.pool.counts().errors, world.pool.counts().processed), (2, 5));
}

#[test]
fn connections_open_as_soon_as_their_rate_allows() {
    let mut pool = config(1);
    pool.max_conn_rate = Some(10);
    pool.engine.capabilities = Capabilities::NONE;
    pool.engine.timeouts.message = None;
    let mut world = World::new(pool);
    world.answers = false;
    let mut opened = vec![];
    for _ in 0..40 {
        world.ask().unwrap();
    }
    for _ in 0..420 {
        opened.push(world.opened.len());
        world.wait(10);
    }
    assert_eq!((opened[0], opened[50]), (10, 10), "none before a second is over");
    assert!(opened.windows(101).all(|second| second[100] - second[0] <= 11), "{opened:?}");
    assert_eq!((opened[405], world.pool.queued()), (40, 0), "and not much later than it may be: {opened:?}");
}

#[test]
fn without_an_agent_nothing_waits() {
    let mut pool = config(1);
    pool.check_every = Some(Duration::from_millis(100));
    let mut world = World::new(pool);
    world.ask().unwrap();
    world.agents[0] = None;
    world.wait(400);
    assert_eq!((world.codes(), world.pool.is_up(0)), (vec![0], false));
    // HAProxy reports error 2 at once only if no connection is open.
    let waits = world.ask().unwrap();
    world.pool.withdraw(world.now, waits);
    world.disconnect(ConnectionId(0));
    assert_eq!(world.ask(), Err(AskError::NoAgent));
    world.agents[0] = Some(AgentConfig::default());
    world.wait(400);
    assert!(world.ask().is_ok());
}

#[test]
fn handshakes_that_fail_are_no_errors_of_requests_and_come_again_as_soon_as_wanted() {
    for (retry_after, max, attempts) in
        [(1, 1, 1_000..=1_001), (100, 100, 10..=11), (1, 1_000, 10..=10), (100, 1_000, 4..=4)]
    {
        let mut pool = config(1);
        pool.max_err_rate = Some(1);
        pool.retry_after = Duration::from_millis(retry_after);
        pool.max_retry_after = Duration::from_millis(max);
        let mut world = World::new(pool);
        world.refusal = Some(Refusal::of_handshake());
        world.ask().unwrap();
        for _ in 0..200 {
            world.wait(5);
        }
        assert!(attempts.contains(&world.opened.len()), "{} attempts", world.opened.len());
        assert_eq!((world.codes(), world.pool.counts().errors), (vec![256 + 8], 1));
    }
}

#[test]
fn what_waits_for_a_handshake_fails_with_it_where_haproxy_has_it_so() {
    for (profile, disconnects, codes) in [
        (EngineConfig::haproxy_3_1(), false, vec![257]),
        (EngineConfig::haproxy_3_1(), true, vec![]),
        (EngineConfig::haproxy_2_6(), false, vec![]),
        (EngineConfig::haproxy_2_6(), true, vec![]),
    ] {
        let mut world = World::new(PoolConfig::new(profile, 1));
        world.agents[0] = disconnects.then(AgentConfig::default);
        world.refusal = Some(Refusal::of_handshake());
        world.ask().unwrap();
        assert_eq!(world.codes(), codes);
        world.refusal = None;
        world.agents[0] = Some(AgentConfig::default());
        world.wait(100);
        assert_eq!(world.ended.len(), 1);
    }
}

#[test]
fn what_waits_for_a_handshake_outlives_a_bad_hello_that_is_told() {
    let bad = "AGENT-HELLO fin 0 0 version=string:1.0 max-frame-size=uint32:256 capabilities=string:\"\"";
    for (mut profile, codes) in [
        (EngineConfig::haproxy_3_1(), vec![256 + 8]),
        (EngineConfig::haproxy_3_2(), vec![]),
        (EngineConfig::haproxy_2_6(), vec![]),
    ] {
        profile.timeouts.message = Some(Duration::from_secs(1));
        let mut world = World::new(PoolConfig::new(profile, 1));
        world.refusal = Some(Refusal::with(bad, ""));
        world.ask().unwrap();
        assert_eq!(world.codes(), codes);
        world.wait(1_000);
        assert_eq!(world.codes(), [256 + 8], "the status of the refusal, at the latest when time is up");
    }
}
