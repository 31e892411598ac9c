//! No event searches through all connections, and what is kept instead is right.

use super::*;
use crate::steps::steps_of;

/// The steps of a hundred requests with so many connections, each with one request in flight.
fn steps(connections: usize) -> usize {
    let mut pool = config(1);
    pool.engine.capabilities = Capabilities::NONE;
    pool.max_connections = connections;
    let mut world = World::new(pool);
    world.answers = false;
    for _ in 0..connections {
        world.ask().unwrap();
    }
    assert_eq!((world.pool.connections(), world.pool.waiting()), (connections, connections));
    steps_of(|| {
        for _ in 0..100 {
            world.answer();
            world.ask().unwrap();
            let queued = world.ask().ok();
            world.wait(1);
            if let Some(request) = queued {
                world.pool.withdraw(world.now, request);
            }
        }
        assert_eq!(world.pool.waiting(), connections);
    })
}

#[test]
fn a_request_takes_as_many_steps_with_ten_thousand_connections_as_with_one() {
    let (one, many) = (steps(1), steps(if cfg!(miri) { 50 } else { 10_000 }));
    assert!(one > 0 && many <= one + one / 10, "{one} steps, and {many} with many connections");
}

#[test]
fn an_answer_on_another_connection_is_claimed_in_one_step() {
    let steps = |connections: usize| {
        let mut pool = config(1);
        pool.engine.max_waiting_frames = 1;
        pool.max_connections = connections;
        let mut world = World::new(pool);
        world.agents[0].as_mut().unwrap().capabilities = Capabilities::ASYNC;
        world.answers = false;
        for _ in 0..connections {
            world.ask().unwrap();
        }
        let ids = world.tickets[connections - 1].ids();
        let line = alloc::format!("ACK fin {} {}", ids.stream, ids.frame);
        let bytes = crate::notation::parse_bytes(&line).unwrap();
        let steps = steps_of(|| {
            world.pool.on_bytes(world.now, ConnectionId(0), &bytes);
        });
        world.work();
        assert_eq!((world.codes(), world.pool.waiting()), (vec![0], connections - 1));
        steps
    };
    assert!(steps(300) <= steps(2), "{} steps, {} with few", steps(300), steps(2));
}

/// Compares what the pool keeps of its connections with the connections.
pub(super) fn check(pool: &Pool) {
    let mut sums = [0; 5];
    for connection in pool.connections.values() {
        let Counts { serving, opening, idle, asynchronous, waiting } = connection.counts();
        for (sum, count) in sums.iter_mut().zip([serving, opening, idle, asynchronous, waiting]) {
            *sum += count;
        }
        connection.check(pool);
    }
    // Each one that its driver has to attend to was named in an action, and the driver has carried it out.
    for id in pool.connections.numbers().map(ConnectionId) {
        let interest = pool.interest(id);
        assert!(!interest.write && interest.shut.is_none() && !interest.close, "{id:?}: {interest:?}");
    }
    let Counts { serving, opening, idle, asynchronous, waiting } = pool.counts;
    assert_eq!([serving, opening, idle, asynchronous, waiting], sums);
    assert!(pool.alarms.len() <= pool.connections.len());
    let asynchronous = pool.connections.values().filter(|connection| connection.reactor.is_async());
    assert_eq!(pool.sent_ids.len(), asynchronous.map(|connection| connection.sent.len()).sum());
    for (number, agent) in pool.agents.iter().enumerate() {
        let of = |kind| pool.connections.values().filter(move |c| c.agent == number && c.kind == kind);
        assert_eq!(agent.connections, of(Kind::Requests).count());
        assert_eq!(agent.checking, of(Kind::HealthCheck).count() > 0);
        let ready = of(Kind::Requests).filter(|connection| connection.is_ready()).count();
        assert_eq!(agent.ready.len(), ready);
    }
    let asked = pool.connections.values().flat_map(|connection| &connection.sent);
    let asked = asked.filter(|sent| sent.request.is_some()).count() + pool.queue.len();
    assert!(asked <= pool.requests.len() && pool.requests.len() <= asked + pool.orphans.len());
}
