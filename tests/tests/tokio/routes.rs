//! The forms of handlers that a router takes, and the policies of routes, over real sockets.
#![allow(clippy::cast_possible_wrap, clippy::needless_pass_by_value)] // Numbers are small, and functions have all forms.

use std::{
    collections::HashMap,
    future::{Future, pending},
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use crate::support::{Running, log::Log, until, within};
use spop_tokio::{
    Actions, ArgError, BoxError, Cancellation, FromRequest, IntoRoute, Peer, Reply, Request, Route, Router,
    Scope,
};
use tokio::{sync::Notify, task::yield_now};

struct Scores {
    known: HashMap<IpAddr, i32>,
    asked: AtomicUsize,
}

impl Scores {
    fn new() -> Self {
        Self { known: [([127, 0, 0, 1].into(), 7)].into(), asked: AtomicUsize::new(0) }
    }
}

type Answer = (Scope, &'static str, i32);

const fn score(score: i32) -> Answer {
    (Scope::Transaction, "score", score)
}

struct Ip(IpAddr);

impl FromRequest for Ip {
    fn from_request(request: &Request) -> Result<Self, BoxError> {
        Ok(Self(request.arg("ip")?))
    }
}

struct Port(u16);

impl FromRequest for Port {
    fn from_request(request: &Request) -> Result<Self, BoxError> {
        request.arg("port").map(Self).map_err(|_| "no port".into())
    }
}

async fn nothing() {}

async fn handler(request: Request) -> Result<Answer, ArgError> {
    Ok(score(request.arg("port")?))
}

async fn borrows(scores: &Scores, request: Request) -> Result<Option<Answer>, ArgError> {
    let ip: IpAddr = request.arg("ip")?;
    let known = scores.known.get(&ip);
    yield_now().await;
    scores.asked.fetch_add(1, Ordering::Relaxed);
    Ok(known.map(|known| score(*known)))
}

async fn state(scores: &Scores) -> [Answer; 1] {
    yield_now().await;
    [score(scores.asked.load(Ordering::Relaxed) as i32)]
}

async fn one(Ip(ip): Ip) -> (Answer, Answer) {
    (score(i32::from(ip.is_loopback())), score(2))
}

async fn two(Ip(_): Ip, Port(port): Port, request: Request) -> Actions {
    Actions::from(score(port.into())).unset(Scope::Session, request.message("two").map_or("no", |_| "yes"))
}

async fn four(_: Peer, _: Cancellation, Ip(_): Ip, Port(port): Port) -> Result<Answer, io::Error> {
    Ok(score(port.into()))
}

#[derive(serde::Deserialize)]
struct Check {
    ip: IpAddr,
    port: u16,
}

async fn args(spop_tokio::Args(check): spop_tokio::Args<Check>) -> Option<Answer> {
    check.ip.is_loopback().then(|| score(check.port.into()))
}

#[tokio::test]
async fn arguments_become_the_fields_of_a_structure() {
    within(async {
        let log = Log::start();
        let server = Running::start(Router::new().on("check", args)).await;
        let mut client = server.session().await;
        let asked = "NOTIFY fin 1 1 check port=int32:443 ip=ipv6:::1 ip=null";
        client.ask(asked, "ACK fin 1 1 set txn score=int32:443").await;
        client.ask("NOTIFY fin 2 1 check ip=ipv6:::1", "ACK fin 2 1").await;
        let lines = log.take();
        assert!(lines[0].contains(r#"argument \"port\" of message \"check\" is missing"#), "{lines:?}");
    })
    .await;
}

async fn all(
    scores: &Scores,
    _: Peer,
    _: Cancellation,
    Ip(ip): Ip,
    Port(_): Port,
    _: Request,
) -> Option<Answer> {
    yield_now().await;
    scores.known.get(&ip).map(|known| score(*known))
}

fn at_once(request: Request) -> Answer {
    score(request.arg("port").unwrap_or(-1))
}

fn at_once_of_state(scores: &Scores, Ip(ip): Ip) -> Result<Answer, &'static str> {
    scores.known.get(&ip).map(|known| score(*known)).ok_or("unknown address")
}

/// A method is a function too.
impl Scores {
    async fn lookup(&self, Ip(ip): Ip) -> Option<Answer> {
        yield_now().await;
        self.known.get(&ip).map(|known| score(*known))
    }
}

type BoxFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

#[tokio::test]
async fn functions_of_all_forms_are_routes() {
    within(async {
        let boxed: Box<dyn Fn(Request) -> BoxFuture + Send + Sync> =
            Box::new(|_| Box::pin(async { score(9).into() }));
        let value = 5;
        let router = Router::with_state(Scores::new())
            .on("nothing", nothing)
            .on("handler", handler)
            .on("borrows", borrows)
            .on("state", state)
            .on("one", one)
            .on("two", two)
            .on("four", four)
            .on("all", all)
            .on("at_once", at_once)
            .on("at_once_of_state", at_once_of_state)
            .on("method", Scores::lookup)
            .on("boxed", boxed)
            .on("closure", move |_: Request| async move { score(value) })
            .on("closure_now", move || score(value))
            .on("closure_one", |Port(port): Port| async move { score(port.into()) })
            .on("closure_state", |scores: &Scores, _: Request| score(scores.known.len() as i32))
            .route("route", Route::new(borrows))
            .otherwise(|request: Request| {
                Actions::new().set(Scope::Transaction, "rest", request.messages().len())
            });
        assert_eq!(router.state().asked.load(Ordering::Relaxed), 0);
        let server = Running::start(router).await;
        let mut client = server.session().await;
        for (id, (message, answer)) in [
            ("nothing", ""),
            ("handler", "set txn score=int32:443"),
            ("borrows", "set txn score=int32:7"),
            ("state", "set txn score=int32:1"),
            ("one", "set txn score=int32:1 ; set txn score=int32:2"),
            ("two", "set txn score=int32:443 ; unset sess yes"),
            ("four", "set txn score=int32:443"),
            ("all", "set txn score=int32:7"),
            ("at_once", "set txn score=int32:443"),
            ("at_once_of_state", "set txn score=int32:7"),
            ("method", "set txn score=int32:7"),
            ("boxed", "set txn score=int32:9"),
            ("closure", "set txn score=int32:5"),
            ("closure_now", "set txn score=int32:5"),
            ("closure_one", "set txn score=int32:443"),
            ("closure_state", "set txn score=int32:1"),
            ("route", "set txn score=int32:7"),
            ("other", "set txn rest=uint64:1"),
        ]
        .into_iter()
        .enumerate()
        {
            let asked = format!("NOTIFY fin {id} 1 {message} ip=ipv4:127.0.0.1 port=int32:443");
            client.ask(&asked, format!("ACK fin {id} 1 {answer}").trim_end()).await;
        }
    })
    .await;
}

/// A router in a structure, its type written down, with routes of a configuration.
struct App {
    router: Router<Scores>,
}

fn routes<S: Send + Sync + 'static, M>(
    names: &[String],
    handler: impl IntoRoute<S, M> + Clone,
) -> Vec<(String, Route<S>)> {
    names.iter().map(|name| (name.clone(), Route::new(handler.clone()))).collect()
}

#[tokio::test]
async fn routes_come_from_a_configuration() {
    within(async {
        let mut app = App { router: Router::with_state(Scores::new()) };
        app.router.extend(routes(&["a".into(), "b".into()], borrows));
        let by_name: HashMap<String, Route> =
            (0..5).map(|n| (format!("n{n}"), Route::new(move || score(n)))).collect();
        let inner: Router = by_name.into_iter().collect();
        let server = Running::start(app.router.otherwise(inner)).await;
        let mut client = server.session().await;
        client
            .ask(
                "NOTIFY fin 1 1 b ip=ipv4:127.0.0.1 ; n4 ; n0",
                "ACK fin 1 1 set txn score=int32:7 ; set txn score=int32:4 ; set txn score=int32:0",
            )
            .await;
    })
    .await;
}

async fn fails() -> Result<(), io::Error> {
    Err(io::Error::other(Refused(io::Error::other("connection refused"))))
}

#[derive(Debug)]
struct Refused(io::Error);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("lookup failed")
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test]
async fn a_failure_names_its_route_and_message_and_keeps_its_causes() {
    within(async {
        let log = Log::start();
        let inner = Router::new().on("inner", fails);
        let router = Router::new()
            .on("fails", fails)
            .on("panics", |_: Request| -> Answer { panic!("on purpose") })
            .on("panics_later", async || -> Answer {
                yield_now().await;
                panic!("on purpose")
            })
            .on("port", |_: Port| ())
            .on("inner", inner)
            .route("slow", Route::new(|_: Request| pending::<()>()).timeout(Duration::from_millis(10)))
            .otherwise(fails);
        let server = Running::start(router).await;
        let mut client = server.session().await;
        let cause = "lookup failed: connection refused";
        for (id, (message, route, what, error)) in [
            ("fails", "fails", "handler_failed", cause),
            ("panics", "panics", "handler_panicked", "on purpose"),
            ("panics_later", "panics_later", "handler_panicked", "on purpose"),
            ("port", "port", "handler_failed", "no port"),
            ("inner", "inner", "handler_failed", cause),
            ("slow", "slow", "timed_out", "no answer within 10ms"),
            ("unknown", "otherwise", "handler_failed", cause),
        ]
        .into_iter()
        .enumerate()
        {
            client.ask(&format!("NOTIFY fin {id} 1 {message}"), &format!("ACK fin {id} 1")).await;
            let lines = log.take();
            let line =
                lines.iter().find(|line| line.contains("request_failed") || line.contains("request failed"));
            let line = line.unwrap_or_else(|| panic!("{message}: {lines:?}"));
            for part in [route, what, &format!(r#"message \"{message}\": {error}"#)] {
                assert!(line.contains(part), "{part}: {line}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_route_has_an_answer_for_its_failures_and_the_others_go_on() {
    within(async {
        let log = Log::start();
        let failed = |route: Route| route.on_failure((Scope::Transaction, "failed", true));
        let gate = Arc::new(Notify::new());
        let (waits, started) = (Arc::clone(&gate), Arc::new(AtomicUsize::new(0)));
        let starts = Arc::clone(&started);
        let router = Router::new()
            .on("well", || score(1))
            .on("fails", fails)
            .route("fails_well", failed(Route::new(fails)))
            .route("panics", failed(Route::new(async |_: Request| -> Answer { panic!("on purpose") })))
            .route(
                "slow",
                failed(Route::new(|_: Request| pending::<()>()).timeout(Duration::from_millis(10))),
            )
            .route(
                "narrow",
                failed(Route::new(move |_: Request| {
                    let gate = Arc::clone(&waits);
                    starts.fetch_add(1, Ordering::Relaxed);
                    async move { gate.notified().await }
                }))
                .max_in_flight(1),
            );
        let server = Running::start(router).await;
        let mut client = server.session().await;
        let answer = "set txn failed=bool:true";
        for (id, message) in ["fails_well", "panics", "slow"].into_iter().enumerate() {
            client.ask(&format!("NOTIFY fin {id} 1 {message}"), &format!("ACK fin {id} 1 {answer}")).await;
            assert_eq!(log.take().len(), 1, "it is logged");
        }
        client
            .ask(
                "NOTIFY fin 4 1 slow ; well ; panics ; fails_well",
                &format!("ACK fin 4 1 {answer} ; set txn score=int32:1 ; {answer} ; {answer}"),
            )
            .await;
        let lines = log.take();
        let error = r#"message \"slow\": no answer within 10ms; message \"panics\": on purpose; message"#;
        assert!(lines.len() == 1 && lines[0].contains(error), "{lines:?}");
        client.ask("NOTIFY fin 5 1 well ; fails ; panics", "ACK fin 5 1").await;
        log.take();

        client.send("NOTIFY fin 6 1 narrow").await;
        client.ask("NOTIFY fin 7 1 narrow", &format!("ACK fin 7 1 {answer}")).await;
        assert!(log.take()[0].contains("overloaded"));
        gate.notify_one();
        client.expect("ACK fin 6 1").await;
        // One that is cancelled leaves: without pipelining, by the next.
        let mut other = server.connect().await;
        other.greet_as("e2", "").await;
        other.send("NOTIFY fin 1 1 narrow\nNOTIFY fin 2 1 narrow").await;
        until("the second was called", || started.load(Ordering::Relaxed) == 3).await;
        client.ask("NOTIFY fin 8 1 narrow", &format!("ACK fin 8 1 {answer}")).await;
        gate.notify_one();
        other.expect("ACK fin 2 1").await;
    })
    .await;
}

#[tokio::test]
async fn a_route_is_a_handler_of_all_messages() {
    within(async {
        async fn count(request: Request) -> Answer {
            score(request.messages().len() as i32)
        }
        let handlers: [Route; 2] = [Route::new(count), Route::new(fails).on_failure(score(-1))];
        for (handler, answer) in handlers.into_iter().zip([3, -1]) {
            let server = Running::start(handler).await;
            let mut client = server.session().await;
            client
                .ask("NOTIFY fin 1 1 a ; b ; c", &format!("ACK fin 1 1 set txn score=int32:{answer}"))
                .await;
        }
    })
    .await;
}

/// A future that holds something until it is dropped.
struct Holds {
    _held: Arc<()>,
    end: &'static str,
    polls: usize,
}

impl Future for Holds {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        self.polls += 1;
        match (self.end, self.polls) {
            ("panics", _) => panic!("on purpose"),
            ("ready", _) | ("later", 2) => Poll::Ready(score(1)),
            (end, _) => {
                if end == "later" {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

#[tokio::test]
async fn the_memory_of_a_call_holds_nothing_of_it() {
    within(async {
        let held = Arc::new(());
        let router: Router = ["ready", "panics", "later", "never"]
            .into_iter()
            .map(|end| {
                let held = Arc::clone(&held);
                let route = Route::new(move |_: Request| Holds { _held: Arc::clone(&held), end, polls: 0 });
                (end, route.timeout(Duration::from_millis(10)).on_failure(score(1)))
            })
            .collect();
        let count = Arc::strong_count(&held);
        let server = Running::start(router).await;
        let mut client = server.session().await;
        for (id, message) in ["ready", "panics", "later", "never"].repeat(2).into_iter().enumerate() {
            let answer = format!("ACK fin {id} 1 set txn score=int32:1");
            client.ask(&format!("NOTIFY fin {id} 1 {message}"), &answer).await;
            assert_eq!(Arc::strong_count(&held), count, "{message}");
        }
    })
    .await;
}

#[tokio::test]
async fn each_of_many_routes_answers_for_itself() {
    within(async {
        let router: Router = (0..20)
            .map(|number| {
                let later = Route::new(move |_: Request| async move {
                    if number % 2 == 1 {
                        yield_now().await;
                    }
                    score(number)
                });
                (format!("route-{number:02}"), later)
            })
            .collect();
        let server = Running::start(router).await;
        let mut client = server.session().await;
        for (id, number) in (0..20).chain(0..20).chain([8, 0, 8, 16, 9, 1]).enumerate() {
            let answer = format!("ACK fin {id} 1 set txn score=int32:{number}");
            client.ask(&format!("NOTIFY fin {id} 1 route-{number:02}"), &answer).await;
        }
    })
    .await;
}
