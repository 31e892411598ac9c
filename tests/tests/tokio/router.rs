//! Messages and the handlers of their names, over real sockets.

use std::{
    future::pending,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use crate::support::{Running, log::Log, within};
use spop_core::{agent, wire::put_headers};
use spop_tokio::{
    Actions, AgentConfig, ArgError, Deferred, Engine, EngineConfig, Handler, Headers, MessageList, Partial,
    Reply, Request, Router, Scope, Status, Swap, Unknown, Value, Watch,
};
use tokio::sync::Notify;

fn number(name: &str, value: i32) -> Actions {
    Actions::new().set(Scope::Transaction, name, value)
}

async fn reputation(request: Request) -> Result<Actions, ArgError> {
    let ip: IpAddr = request.arg("ip")?;
    let port: Option<u16> = request.arg("port")?;
    assert_eq!(request.messages().len(), 1);
    Ok(number("score", i32::from(ip.is_loopback()) + i32::from(port.unwrap_or_default())))
}

#[tokio::test]
async fn each_message_goes_to_its_handler_and_all_actions_come_back_in_order() {
    within(async {
        let gate = Arc::new(Notify::new());
        let gates = Arc::clone(&gate);
        let first = Swap::new(|_: Request| async { number("swapped", 1) });
        let router = Router::new()
            .on("late", move |_: Request| {
                let gate = Arc::clone(&gates);
                async move {
                    gate.notified().await;
                    number("late", 1)
                }
            })
            .on("early", move |_: Request| {
                let gate = Arc::clone(&gate);
                async move {
                    // Only who runs beside the other lets it go.
                    gate.notify_one();
                    number("early", 2)
                }
            })
            .on("ip", reputation)
            .on("swapped", first)
            .on("elsewhere", Deferred::new(|_, responder| responder.reply(number("elsewhere", 3))))
            .on("inner", Router::new().on("inner", async |_: Request| number("inner", 4)));
        assert_eq!(format!("{router:?}"), r#"{"ip", "late", "early", "inner", "swapped", "elsewhere"}"#);
        let server = Running::start(router).await;
        let mut client = server.session().await;
        client
            .ask("NOTIFY fin 1 1 ip ip=ipv4:127.0.0.1 port=int64:443", "ACK fin 1 1 set txn score=int32:444")
            .await;
        client
            .ask(
                "NOTIFY fin 2 1 late ; early ; ip ip=ipv6:::2 ; ip ip=ipv6:::1 ; swapped ; elsewhere ; inner",
                "ACK fin 2 1 set txn late=int32:1 ; set txn early=int32:2 ; set txn score=int32:0 ; \
                 set txn score=int32:1 ; set txn swapped=int32:1 ; set txn elsewhere=int32:3 ; \
                 set txn inner=int32:4",
            )
            .await;
        client.ask("NOTIFY fin 3 1", "ACK fin 3 1").await;
        // Each message is answered, and nothing is worked on more than a few at a time.
        let many = vec!["inner"; 128].join(" ; ");
        client.send(&format!("NOTIFY fin 4 1 {many}")).await;
        let answer = client.receive().await.unwrap();
        assert_eq!(answer.matches("set txn inner=int32:4").count(), 128);
    })
    .await;
}

#[tokio::test]
async fn a_message_that_fails_ends_its_notify_and_is_named() {
    within(async {
        let log = Log::start();
        let router = Router::new()
            .on("ip", reputation)
            .on("never", |_: Request| pending::<Actions>())
            .on("no", async |_: Request| Err::<Actions, _>("on purpose"))
            .on("leave", async |_: Request| Reply::Disconnect { status: Status(42), message: "bye".into() });
        let server = Running::start(router).await;
        let mut client = server.session().await;
        for (id, messages, reason) in [
            (1, "ip ip=ipv4:127.0.0.1 ; never ; no", r#"message \"no\": on purpose"#),
            (2, "never ; ip ip=string:localhost", r#"argument \"ip\" of message \"ip\" is of type STRING"#),
            (3, "ip ip=ipv4:127.0.0.1 port=int64:65536", r#"\"port\" of message \"ip\" is 65536, which"#),
            (4, "ip", r#"argument \"ip\" of message \"ip\" is missing"#),
        ] {
            client.ask(&format!("NOTIFY fin {id} 1 {messages}"), &format!("ACK fin {id} 1")).await;
            let lines = log.take();
            assert!(lines.len() == 1 && lines[0].contains(reason), "{reason}: {lines:?}");
        }
        client.send("NOTIFY fin 5 1 never ; leave").await;
        client.expect("AGENT-DISCONNECT fin 0 0 status-code=uint32:42 message=string:bye").await;
    })
    .await;
}

#[tokio::test]
async fn messages_without_a_route_have_a_policy() {
    within(async {
        let log = Log::start();
        let router = || Router::new().on("known", async |_: Request| number("known", 1));
        let known = "set txn known=int32:1";

        let server = Running::start(router()).await;
        let mut client = server.session().await;
        client.ask("NOTIFY fin 1 1 knwon ; known", &format!("ACK fin 1 1 {known}")).await;
        let lines = log.take();
        assert!(lines.len() == 1 && lines[0].contains(r#"no route for message "knwon""#), "{lines:?}");

        let server = Running::start(router().unknown(Unknown::Fail)).await;
        let mut client = server.session().await;
        client.ask("NOTIFY fin 1 1 other ; known", "ACK fin 1 1").await;
        assert!(log.take()[0].contains(r#"no route for message \"other\""#));
        client.ask("NOTIFY fin 2 1 known", &format!("ACK fin 2 1 {known}")).await;

        let rest = async |request: Request| number("rest", request.arg("n").unwrap_or(-1));
        let server = Running::start(router().otherwise(rest)).await;
        server
            .session()
            .await
            .ask(
                "NOTIFY fin 1 1 other n=int32:7 ; known ; more",
                &format!("ACK fin 1 1 set txn rest=int32:7 ; {known} ; set txn rest=int32:-1"),
            )
            .await;
    })
    .await;
}

/// Says what it has seen of a body, and wants no more.
struct Inspector(Arc<Mutex<Vec<Vec<u8>>>>);

impl Handler for Inspector {
    type Output = Actions;

    async fn handle(&self, _: Request) -> Actions {
        number("whole", 1)
    }

    fn watch(&self, arriving: Partial<'_>) -> Watch {
        let names = arriving.messages().map(|message| message.name().to_vec());
        self.0.lock().unwrap().extend(names);
        Watch::Refuse
    }
}

#[tokio::test]
async fn a_route_watches_its_messages_arrive() {
    within(async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let router = Router::new()
            .on("waf", Inspector(Arc::clone(&seen)))
            .on("log", async |_: Request| Actions::new());
        let mut config = AgentConfig::default();
        config.watch_fragments = true;
        let server = Running::with(router, config).await;
        let mut client = server.session().await;
        client.send(r#"NOTIFY - 1 1 messages[..300] log body=string:"x"*600"#).await;
        client.send(r#"UNSET fin 1 1 messages[300..] log body=string:"x"*600"#).await;
        client.expect("ACK fin 1 1").await;
        client.send(r#"NOTIFY - 2 1 messages[..300] log ; waf body=string:"x"*600"#).await;
        client.expect("ACK fin,abort 2 1").await;
        assert_eq!(*seen.lock().unwrap(), [b"log", b"waf"]);
    })
    .await;
}

#[tokio::test]
async fn routes_that_answer_at_once_are_a_handler() {
    within(async {
        let router = agent::Router::new().on("check", |message| {
            let headers: Headers<'_> = message.arg("hdrs")?;
            let host = Value::String(headers.get("Host").unwrap_or_default());
            Ok(Actions::new().set(Scope::Request, "host", host))
        });
        let server = Running::start(router).await;
        let engine = Engine::new(EngineConfig::default()).agent(server.address.clone()).start().unwrap();
        let mut headers = Vec::new();
        put_headers(&mut headers, [("host", b"example.org".as_slice()), ("accept", b"*/*")]).unwrap();
        let mut list = MessageList::new();
        list.message("check").arg("hdrs", headers.as_slice());
        list.message("other");
        let answer = engine.notify(&list).await.unwrap();
        assert_eq!(answer.var(Scope::Request, "host"), Some(Value::String(b"example.org")));
        engine.drain().await;
    })
    .await;
}
