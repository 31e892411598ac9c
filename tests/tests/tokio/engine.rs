//! An engine and the agents it asks, over real sockets.

use std::{
    future::{Future, pending},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{Running, until, within};
use futures_util::{FutureExt as _, future::join_all};
use spop_core::accept::ProxyVersion;
use spop_tokio::{
    Actions, AgentConfig, ArgError, Capabilities, Engine, EngineClient, EngineConfig, EngineError,
    MessageList, PoolConfig, Reply, Request, Scope, Server, Status, Value,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Answers `ask` with its argument `n`, after so many `turns` of other tasks, or `never`; disconnects with `code`.
async fn answer(request: Request) -> Result<Reply, ArgError> {
    let Some(message) = request.message("ask") else { return Ok(Actions::new().into()) };
    if let Some(code) = message.arg::<Option<u32>>("code")? {
        return Ok(Reply::Disconnect { status: Status(code), message: "as you wish".into() });
    }
    if message.get("never").is_some() {
        pending::<()>().await;
    }
    for _ in 0..message.arg::<Option<u32>>("turns")?.unwrap_or(0) {
        tokio::task::yield_now().await;
    }
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "n", message.arg::<Value<'_>>("n")?);
    Ok(actions.into())
}

fn ask(name: &str, value: u32) -> MessageList {
    let mut list = MessageList::new();
    list.message("ask").arg("n", 7_i32).arg(name, value);
    list
}

fn config() -> EngineConfig {
    let mut config = EngineConfig::default();
    config.timeouts.message = Some(Duration::from_secs(10));
    config
}

fn engine(config: EngineConfig, server: &Running) -> EngineClient {
    Engine::new(config).agent(server.address.clone()).start().unwrap()
}

async fn code(engine: &EngineClient, list: &MessageList) -> u32 {
    engine.notify(list).await.map_or_else(EngineError::code, |_| 0)
}

type Answer = Pin<Box<dyn Future<Output = Result<Reply, ArgError>> + Send>>;

/// A handler that answers when the gate lets its request pass.
fn gated() -> (Arc<Semaphore>, impl Fn(Request) -> Answer) {
    let gate = Arc::new(Semaphore::new(0));
    let handler = Arc::clone(&gate);
    let handler = move |request: Request| -> Answer {
        let gate = Arc::clone(&handler);
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            answer(request).await
        })
    };
    (gate, handler)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_gets_its_own_answer() {
    within(async {
        let mut agent = AgentConfig::default();
        // Of many at once none gives way to others, however long this takes.
        agent.processing = None;
        let server = Running::with(answer, agent).await;
        // Without pipelining there are as many connections as requests at once.
        for (config, most) in
            [(config(), 25), (EngineConfig::haproxy_2_6(), 25), (EngineConfig::haproxy_3_1(), 500)]
        {
            let engine = engine(config, &server);
            let requests = (0..500_u32).map(|n| {
                let engine = engine.clone();
                tokio::spawn(async move {
                    let mut list = MessageList::new();
                    list.message("ask").arg("n", n).arg("turns", n * 7 % 20);
                    let answer = engine.notify(&list).await.unwrap();
                    assert_eq!(answer.var(Scope::Transaction, "n"), Some(Value::Uint32(n)));
                    assert_eq!(answer.actions().iter().count(), 1);
                })
            });
            join_all(requests).await.into_iter().for_each(|request| request.unwrap());
            let stats = engine.stats();
            assert_eq!((stats.queued, stats.waiting), (0, 0));
            assert!((1..=most).contains(&stats.connections), "{stats:?}");
            engine.drain().await;
            assert_eq!(engine.stats().connections, 0);
        }
    })
    .await;
}

#[tokio::test]
async fn what_becomes_of_requests_and_connections_is_counted() {
    within(async {
        let server = Running::start(answer).await;
        let client = engine(config(), &server);
        assert_eq!(code(&client, &ask("turns", 0)).await, 0);
        let list = ask("never", 1);
        let mut lost = pin!(client.notify(&list));
        assert!(lost.as_mut().now_or_never().is_none());
        drop(pin!(client.notify(&ask("turns", 0))).now_or_never());
        until("it was asked", || server.handle.connections().iter().any(|one| one.in_flight == 1)).await;
        server.handle.stop();
        server.task.await.unwrap();
        assert_eq!(lost.await.unwrap_err(), EngineError::Spop(Status::NORMAL));
        until("its connection has ended", || client.stats().disconnects == 1).await;
        let stats = client.stats();
        assert_eq!((stats.asked, stats.answered, stats.withdrawn), (3, 1, 1), "{stats:?}");
        assert_eq!((stats.failed.disconnected, stats.failed.total()), (1, 1), "{stats:?}");
        assert_eq!(stats.connects, 1, "{stats:?}");

        // HAProxy 3.1 and later fail what is queued when a connection cannot be opened.
        let unreachable = Engine::new(EngineConfig::haproxy_3_1()).agent("127.0.0.1:1").start().unwrap();
        let error = unreachable.notify(&list).await.unwrap_err();
        assert_eq!((error, error.code()), (EngineError::Unreachable, 257));
        assert_eq!(error.to_string(), "257 (the agent could not be reached)");
        let stats = unreachable.stats();
        assert_eq!((stats.connects, stats.failed.unreachable, stats.failed.total()), (0, 1, 1), "{stats:?}");
        assert!(stats.failed_connects >= 1, "{stats:?}");
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_comes_back_is_asked_again() {
    within(async {
        let server = Running::start(answer).await;
        let address = server.address.clone();
        let engine = engine(config(), &server);
        assert_eq!(code(&engine, &ask("turns", 0)).await, 0);
        let list = ask("never", 1);
        let mut lost = pin!(engine.notify(&list));
        assert!(lost.as_mut().now_or_never().is_none());
        until("it was asked", || server.handle.connections().iter().any(|one| one.in_flight == 1)).await;
        server.handle.stop();
        server.task.await.unwrap();
        assert_eq!(lost.await.unwrap_err(), EngineError::Spop(Status::NORMAL), "what was sent fails");
        // What was not sent waits for the agent.
        let list = ask("turns", 0);
        let (answer, ()) = tokio::join!(code(&engine, &list), async {
            until("it waits", || engine.stats().queued == 1 && engine.failure(0).is_some()).await;
            let server = Server::new(answer).bind(address.tcp().unwrap()).await.unwrap();
            tokio::spawn(server.serve());
        });
        assert_eq!(answer, 0);
    })
    .await;
}

#[tokio::test]
async fn time_is_up_wherever_a_request_waits() {
    within(async {
        let mut config = config();
        // Longer than an answer that comes takes, also on a machine that is busy.
        config.timeouts.message = Some(Duration::from_secs(4));
        let server = Running::start(answer).await;
        let engine = engine(config.clone(), &server);
        let start = Instant::now();
        assert_eq!(code(&engine, &ask("never", 1)).await, 1);
        assert!((3_900..10_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        assert_eq!(code(&engine, &ask("turns", 0)).await, 0, "it lives on");

        // Nobody answers the HELLO; nobody listens.
        config.timeouts.message = Some(Duration::from_secs(1));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = Engine::new(config.clone()).agent(listener.local_addr().unwrap()).start().unwrap();
        let nowhere = Engine::new(config).agent("/nowhere/agent.sock").start().unwrap();
        let list = ask("turns", 0);
        assert_eq!(tokio::join!(code(&silent, &list), code(&nowhere, &list)), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_disconnect_has_its_code() {
    within(async {
        let server = Running::start(answer).await;
        let engine = engine(config(), &server);
        for wanted in [0, 7, 99, 1000] {
            assert_eq!(code(&engine, &ask("code", wanted)).await, 256 + wanted);
        }
        assert_eq!(code(&engine, &ask("turns", 0)).await, 0);
    })
    .await;
}

#[tokio::test]
async fn checks_find_an_agent_down_and_up() {
    within(async {
        let server = Running::start(answer).await;
        let other = Running::start(answer).await;
        let address = other.address.clone();
        let mut pool = PoolConfig::new(config(), 0);
        pool.check_every = Some(Duration::from_millis(20));
        let engine = Engine::with_pool(pool)
            .agent(server.address.clone())
            .agent(other.address.clone())
            .start()
            .unwrap();
        until("checked", || other.handle.stats().accepted > 3).await;
        assert!(engine.is_up(0) && engine.is_up(1));
        other.handle.stop();
        other.task.await.unwrap();
        until("down", || !engine.is_up(1)).await;
        assert!(engine.is_up(0));
        for _ in 0..20 {
            assert_eq!(code(&engine, &ask("turns", 0)).await, 0);
        }
        let server = Server::new(answer).bind(address.tcp().unwrap()).await.unwrap();
        tokio::spawn(server.serve());
        until("up", || engine.is_up(1)).await;
        engine.drain().await;
    })
    .await;
}

#[tokio::test]
async fn agents_share_the_load() {
    within(async {
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let counting = |count: &Arc<AtomicUsize>| {
            let count = Arc::clone(count);
            move |request: Request| {
                count.fetch_add(1, Ordering::Relaxed);
                answer(request)
            }
        };
        let one = Running::start(counting(&counts[0])).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let two = Server::new(counting(&counts[1])).bind(&*path).await.unwrap();
        tokio::spawn(two.serve());
        let mut config = config();
        config.max_waiting_frames = 10;
        let engine = Engine::new(config).agent(one.address.clone()).agent(&*path).start().unwrap();
        let list = ask("turns", 5);
        for _ in 0..10 {
            let codes = join_all((0..40).map(|_| code(&engine, &list))).await;
            assert_eq!(codes, [0; 40]);
        }
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts[0] + counts[1], 400);
        assert!(counts.iter().all(|count| (120..=280).contains(count)), "{counts:?}");
    })
    .await;
}

#[tokio::test]
async fn more_than_a_write_takes_leaves_in_several() {
    within(async {
        let server = Running::start(answer).await;
        let engine = engine(config(), &server);
        let text = "x".repeat(10_000);
        let mut list = MessageList::new();
        list.message("ask").arg("n", 7_i32).arg("turns", 1_u32).arg("text", text.as_str());
        let asked = (0..100).map(|_| code(&engine, &list));
        assert_eq!(join_all(asked).await, [0; 100]);
    })
    .await;
}

#[tokio::test]
async fn what_does_not_fit_a_frame_leaves_in_fragments() {
    within(async {
        let mut agent = AgentConfig::default();
        agent.max_frame_size = 256;
        let server = Running::with(answer, agent).await;
        let body = vec![b'x'; 5_000];
        let mut list = MessageList::new();
        list.message("ask").arg("n", Value::Binary(&body));
        let answer = engine(config(), &server).notify(&list).await.unwrap();
        assert_eq!(answer.var(Scope::Transaction, "n"), Some(Value::Binary(&body)));
        assert_eq!(code(&engine(EngineConfig::haproxy_3_1(), &server), &list).await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_request_is_given_up() {
    within(async {
        let mut config = config();
        config.capabilities = Capabilities::NONE;
        let mut pool = PoolConfig::new(config, 0);
        pool.max_connections = 1;
        let counted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&counted);
        let (gate, handler) = gated();
        let server = Running::start(move |request: Request| {
            count.fetch_add(1, Ordering::Relaxed);
            handler(request)
        })
        .await;
        let engine = Engine::with_pool(pool).agent(server.address.clone()).start().unwrap();
        let list = ask("turns", 0);
        {
            let mut sent = pin!(engine.notify(&list));
            let mut queued = pin!(engine.notify(&list));
            assert!(sent.as_mut().now_or_never().is_none() && queued.as_mut().now_or_never().is_none());
            until("sent", || engine.stats().waiting == 1).await;
            assert_eq!(engine.stats().queued, 1);
        }
        gate.add_permits(2);
        assert_eq!(engine.stats().queued, 0);
        // It is not the answer of another.
        assert_eq!(code(&engine, &ask("turns", 0)).await, 0);
        assert_eq!(counted.load(Ordering::Relaxed), 2);
    })
    .await;
}

#[tokio::test]
async fn a_drain_waits_for_what_was_asked_and_a_stop_does_not() {
    within(async {
        let (gate, handler) = gated();
        let server = Running::start(handler).await;
        let engine = engine(config(), &server);
        let list = ask("turns", 0);
        let (answered, ()) = tokio::join!(code(&engine, &list), async {
            until("sent", || engine.stats().waiting == 1).await;
            let mut drained = pin!(engine.drain());
            assert!(drained.as_mut().now_or_never().is_none());
            gate.add_permits(1);
            drained.await;
            assert_eq!(engine.stats().connections, 0);
        });
        assert_eq!(answered, 0);
        assert_eq!(engine.notify(&list).await.unwrap_err(), EngineError::Interrupted);
        until("closed", || server.handle.stats().open == 0).await;

        let engine = self::engine(config(), &server);
        let list = ask("never", 1);
        let (stopped, ()) = tokio::join!(engine.notify(&list), async {
            until("sent", || engine.stats().waiting == 1).await;
            engine.stop();
        });
        assert_eq!(stopped.unwrap_err(), EngineError::Interrupted);
        engine.drain().await;
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_is_dropped_disconnects() {
    within(async {
        let server = Running::start(answer).await;
        let engine = engine(config(), &server);
        assert_eq!(code(&engine, &ask("turns", 0)).await, 0);
        assert_eq!(server.handle.stats().open, 1);
        drop(engine);
        until("closed", || server.handle.stats().open == 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_proxy_header_comes_first() {
    within(async {
        let server = Running::start(answer).await;
        let to = server.address.tcp().unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let relay = tokio::spawn(async move {
            let (mut client, _) = front.accept().await?;
            let mut header = [0; 15];
            client.read_exact(&mut header).await?;
            assert_eq!(&header, b"PROXY UNKNOWN\r\n");
            let mut server = TcpStream::connect(to).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await?;
            server.shutdown().await?;
            io::Result::Ok(())
        });
        let engine = Engine::new(config()).agent(address).proxy(ProxyVersion::V1).start().unwrap();
        assert_eq!(code(&engine, &ask("turns", 0)).await, 0);
        engine.drain().await;
        let _ = relay.await.unwrap();
    })
    .await;
}
