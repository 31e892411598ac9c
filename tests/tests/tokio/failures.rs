//! Handlers that fail in every way that there is, and those beside them.

use std::time::Duration;

use crate::support::{Client, Running, log::Log, within};
use spop_core::frame::Ids;
use spop_tokio::{
    Actions, AgentConfig, Cancellation, Cancelled, Capabilities, Handler, OnFailure, Request, Responder,
    Router, Scope, Status,
};
use tokio::{net::TcpStream, sync::mpsc};

const HEALTHY: usize = 200;

fn handler() -> impl Handler {
    Router::new()
        .on("well", async |_: Request| Actions::new())
        .on("soon", async |_: Request| {
            tokio::task::yield_now().await;
            Actions::new()
        })
        .on("waits", async |_: Request| std::future::pending::<Actions>().await)
        .on("panics", async |_: Request| -> Actions { panic!("on purpose") })
        .on("errs", async |_: Request| Err::<Actions, _>("no such user"))
        .on("drops", async |_: Request| {
            let (responder, response) = Responder::new();
            drop(responder);
            response.await
        })
        .on("swells", async |_: Request| {
            let mut actions = Actions::new();
            actions.set_var(Scope::Session, "big", "x".repeat(20_000).as_str());
            actions
        })
}

fn config(on_failure: OnFailure, message: Duration) -> AgentConfig {
    let mut config = AgentConfig::default();
    config.on_failure = on_failure;
    config.timeouts.message = Some(message);
    // What waits gives way to nothing, however long the others take.
    config.processing = None;
    config.limits.max_in_flight = 2 * HEALTHY;
    config
}

/// Lets the engine's configuration see that there is no answer.
fn variable() -> OnFailure {
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "failed", true);
    OnFailure::Answer(actions)
}

/// Sends so many that are well, half of them later than the others, and receives their answers.
async fn healthy(client: &mut Client<TcpStream>, others: &str, failures: &[String]) {
    let mut all = Vec::from([others.to_owned()]);
    all.extend(
        (0..HEALTHY).map(|n| format!("NOTIFY fin {n} 1 {}", if n % 2 == 0 { "well" } else { "soon" })),
    );
    client.send(&all.join("\n")).await;
    let (mut answered, mut failed) = (Vec::new(), Vec::new());
    while answered.len() < HEALTHY || failed.len() < failures.len() {
        let ack = client.receive().await.unwrap();
        if ack.contains("failed") { &mut failed } else { &mut answered }.push(ack);
    }
    failed.sort();
    assert_eq!(failed, failures);
    answered.sort();
    answered.dedup();
    assert_eq!(answered.len(), HEALTHY);
}

#[tokio::test]
async fn those_beside_failing_handlers_are_answered() {
    within(async {
        let log = Log::start();
        let server = Running::with(handler(), config(variable(), Duration::from_secs(60))).await;
        let mut client = server.session().await;
        let failing = "NOTIFY fin 1000 1 waits\n NOTIFY fin 1001 1 panics\n NOTIFY fin 1002 1 errs\n \
                       NOTIFY fin 1003 1 drops\n NOTIFY fin 1004 1 swells";
        let failed: Vec<_> =
            (1001..=1004).map(|id| format!("ACK fin {id} 1 set txn failed=bool:true")).collect();
        // Four have failed at once, and the first, which never answers, holds nobody up.
        healthy(&mut client, failing, &failed).await;
        client.ask("NOTIFY fin 1 2 well", "ACK fin 1 2").await;

        let lines = log.take();
        for (ids, what, error) in [
            (Ids::new(1001, 1), "handler_panicked", "on purpose"),
            (Ids::new(1002, 1), "handler_failed", r#"message \"errs\": no such user"#),
            (Ids::new(1003, 1), "responder_dropped", r#"message \"drops\": the responder was dropped"#),
            (Ids::new(1004, 1), "answer_unsendable", "more than the"),
        ] {
            let mut of_this = lines.iter().filter(|line| line.contains(&format!("ids={ids} ")));
            let line = of_this.next().unwrap_or_else(|| panic!("{what}: {lines:?}"));
            assert!(line.contains(&format!("what=\"{what}\"")) && line.contains(error), "{line}");
            assert!(line.contains("request failed") && of_this.next().is_none(), "{lines:?}");
        }
        assert_eq!(lines.len(), 4);
        assert_eq!(server.handle.stats().open, 1);
    })
    .await;
}

#[tokio::test]
async fn a_failure_may_end_the_connection() {
    within(async {
        for failing in ["waits", "panics", "errs", "drops", "swells"] {
            let policy = OnFailure::Disconnect { status: Status(77), message: "no answer".into() };
            // Those beside it have their answers before, also on a machine that is busy.
            let message = Duration::from_secs(if failing == "waits" { 4 } else { 60 });
            let config = config(policy, message);
            let server = Running::with(handler(), config).await;
            let (mut client, mut other) = (server.session().await, server.session().await);
            client.send(&format!("NOTIFY fin 1 1 well\n NOTIFY fin 2 1 {failing}")).await;
            client.expect("ACK fin 1 1").await;
            client
                .expect("AGENT-DISCONNECT fin 0 0 status-code=uint32:77 message=string:\"no answer\"")
                .await;
            other.ask("NOTIFY fin 1 1 well", "ACK fin 1 1").await;
        }
    })
    .await;
}

/// Hands out its requests, with what tells that nobody waits, and waits itself unless it is to answer.
fn watching() -> (impl Handler, mpsc::UnboundedReceiver<(Cancellation, Request)>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let handler = move |request: Request| {
        let sender = sender.clone();
        async move {
            let (answers, fails) = (request.message("answer").is_some(), request.message("fail").is_some());
            sender.send((request.cancellation(), request)).unwrap();
            match (answers, fails) {
                (true, _) => Ok(Actions::new()),
                (_, true) => Err("no"),
                _ => std::future::pending().await,
            }
        }
    };
    (handler, receiver)
}

#[tokio::test]
async fn work_elsewhere_learns_why_nobody_waits() {
    within(async {
        let (handler, mut watched) = watching();
        let server = Running::with(handler, config(OnFailure::default(), Duration::from_secs(60))).await;
        let mut client = server.session().await;
        let mut requests = Vec::new();
        let mut next = async || {
            let (cancellation, request) = watched.recv().await.unwrap();
            requests.push(request);
            cancellation
        };

        client.send("NOTIFY fin 1 1 wait").await;
        let superseded = next().await;
        assert_eq!((superseded.is_cancelled(), superseded.reason()), (false, None));
        client.send("NOTIFY fin 1 1 wait").await;
        let aborted = next().await;
        assert_eq!(superseded.cancelled().await, Cancelled::Superseded);
        assert!(!aborted.is_cancelled());
        client.send("UNSET fin,abort 1 1").await;
        assert_eq!(aborted.cancelled().await, Cancelled::Aborted);
        assert_eq!(aborted.reason(), Some(Cancelled::Aborted));

        for how in ["answer", "fail"] {
            client.ask(&format!("NOTIFY fin 2 1 {how}"), "ACK fin 2 1").await;
            assert_eq!(next().await.cancelled().await, Cancelled::Answered, "{how}");
        }
        client.send("NOTIFY fin 4 1 wait").await;
        let disconnected = next().await;
        client.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye").await;
        assert_eq!(disconnected.cancelled().await, Cancelled::Disconnected);

        let (handler, mut watched) = watching();
        let server = Running::with(handler, config(OnFailure::default(), Duration::from_millis(300))).await;
        let mut client = server.session().await;
        client.ask("NOTIFY fin 3 1 wait", "ACK fin 3 1").await;
        let (late, _request) = watched.recv().await.unwrap();
        assert_eq!(late.cancelled().await, Cancelled::TimedOut);
    })
    .await;
}

#[tokio::test]
async fn work_elsewhere_learns_of_what_comes_by_other_connections() {
    within(async {
        let (handler, mut watched) = watching();
        let mut config = AgentConfig::default();
        config.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
        let server = Running::with(handler, config).await;
        let mut next = async || watched.recv().await.unwrap().0;
        let (mut one, mut two) = (server.connect().await, server.connect().await);
        for client in [&mut one, &mut two] {
            client.greet_as("e1", "pipelining,async").await;
        }
        one.send("NOTIFY fin 1 1 wait").await;
        let superseded = next().await;
        two.send("NOTIFY fin 1 1 wait").await;
        let alone = next().await;
        assert_eq!(superseded.cancelled().await, Cancelled::Superseded);
        // Its handler goes on without its connection, while another could send the answer.
        two.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye").await;
        assert!(two.receive().await.unwrap().starts_with("AGENT-DISCONNECT"));
        assert_eq!(alone.reason(), None);
        one.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye").await;
        assert_eq!(alone.cancelled().await, Cancelled::Disconnected);
    })
    .await;
}

#[tokio::test]
async fn what_a_handler_logs_says_whose_request_it_is() {
    within(async {
        let log = Log::with("info,spop_server::agent=warn,spop_server::spans=debug");
        let server = Running::start(async |_: Request| {
            tracing::info!("before");
            tokio::task::yield_now().await;
            tracing::info!("after");
            Actions::new()
        })
        .await;
        let mut client = server.session().await;
        let peer = client.io.local_addr().unwrap();
        client.ask("NOTIFY fin 5 6 m", "ACK fin 5 6").await;
        let lines = log.take();
        for text in ["before", "after"] {
            let line = lines.iter().find(|line| line.ends_with(text)).unwrap();
            let (connection, request) =
                (format!("connection{{peer={peer} id="), "}:request{ids=5/6 messages=m}: ");
            assert!(line.contains(&connection) && line.contains(request), "{line}");
        }
        assert_eq!(lines.len(), 2, "nothing else for debugging: {lines:?}");
    })
    .await;
}

/// Panics when it is dropped.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "on purpose");
    }
}

#[tokio::test]
async fn a_panic_while_a_cancelled_call_is_dropped_is_the_end_of_nothing_else() {
    within(async {
        let server = Running::start(Router::new().on("well", async |_: Request| Actions::new()).on(
            "waits",
            async |_: Request| {
                let _fragile = Fragile;
                std::future::pending::<Actions>().await
            },
        ))
        .await;
        let mut client = server.session().await;
        client.send("NOTIFY fin 1 1 waits").await;
        client.send("NOTIFY fin 1 1 well").await;
        client.expect("ACK fin 1 1").await;
        client.send("NOTIFY fin 3 1 waits\nNOTIFY fin 3 2 waits").await;
        client.ask("NOTIFY fin 5 1 well", "ACK fin 5 1").await;
        // All that waits is dropped at the end.
        client.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye").await;
        client.expect("AGENT-DISCONNECT fin 0 0 status-code=uint32:0 message=string:goodbye").await;
        let Running { handle, task, .. } = server;
        handle.drain();
        task.await.unwrap();
    })
    .await;
}
