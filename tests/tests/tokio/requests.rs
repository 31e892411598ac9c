//! Requests and their answers, over real sockets.

use std::{
    future::pending,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{Running, until, within};
use spop_tokio::{
    Actions, AgentConfig, ArgError, Handler, Partial, Peer, Reply, Request, Route, Scope, Status, Watch,
};
use tokio::sync::Semaphore;

async fn reputation(request: Request) -> Result<Actions, ArgError> {
    let mut actions = Actions::new();
    if let Some(message) = request.message("check") {
        let ip: IpAddr = message.arg("ip")?;
        actions.set_var(Scope::Session, "score", if ip.is_loopback() { 100 } else { 7_i32 });
    }
    Ok(actions)
}

#[tokio::test]
async fn a_function_is_an_agent() {
    within(async {
        let server = Running::start(reputation).await;
        let mut client = server.session().await;
        client.ask("NOTIFY fin 0 1 check ip=ipv4:192.0.2.1", "ACK fin 0 1 set sess score=int32:7").await;
        client.ask("NOTIFY fin 2 1 check ip=ipv6:::1", "ACK fin 2 1 set sess score=int32:100").await;
        client.ask("NOTIFY fin 3 1 other", "ACK fin 3 1").await;
    })
    .await;
}

#[tokio::test]
async fn a_request_knows_where_it_comes_from() {
    within(async {
        let server = Running::start(|request: Request| async move {
            assert!(matches!(request.peer(), Peer::Ip(address) if address.ip().is_loopback()));
            assert_eq!(request.engine_id(), Some(b"e1".as_slice()));
            assert_eq!((request.stream_id(), request.frame_id()), (5, 6));
            assert_eq!(request.messages().len(), 2);
            assert_eq!(request.session().max_frame_size, 16_380);
            Actions::new()
        })
        .await;
        server.session().await.ask("NOTIFY fin 5 6 a ; b x=null", "ACK fin 5 6").await;
    })
    .await;
}

#[tokio::test]
async fn slow_answers_run_beside_each_other_and_come_as_they_are_ready() {
    within(async {
        let gates: Arc<[Semaphore; 3]> = Arc::new([0, 0, 0].map(Semaphore::new));
        let opened = Arc::clone(&gates);
        let server = Running::start(move |request: Request| {
            let gates = Arc::clone(&gates);
            async move {
                let id = request.stream_id() as usize;
                if let Some(gate) = gates.get(id) {
                    let _pass = gate.acquire().await;
                }
                Actions::new()
            }
        })
        .await;
        let mut client = server.session().await;
        client
            .send("NOTIFY fin 0 1 m\n NOTIFY fin 1 1 m\n NOTIFY fin 9 1 m\n NOTIFY fin 2 1 m\n NOTIFY fin 8 1 m")
            .await;
        client.expect("ACK fin 9 1\n ACK fin 8 1").await;
        for id in [1, 0, 2] {
            opened[id].add_permits(1);
            client.expect(&format!("ACK fin {id} 1")).await;
        }
        client.ask("NOTIFY fin 1 2 m", "ACK fin 1 2").await;
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_fails_costs_its_request_only() {
    within(async {
        let server = Running::start(|request: Request| async move {
            match request.stream_id() {
                1 => return Err("no"),
                2 => panic!("on purpose"),
                3 => {
                    tokio::task::yield_now().await;
                    panic!("later, on purpose")
                }
                4 => {
                    let mut actions = Actions::new();
                    actions.set_var(Scope::Session, "big", "x".repeat(20_000).as_str());
                    return Ok(actions);
                }
                _ => {}
            }
            Ok(Actions::new())
        })
        .await;
        let mut client = server.session().await;
        for id in 1..6 {
            client.ask(&format!("NOTIFY fin {id} 1 m"), &format!("ACK fin {id} 1")).await;
        }
        assert_eq!(server.handle.stats().open, 1);
    })
    .await;
}

#[tokio::test]
async fn a_handler_may_disconnect() {
    within(async {
        let server = Running::start(|request: Request| async move {
            match request.stream_id() {
                1 => Reply::Disconnect { status: Status(42), message: "enough".into() },
                _ => pending().await,
            }
        })
        .await;
        let mut client = server.session().await;
        client.send("NOTIFY fin 2 1 m\n NOTIFY fin 1 1 m").await;
        client.expect("AGENT-DISCONNECT fin 0 0 status-code=uint32:42 message=string:enough").await;
        assert_eq!(client.receive().await, None);
    })
    .await;
}

/// Counts the calls that have not ended.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn calls_nobody_waits_for_are_dropped() {
    within(async {
        let running = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&running);
        let server = Running::start(move |request: Request| {
            count.fetch_add(1, Ordering::SeqCst);
            let counted = Counted(Arc::clone(&count));
            async move {
                let _counted = counted;
                if request.frame_id() == 1 {
                    pending::<()>().await;
                }
                Actions::new()
            }
        })
        .await;
        let mut client = server.session().await;
        client.send("NOTIFY fin 1 1 m\n NOTIFY fin 2 1 m\n NOTIFY fin 3 1 m\n NOTIFY fin 9 9 m").await;
        client.expect("ACK fin 9 9").await;
        assert_eq!(running.load(Ordering::SeqCst), 3);
        // The same identifiers again: the newer counts. An abort: nobody waits.
        client.send("NOTIFY fin 1 1 m\n UNSET fin,abort 2 1\n NOTIFY fin 9 10 m").await;
        client.expect("ACK fin 9 10").await;
        assert_eq!(running.load(Ordering::SeqCst), 2);
        client.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye").await;
        until("all are dropped", || running.load(Ordering::SeqCst) == 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_without_its_handler() {
    within(async {
        let mut config = AgentConfig::default();
        config.timeouts.message = Some(Duration::from_millis(30));
        let server = Running::with(
            |request: Request| async move {
                assert!(request.deadline().is_some());
                pending::<Actions>().await
            },
            config,
        )
        .await;
        server.session().await.ask("NOTIFY fin 1 1 m", "ACK fin 1 1").await;
    })
    .await;
}

#[tokio::test]
async fn a_deadline_that_passed_while_a_handler_blocked_is_served() {
    within(async {
        let mut config = AgentConfig::default();
        config.timeouts.message = Some(Duration::from_millis(10));
        let handler = |_: Request| async move {
            // The time at which the timer is to go off passes before the timer is set.
            std::thread::sleep(Duration::from_millis(40));
            pending::<Actions>().await
        };
        let server = Running::with(handler, config).await;
        server.session().await.ask("NOTIFY fin 1 1 m", "ACK fin 1 1").await;
    })
    .await;
}

struct Watcher;

impl Handler for Watcher {
    type Output = Actions;

    async fn handle(&self, _: Request) -> Actions {
        Actions::new()
    }

    fn watch(&self, arriving: Partial<'_>) -> Watch {
        match arriving.messages().next() {
            Some(message) if message.name() == b"panic" => panic!("on purpose"),
            Some(message) if message.name() == b"waf" => Watch::Refuse,
            _ => Watch::Continue,
        }
    }
}

#[tokio::test]
async fn what_is_still_arriving_can_be_refused() {
    within(async {
        let mut config = AgentConfig::default();
        config.watch_fragments = true;
        // However long this task is held up after a refusal.
        config.drain_after_refusal = None;
        let server = Running::with(Watcher, config).await;
        let mut client = server.session().await;
        let part = |range: &str, name: &str| format!(r#"messages[{range}] {name} body=string:"x"*600"#);
        client.send(&format!("NOTIFY - 1 1 {}", part("..300", "waf"))).await;
        client.expect("ACK fin,abort 1 1").await;
        // What was under way is swallowed; others are not affected, nor is the connection by a panic.
        for name in ["other", "panic"] {
            client
                .send(&format!(
                    "UNSET - 1 1 {}\n NOTIFY - 2 1 {}\n UNSET fin 2 1 {}",
                    part("300..400", "waf"),
                    part("..300", name),
                    part("300..", name),
                ))
                .await;
            client.expect("ACK fin 2 1").await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_may_be_sent_in_parts() {
    within(async {
        let server = Running::start(|request: Request| async move {
            let var = |name| {
                let mut actions = Actions::new();
                actions.set_var(Scope::Session, name, 1_i32);
                actions
            };
            request.send_part(var("a"));
            if request.stream_id() == 2 {
                tokio::task::yield_now().await;
            }
            var("b")
        })
        .await;
        let mut client = server.connect().await;
        client.greet_as("e1", "fragmentation,pipelining").await;
        // Parts are joined until a frame is full.
        for id in [1, 2] {
            let answer = format!("ACK fin {id} 1 set sess a=int32:1 ; set sess b=int32:1");
            client.ask(&format!("NOTIFY fin {id} 1 m"), &answer).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_handler_may_be_chosen_at_run_time() {
    within(async {
        for (watched, ack) in [(false, "ACK fin 1 1 set sess score=int32:7"), (true, "ACK fin 1 1")] {
            let handler = if watched { Route::new(Watcher) } else { Route::new(reputation) };
            let server = Running::start(handler).await;
            server.session().await.ask("NOTIFY fin 1 1 check ip=ipv4:192.0.2.1", ack).await;
        }
    })
    .await;
}

#[tokio::test]
async fn many_requests_on_many_connections_are_all_answered() {
    within(async {
        let mut config = AgentConfig::default();
        config.limits.max_in_flight = 7;
        let server = Running::with(
            |request: Request| async move {
                if request.stream_id().is_multiple_of(3) {
                    tokio::task::yield_now().await;
                }
                Actions::new()
            },
            config,
        )
        .await;
        let server = Arc::new(server);
        let clients = (0..8).map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let mut client = server.session().await;
                let all: Vec<_> =
                    (0..500).map(|id| format!("NOTIFY fin {id} 1 m x=string:\"y\"*300")).collect();
                client.send(&all.join("\n")).await;
                let mut seen = vec![false; 500];
                for _ in 0..500 {
                    let ack = client.receive().await.unwrap();
                    let id: usize = ack.split(' ').nth(2).unwrap().parse().unwrap();
                    assert!(!std::mem::replace(&mut seen[id], true), "{ack} came twice");
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    })
    .await;
}
