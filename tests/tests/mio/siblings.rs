//! Answers on any connection of an engine.

use std::{
    collections::HashSet,
    net::Shutdown,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use spop_mio::{Actions, AgentConfig, Cancelled, Capabilities, ConnectionInfo, Reply, Request};

use crate::support::{Running, hand_out, until, within};

/// With async.
fn config() -> AgentConfig {
    let mut config = AgentConfig::default();
    config.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
    config
}

#[test]
fn an_answer_takes_another_connection_of_its_engine() {
    within(|| {
        let (handler, responders) = hand_out();
        let server = Running::with(handler, config(), |server| server.workers(4));
        for engine in ["a", "b", "c", "d", "e"] {
            let mut home = server.connect();
            home.greet("pipelining,async", engine);
            let mut sibling = server.connect();
            sibling.greet("pipelining,async", engine);
            home.send("NOTIFY fin 1 1 m\nNOTIFY fin 2 1 m");
            sibling.send("NOTIFY fin 9 1 m");
            let (mut kept, mut theirs) = (Vec::new(), Vec::new());
            for responder in responders.iter().take(3) {
                if responder.ids().stream == 9 { theirs.push(responder) } else { kept.push(responder) }
            }
            // Its connection is gone, its engine is not.
            socket2::SockRef::from(&home.io).set_linger(Some(Duration::ZERO)).unwrap();
            drop(home);
            let of_engine = |connection: &ConnectionInfo| connection.engine_id.as_deref() == Some(engine);
            until(|| server.handle.connections().iter().filter(|one| of_engine(one)).count() == 1);
            for responder in kept {
                assert!(!responder.is_cancelled());
                responder.reply(Actions::new());
            }
            let mut answers = [sibling.receive().unwrap(), sibling.receive().unwrap()];
            answers.sort();
            assert_eq!(answers, ["ACK fin 1 1", "ACK fin 2 1"]);
            for responder in theirs {
                responder.reply(Actions::new());
            }
            sibling.expect("ACK fin 9 1");
        }
    });
}

#[test]
fn nobody_waits_when_the_last_connection_of_an_engine_is_gone() {
    within(|| {
        let (handler, responders) = hand_out();
        let server = Running::with(handler, config(), |server| server.workers(1));
        let end = "HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye";
        let mut clients: Vec<_> = (0..3)
            .map(|_| {
                let mut client = server.connect();
                client.greet("pipelining,async", "x");
                client
            })
            .collect();
        let mut kept = Vec::new();
        for (id, client) in clients.iter_mut().enumerate() {
            client.send(&format!("NOTIFY fin {id} 1 m"));
            kept.push(responders.recv().unwrap());
        }
        for (client, left) in clients.iter_mut().zip([2, 1, 0]) {
            assert!(kept.iter().all(|responder| !responder.is_cancelled()));
            client.send(end);
            assert!(client.receive().unwrap().starts_with("AGENT-DISCONNECT"));
            client.expect_end();
            client.io.shutdown(Shutdown::Both).unwrap();
            until(|| server.handle.connections().len() == left);
        }
        until(|| kept.iter().all(|responder| responder.reason() == Some(Cancelled::Disconnected)));
        kept.into_iter().for_each(drop);
        server.session().send("NOTIFY fin 9 1 m");
        assert_eq!(responders.recv().unwrap().ids().stream, 9);
    });
}

#[test]
fn the_same_ids_on_another_connection_of_the_engine_supersede() {
    within(|| {
        let (handler, responders) = hand_out();
        let server = Running::with(handler, config(), |server| server.workers(2));
        let [mut one, mut two] = [(); 2].map(|()| {
            let mut client = server.connect();
            client.greet("pipelining,async", "x");
            client
        });
        one.send("NOTIFY fin 1 1 m");
        let older = responders.recv().unwrap();
        two.send("NOTIFY fin 1 1 m");
        let newer = responders.recv().unwrap();
        until(|| older.is_cancelled());
        assert!(!newer.is_cancelled());
        older.reply(Reply::failed("too late"));
        newer.reply(Actions::new());
        two.expect("ACK fin 1 1");
        one.send("NOTIFY fin 5 1 m");
        responders.recv().unwrap().reply(Actions::new());
        one.expect("ACK fin 5 1");
    });
}

#[test]
fn the_connections_of_an_engine_are_served_by_several_workers() {
    within(|| {
        let threads = Arc::new(Mutex::new(HashSet::new()));
        let seen = Arc::clone(&threads);
        let handler = move |_: Request<'_>| {
            seen.lock().unwrap().insert(thread::current().id());
            Actions::new()
        };
        let server = Running::with(handler, config(), |server| server.workers(4));
        // The kernel chooses the worker: that it is the same for all has the odds of one in 4 to the power of 31.
        let clients: Vec<_> = (0..32)
            .map(|_| {
                let mut client = server.connect();
                client.greet("pipelining,async", "x");
                client.ask("NOTIFY fin 1 1 m", "ACK fin 1 1");
                client
            })
            .collect();
        assert!(threads.lock().unwrap().len() > 1, "one worker serves all {} connections", clients.len());
    });
}
