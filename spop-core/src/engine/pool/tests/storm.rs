//! Random events of a pool and its agents.

use alloc::collections::BTreeSet;

use proptest::{collection, prelude::*, sample::select};

use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask,
    /// Sends a request with identifiers that may be in flight.
    AskAs(u64, u64),
    AskTooMuch,
    /// An agent answers one of its requests.
    Answer(usize),
    /// An agent drops one of its requests.
    Forget(usize),
    Withdraw(usize),
    Wait(u64),
    /// The agent at the other end of a connection disconnects, or its connection breaks.
    Disconnect(usize),
    Lose(usize),
    /// An agent stops, starts, or starts with other capabilities.
    Reach(usize, Option<bool>),
    Refuse(bool),
    /// The clock jumps, and jumps back before the next step.
    Jump(u64),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => Just(Step::Ask),
        4 => (0_u64..6, 1_u64..3).prop_map(|(stream, frame)| Step::AskAs(stream, frame)),
        1 => Just(Step::AskTooMuch),
        30 => (0_usize..50).prop_map(Step::Answer),
        3 => (0_usize..50).prop_map(Step::Forget),
        3 => (0_usize..50).prop_map(Step::Withdraw),
        10 => (0_u64..300).prop_map(Step::Wait),
        1 => (0_u64..4_000).prop_map(Step::Wait),
        2 => (0_usize..9).prop_map(Step::Disconnect),
        2 => (0_usize..9).prop_map(Step::Lose),
        2 => (0_usize..3, select(vec![None, Some(false), Some(true)])).prop_map(|(n, is)| Step::Reach(n, is)),
        1 => any::<bool>().prop_map(Step::Refuse),
        1 => (0_u64..2_000).prop_map(Step::Jump),
        1 => Just(Step::Drain),
    ]
}

fn agent(asynchronous: bool) -> AgentConfig {
    let also = if asynchronous { Capabilities::ASYNC } else { Capabilities::NONE };
    AgentConfig { capabilities: Capabilities::PIPELINING | also, ..AgentConfig::default() }
}

prop_compose! {
    fn pool()(
        profile in 0..4,
        agents in 1_usize..4,
        max_connections in 1_usize..5,
        max_queue in select(vec![1_usize, 5, 1_000]),
        max_conn_rate in select(vec![None, Some(1), Some(20)]),
        max_err_rate in select(vec![None, Some(3), Some(100)]),
        retry_after in select(vec![1_u64, 50]),
        check_every in select(vec![None, Some(70_u64)]),
        window in 1_usize..6,
    ) -> PoolConfig {
        let mut config = config(agents);
        match profile {
            0 => config.engine.profile = EngineConfig::haproxy_3_1().profile,
            1 => config.engine.capabilities = Capabilities::NONE,
            2 => config.engine.capabilities = Capabilities::PIPELINING,
            _ => {}
        }
        config.engine.max_waiting_frames = window;
        config.engine.send_frag_payload = false;
        config.engine.timeouts.idle = Some(Duration::from_secs(3));
        config.check_every = check_every.map(Duration::from_millis);
        config.retry_after = Duration::from_millis(retry_after);
        PoolConfig { max_connections, max_queue, max_conn_rate, max_err_rate, ..config }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 600 }))]

    #[test]
    fn every_request_ends_once_and_no_limit_is_passed(
        config in pool(),
        asynchronous: bool,
        steps in collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(config.clone());
        world.answers = false;
        for slot in &mut world.agents {
            *slot = Some(agent(asynchronous));
        }
        let (mut asked, mut withdrawn) = (vec![], BTreeSet::new());
        for step in steps {
            match step {
                Step::Ask => asked.extend(world.ask()),
                Step::AskAs(stream, frame) => {
                    asked.extend(world.pool.ask(world.now, Some(Ids::new(stream, frame)), &MessageList::new()));
                }
                Step::AskTooMuch => {
                    let mut list = MessageList::new();
                    list.message("m").arg("", crate::Value::Binary(&vec![0; 20_000]));
                    asked.extend(world.pool.ask(world.now, None, &list));
                }
                Step::Answer(index) => world.answer_any(index),
                Step::Forget(index) => {
                    if index < world.tickets.len() {
                        let _ = world.tickets.swap_remove(index);
                    }
                }
                Step::Withdraw(index) => {
                    if let Some(request) = asked.get(index).copied() {
                        if !world.ended.iter().any(|(ended, _)| *ended == request) {
                            withdrawn.insert(request);
                        }
                        world.pool.withdraw(world.now, request);
                    }
                }
                Step::Wait(millis) => world.wait(millis),
                Step::Disconnect(index) => {
                    if let Some(id) = world.connections.keys().nth(index).copied() {
                        world.disconnect(id);
                    }
                }
                Step::Lose(index) => {
                    if let Some(id) = world.connections.keys().nth(index).copied() {
                        world.pool.on_transport_error(world.now, id);
                    }
                }
                Step::Reach(index, how) => {
                    if let Some(slot) = world.agents.get_mut(index) {
                        *slot = how.map(agent);
                    }
                }
                Step::Refuse(refuses) => world.refusal = refuses.then(Refusal::of_handshake),
                Step::Jump(millis) => world.pool.on_timeout(world.now + Duration::from_millis(millis)),
                Step::Drain => world.pool.drain(world.now),
            }
            world.work();
            prop_assert!(world.pool.queued() <= config.max_queue);
            #[cfg(feature = "std")]
            scale::check(&world.pool);
            let mut each = BTreeMap::<usize, usize>::new();
            for connection in world.pool.connections.values() {
                prop_assert!(connection.sent.len() <= config.engine.max_waiting_frames);
                if connection.kind == Kind::Requests {
                    *each.entry(connection.agent).or_default() += 1;
                }
            }
            prop_assert!(each.values().all(|count| *count <= config.max_connections), "{:?}", each);
            let load = world.pool.counts();
            let (processed, errors) = (load.processed as usize, load.errors as usize);
            prop_assert_eq!(processed, world.ended.len() + withdrawn.len());
            prop_assert_eq!(errors, world.ended.iter().filter(|(_, code)| *code != 0).count());
            let sent: usize = world.pool.connections.values().map(|c| c.sent.len()).sum();
            prop_assert_eq!(load.sending + sent + world.pool.orphans.len(), load.sending + load.waiting);
        }
        // The timeouts end unanswered requests, and a drain ends the connections.
        world.wait(1_000 + 2_000);
        prop_assert_eq!((world.pool.queued(), world.pool.waiting()), (0, 0));
        world.pool.drain(world.now);
        world.work();
        world.wait(60_000);
        prop_assert_eq!((world.pool.connections.len(), world.pool.deadline()), (0, None));
        let mut ended: Vec<_> = world.ended.iter().map(|(request, _)| *request).chain(withdrawn).collect();
        ended.sort_unstable();
        prop_assert_eq!(ended, asked);
        for (_, code) in &world.ended {
            let named = matches!(code, 0..=5 | 256..=269 | 355);
            prop_assert!(named, "{}", code);
        }
        for times in &world.times {
            let parts = times.queue.unwrap_or_default() + times.wait.unwrap_or_default();
            prop_assert!(times.processing.is_some_and(|all| parts <= all));
        }
    }
}
