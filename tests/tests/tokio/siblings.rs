//! Async: answers that take another connection of the engine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{Client, Running, until, within};
use spop_tokio::{Actions, AgentConfig, Capabilities, Request, Scope};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{sleep, timeout},
};

fn config() -> AgentConfig {
    let mut config = AgentConfig::default();
    config.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
    // Of many that wait none gives way to others, however long this takes.
    config.processing = None;
    config
}

/// Stream 0 is answered at once, any other when the gate lets it pass. Counts the handlers that wait.
struct Slow {
    gate: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Slow {
    fn new() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), waiting: Arc::default() }
    }

    async fn serve(&self) -> Running {
        self.serve_with(config()).await
    }

    async fn serve_with(&self, config: AgentConfig) -> Running {
        let (gate, waiting) = (Arc::clone(&self.gate), Arc::clone(&self.waiting));
        let handler = move |request: Request| {
            let (gate, waiting) = (Arc::clone(&gate), Arc::clone(&waiting));
            async move {
                let mut actions = Actions::new();
                actions.set_var(Scope::Transaction, "id", request.stream_id());
                if request.message("blob").is_some() {
                    actions.set_var(Scope::Transaction, "blob", "x".repeat(15_000).as_str());
                } else if request.stream_id() != 0 {
                    waiting.fetch_add(1, Ordering::SeqCst);
                    let _count = Count(waiting);
                    gate.acquire().await.unwrap().forget();
                }
                actions
            }
        };
        Running::with(handler, config).await
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    async fn until_waiting(&self, count: usize) {
        until("so many wait", || self.waiting() == count).await;
    }

    fn open(&self) {
        self.gate.add_permits(1_000);
    }
}

async fn session(server: &Running, engine: &str) -> Client<TcpStream> {
    let mut client = server.connect().await;
    client.greet_as(engine, "pipelining,async").await;
    client
}

/// Reads answers until there are so many; their stream-ids, in order of size.
async fn answered(client: &mut Client<TcpStream>, count: usize) -> Vec<usize> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let ack = client.receive().await.unwrap();
        let id = ack.strip_prefix("ACK fin ").unwrap_or_else(|| panic!("{ack}"));
        ids.push(id.split(' ').next().unwrap().parse().unwrap());
    }
    ids.sort_unstable();
    ids
}

/// Closes a connection so that nothing can be sent on it any more.
fn reset(client: Client<TcpStream>) {
    let Client { io } = client;
    io.set_zero_linger().unwrap();
    drop(io);
}

async fn assert_silent(client: &mut Client<TcpStream>) {
    let more = timeout(Duration::from_millis(100), client.receive()).await;
    assert!(more.is_err(), "{more:?}");
}

async fn ask(client: &mut Client<TcpStream>, ids: std::ops::Range<usize>) {
    let sentences: Vec<_> = ids.map(|id| format!("NOTIFY fin {id} 1 m")).collect();
    client.send(&sentences.join("\n")).await;
}

#[tokio::test]
async fn answers_of_a_lost_connection_arrive_on_its_sibling_once() {
    within(async {
        let slow = Slow::new();
        let server = slow.serve().await;
        let mut home = session(&server, "e1").await;
        let mut sibling = session(&server, "e1").await;
        let mut stranger = session(&server, "e2").await;
        ask(&mut home, 1..41).await;
        ask(&mut sibling, 41..51).await;
        ask(&mut stranger, 51..54).await;
        slow.until_waiting(53).await;
        reset(home);
        until("it is lost", || server.handle.connections().len() == 2).await;
        assert_eq!(slow.waiting(), 53);
        slow.open();
        assert_eq!(answered(&mut sibling, 50).await, (1..51).collect::<Vec<_>>());
        assert_eq!(answered(&mut stranger, 3).await, (51..54).collect::<Vec<_>>());
        assert_silent(&mut sibling).await;
        assert_silent(&mut stranger).await;
        // The task of the lost connection has ended as well.
        until("it is gone", || server.handle.stats().open == 2).await;
    })
    .await;
}

#[tokio::test]
async fn handlers_end_with_the_last_connection_of_their_engine() {
    within(async {
        let slow = Slow::new();
        let server = slow.serve().await;
        let mut home = session(&server, "e1").await;
        let sibling = session(&server, "e1").await;
        let stranger = session(&server, "e2").await;
        ask(&mut home, 1..11).await;
        slow.until_waiting(10).await;
        reset(home);
        until("it is lost", || server.handle.connections().len() == 2).await;
        assert_eq!(slow.waiting(), 10);
        reset(sibling);
        slow.until_waiting(0).await;
        until("it is gone", || server.handle.stats().open == 1).await;
        drop(stranger);
    })
    .await;
}

#[tokio::test]
async fn without_async_handlers_end_with_their_connection() {
    within(async {
        let slow = Slow::new();
        let server = slow.serve().await;
        let mut home = server.connect().await;
        home.greet_as("e1", "pipelining,fragmentation").await;
        let _sibling = session(&server, "e1").await;
        ask(&mut home, 1..11).await;
        slow.until_waiting(10).await;
        reset(home);
        slow.until_waiting(0).await;
    })
    .await;
}

#[tokio::test]
async fn the_same_identifiers_on_a_sibling_supersede() {
    within(async {
        let slow = Slow::new();
        let server = slow.serve().await;
        let mut home = session(&server, "e1").await;
        let mut sibling = session(&server, "e1").await;
        ask(&mut home, 7..8).await;
        slow.until_waiting(1).await;
        ask(&mut sibling, 7..9).await;
        // The older is dropped where it waits.
        slow.until_waiting(2).await;
        home.ask("NOTIFY fin 0 1 m", "ACK fin 0 1 set txn id=uint64:0").await;
        assert_eq!(slow.waiting(), 2);
        slow.open();
        assert_eq!(answered(&mut sibling, 2).await, [7, 8]);
        assert_silent(&mut home).await;
        assert_silent(&mut sibling).await;
    })
    .await;
}

#[tokio::test]
async fn answers_avoid_a_connection_that_is_not_read() {
    within(async {
        let slow = Slow::new();
        let mut config = config();
        // Few, so that the connection is not read any more before its answers take the sibling as well.
        config.limits.max_in_flight = 64;
        let server = slow.serve_with(config).await;
        let mut home = session(&server, "e1").await;
        let mut sibling = session(&server, "e1").await;
        ask(&mut home, 1..11).await;
        slow.until_waiting(10).await;
        // Answers that nobody reads, until they block: as long as some are under way, there may be room again. What holds this
        // thread up holds up both, and is one look.
        let blob = "NOTIFY fin 0 1 blob\n".repeat(20);
        let blocked = async {
            let mut looks = 0;
            while looks < 30 {
                sleep(Duration::from_millis(10)).await;
                let wait = server.handle.connections().iter().any(|connection| connection.outgoing > 0);
                looks = if wait { looks + 1 } else { 0 };
            }
        };
        let sends = async {
            loop {
                home.send(&blob).await;
            }
        };
        tokio::select! {
            () = blocked => {}
            () = sends => {}
        }
        slow.open();
        assert_eq!(answered(&mut sibling, 10).await, (1..11).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_ends_its_side_is_answered_on_a_sibling_or_else_where_it_is() {
    within(async {
        use tokio::io::AsyncWriteExt as _;
        let slow = Slow::new();
        let server = slow.serve().await;
        let mut home = session(&server, "e1").await;
        ask(&mut home, 1..3).await;
        slow.until_waiting(2).await;
        home.io.shutdown().await.unwrap();
        slow.gate.add_permits(1);
        assert_eq!(answered(&mut home, 1).await, [1]);
        let mut sibling = session(&server, "e1").await;
        slow.open();
        assert_eq!(answered(&mut sibling, 1).await, [2]);
        assert_eq!(home.receive().await, None);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_while_connections_come_and_go() {
    within(async {
        let handler = |request: Request| async move {
            // Not at once, and not in order.
            for _ in 0..=request.stream_id() % 17 {
                tokio::task::yield_now().await;
            }
            let mut actions = Actions::new();
            actions.set_var(Scope::Transaction, "id", request.stream_id());
            actions
        };
        let server = Running::with(handler, config()).await;
        let mut keeper = session(&server, "e1").await;
        let mut expected = Vec::new();
        for round in 0..30 {
            let mut home = session(&server, "e1").await;
            let ids = round * 100 + 5..round * 100 + 17;
            expected.extend(ids.clone());
            let mut sentences: Vec<_> = ids.map(|id| format!("NOTIFY fin {id} 1 m")).collect();
            sentences.push("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye".into());
            // One write, and so one read: nothing has been answered here when it goes.
            home.send(&sentences.join("\n")).await;
        }
        assert_eq!(answered(&mut keeper, expected.len()).await, expected);
        assert_silent(&mut keeper).await;
    })
    .await;
}
