//! Scenarios of single features.

use super::*;

#[test]
fn a_connection_is_used_again() {
    let mut world = World::new(config(1));
    for _ in 0..50 {
        world.ask().unwrap();
    }
    assert_eq!((world.codes(), &world.opened[..]), (vec![0; 50], &[0][..]));
    assert_eq!((world.pool.idles(), world.pool.connections()), (1, 1));
}

#[test]
fn requests_spread_over_agents_and_connections() {
    let mut world = World::new(config(2));
    world.answers = false;
    for _ in 0..70 {
        world.ask().unwrap();
    }
    assert_eq!(world.opened, [0, 1, 0, 1]);
    assert_eq!((world.pool.waiting(), world.pool.queued()), (70, 0));
    world.wait(1_000);
    assert_eq!(world.codes(), [1; 70]);
}

#[test]
fn an_agent_that_cannot_be_reached_is_left_alone_and_the_other_serves() {
    let mut world = World::new(config(2));
    world.agents[0] = None;
    world.ask().unwrap();
    assert_eq!(world.codes(), [0]);
    assert_eq!(world.opened, [0, 1]);
    let mut world = World::new(config(1));
    world.agents[0] = None;
    world.ask().unwrap();
    world.wait(950);
    assert_eq!(world.opened.len(), 4, "after 0, 100, 300 and 700 ms");
    world.wait(50);
    assert_eq!(world.codes(), [1]);
}

#[test]
fn what_was_sent_once_is_not_sent_again() {
    let mut pool = config(1);
    pool.engine.capabilities = Capabilities::PIPELINING;
    let mut world = World::new(pool);
    world.agents[0].as_mut().unwrap().pipelining = crate::agent::PipeliningPolicy::Always;
    world.answers = false;
    for _ in 0..3 {
        world.ask().unwrap();
    }
    world.disconnect(ConnectionId(0));
    assert_eq!(world.codes(), [256 + 7; 3]);
    assert_eq!((world.tickets.len(), world.pool.waiting()), (3, 0));
}

#[test]
fn async_answers_outlive_their_connection() {
    let mut world = World::new(config(1));
    world.agents[0].as_mut().unwrap().capabilities = Capabilities::ASYNC;
    world.answers = false;
    for _ in 0..21 {
        world.ask().unwrap();
    }
    assert_eq!(world.opened.len(), 2);
    let ids = world.tickets[0].ids();
    world.disconnect(ConnectionId(0));
    assert_eq!((world.codes(), world.pool.waiting()), (vec![], 21));
    let line = alloc::format!("ACK fin {} {}", ids.stream, ids.frame);
    let bytes = crate::notation::parse_bytes(&line).unwrap();
    world.pool.on_bytes(world.now, ConnectionId(1), &bytes);
    world.work();
    assert_eq!((world.codes(), world.pool.waiting()), (vec![0], 20));
    world.disconnect(ConnectionId(1));
    assert_eq!(world.codes()[1..], [256 + 7; 20], "the last connection takes all along");
}

#[test]
fn a_drained_connection_ends_at_once_when_another_brings_its_last_answer() {
    let mut pool = config(1);
    pool.engine.max_waiting_frames = 1;
    let mut world = World::new(pool);
    world.agents[0].as_mut().unwrap().capabilities = Capabilities::ASYNC;
    world.answers = false;
    world.ask().unwrap();
    world.ask().unwrap();
    world.pool.drain(world.now);
    world.work();
    assert_eq!(world.pool.connections(), 2);
    let ids = world.tickets[0].ids();
    let bytes =
        crate::notation::parse_bytes(&alloc::format!("ACK fin {} {}", ids.stream, ids.frame)).unwrap();
    world.pool.on_bytes(world.now, ConnectionId(1), &bytes);
    world.work();
    assert_eq!(world.codes(), [0]);
    assert_eq!(world.pool.connections(), 1, "its DISCONNECT was sent");
}

#[test]
fn rates_are_kept() {
    let mut pool = config(1);
    pool.max_conn_rate = Some(2);
    pool.max_err_rate = Some(5);
    pool.engine.capabilities = Capabilities::NONE;
    let mut world = World::new(pool);
    world.answers = false;
    for _ in 0..5 {
        world.ask().unwrap();
    }
    assert_eq!(world.opened.len(), 2);
    world.wait(1_000);
    assert_eq!(world.codes(), [1; 5]);
    assert_eq!(world.ask(), Err(AskError::TooManyErrors));
    world.wait(2_000);
    assert!(world.ask().is_ok());
}

#[test]
fn checks_take_agents_down_and_up() {
    let mut pool = config(2);
    pool.check_every = Some(Duration::from_millis(100));
    let mut world = World::new(pool);
    world.agents[1] = None;
    world.wait(250);
    assert_eq!(world.health, [(1, false)]);
    for _ in 0..40 {
        world.ask().unwrap();
    }
    assert_eq!(world.codes(), [0; 40]);
    world.agents[1] = Some(AgentConfig::default());
    world.wait(250);
    assert_eq!(world.health, [(1, false), (1, true)]);
    assert!(world.pool.is_up(0) && world.pool.is_up(1));
    assert!(world.pool.connections() <= 2);
}

#[test]
fn a_drained_pool_finishes_what_waits() {
    let mut world = World::new(config(1));
    world.answers = false;
    world.ask().unwrap();
    world.pool.drain(world.now);
    world.work();
    assert_eq!(world.ask(), Err(AskError::Draining));
    assert_eq!(world.codes(), []);
    let ticket = world.tickets.pop().unwrap();
    let mut actions = Actions::new();
    actions.unset_var(Scope::Session, "x");
    let (_, agent, _) = world.connections.get_mut(&ConnectionId(0)).unwrap();
    agent.acknowledge(world.now, ticket, &actions).unwrap();
    world.flush(ConnectionId(0));
    world.work();
    assert_eq!(world.codes(), [0]);
    assert_eq!((world.pool.connections(), world.pool.queued()), (0, 0));
}

#[test]
fn what_is_too_big_fails_alone() {
    let mut pool = config(1);
    pool.engine.send_frag_payload = false;
    let mut world = World::new(pool);
    let mut list = MessageList::new();
    list.message("m").arg("", crate::Value::Binary(&vec![0; 20_000]));
    world.pool.ask(world.now, None, &list).unwrap();
    world.work();
    world.ask().unwrap();
    assert_eq!(world.codes(), [3, 0]);
}

#[test]
fn what_is_withdrawn_is_neither_sent_nor_heard_of() {
    let mut pool = config(1);
    pool.engine.capabilities = Capabilities::NONE;
    pool.max_connections = 1;
    let mut world = World::new(pool);
    world.answers = false;
    let requests: Vec<_> = (0..3).map(|_| world.ask().unwrap()).collect();
    assert_eq!((world.pool.waiting(), world.pool.queued()), (1, 2));
    world.pool.withdraw(world.now, requests[0]);
    world.pool.withdraw(world.now, requests[1]);
    assert_eq!((world.pool.waiting(), world.pool.queued()), (1, 1), "what was sent keeps its place");
    world.answer();
    assert_eq!((world.ended.len(), world.tickets.len(), world.pool.waiting()), (0, 1, 1));
    world.answer();
    assert_eq!(world.ended, [(requests[2], 0)]);
}

#[test]
fn a_drain_ends_in_time_whatever_waits() {
    let mut pool = config(1);
    pool.engine.timeouts.message = None;
    let drain = pool.engine.timeouts.drain;
    let mut world = World::new(pool);
    world.answers = false;
    world.ask().unwrap();
    world.pool.drain(world.now);
    world.work();
    assert_eq!(world.codes(), []);
    world.wait(drain.as_millis() as u64);
    assert_eq!((world.codes(), world.pool.connections()), (vec![256], 0));
    // No agent is up.
    let mut pool = config(1);
    pool.engine.timeouts.message = None;
    let mut world = World::new(pool);
    world.agents[0] = None;
    world.ask().unwrap();
    world.pool.drain(world.now);
    world.wait(drain.as_millis() as u64);
    assert_eq!((world.codes(), world.pool.connections()), (vec![5], 0));
}

#[test]
fn a_drain_waits_for_no_handshake() {
    let mut pool = config(1);
    pool.check_every = Some(Duration::from_millis(100));
    pool.engine.timeouts.hello = None;
    let mut pool = Pool::new(pool.checked().unwrap(), Timestamp::ZERO);
    pool.on_timeout(Timestamp::ZERO);
    let request = pool.ask(Timestamp::ZERO, None, &MessageList::new()).unwrap();
    let mut opened = vec![];
    while let Some(action) = pool.next_action() {
        if let PoolAction::Open { connection, .. } = action {
            opened.push(connection);
            pool.on_open(Timestamp::ZERO, connection);
        }
    }
    pool.withdraw(Timestamp::ZERO, request);
    assert_eq!(opened.len(), 2, "a check and a session");
    assert!(opened.iter().all(|id| !pool.interest(*id).close));
    pool.drain(Timestamp::ZERO);
    assert!(opened.iter().all(|id| pool.interest(*id).close));
    let ended = |action: &PoolAction| !matches!(action, PoolAction::Drive(_));
    assert_eq!(core::iter::from_fn(|| pool.next_action()).filter(ended).count(), 0);
}

#[test]
fn an_agent_that_shuts_its_side_takes_its_requests_along() {
    let mut pool = config(1);
    pool.engine.capabilities = Capabilities::PIPELINING;
    let mut world = World::new(pool);
    world.answers = false;
    world.ask().unwrap();
    world.pool.on_input_eof(world.now, ConnectionId(0), &[]);
    world.work();
    assert_eq!((world.codes(), world.pool.waiting()), (vec![257], 0));
    world.wait(2_000);
    assert_eq!(world.pool.connections(), 0);
}

#[test]
fn what_is_withdrawn_is_not_heard_of_though_it_has_ended() {
    let mut list = MessageList::new();
    list.message("m").arg("", crate::Value::Binary(&vec![0; 20_000]));
    let mut pool = config(1);
    pool.engine.send_frag_payload = false;
    let mut world = World::new(pool);
    world.ask().unwrap();
    let request = world.pool.ask(world.now, None, &list).unwrap();
    world.pool.withdraw(world.now, request);
    world.work();
    assert_eq!(world.codes(), [0]);
    assert_eq!((world.pool.counts().processed, world.pool.counts().errors), (2, 1));
    assert!(world.pool.interest(ConnectionId(9)).close, "it knows no such connection");
}

#[test]
fn a_connection_under_way_wants_nothing() {
    let mut pool = Pool::new(config(1).checked().unwrap(), Timestamp::ZERO);
    pool.ask(Timestamp::ZERO, None, &MessageList::new()).unwrap();
    let Some(PoolAction::Open { connection, agent: 0 }) = pool.next_action() else { panic!() };
    assert_eq!((pool.interest(connection), pool.outgoing(connection)), (Interest::default(), &[][..]));
    pool.on_open(Timestamp::ZERO, connection);
    assert!(pool.interest(connection).write && pool.connection(connection).is_some());
}
