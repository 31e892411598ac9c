//! The length of texts in log events. The peer or the handler chooses them, and must not be able to fill a disk.

use std::{fmt, panic::panic_any};

use spop_core::agent::{Router, Unknown};
use tracing::{Level, field::Field};

use super::{super::State, *};

/// What no field of an event exceeds.
const MAX: usize = 600;

/// Keeps the fields of the events.
struct Fields(Arc<Mutex<Vec<String>>>);

impl Subscriber for Fields {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut Visitor(&self.0));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Visitor(&self.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Visitor<'a>(&'a Mutex<Vec<String>>);

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.lock().unwrap().push(format!("{field}={value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.lock().unwrap().push(format!("{field}={value:?}"));
    }
}

/// All fields of the events while this runs. None is long.
fn fields(run: impl FnOnce()) -> Vec<String> {
    let fields = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::with_default(Fields(Arc::clone(&fields)), run);
    let fields = std::mem::take(&mut *fields.lock().unwrap());
    for field in &fields {
        assert!(field.len() <= MAX, "{} bytes: {}", field.len(), field.chars().take(200).collect::<String>());
    }
    fields
}

/// A session whose frames may have a megabyte.
fn session(server: &mut Server) -> Conn {
    let mut conn = server.connect();
    server.say(
        &mut conn,
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:1048576 capabilities=string:pipelining",
    );
    assert!(server.hear(&mut conn)[0].starts_with("AGENT-HELLO"));
    conn
}

/// The field `error` or `reason` of the events of one request or frame.
fn text(frame: &str, handler: impl Handler) -> String {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = session(&mut server);
    let bytes = notation::parse_bytes(frame).unwrap();
    let mut handler = handler;
    let fields = fields(|| _ = conn.on_bytes(server.now, &mut handler, &bytes));
    let text = fields.iter().find_map(|field| field.strip_prefix("error=").or(field.strip_prefix("reason=")));
    text.unwrap().to_owned()
}

fn long() -> String {
    "\u{1}".repeat(100_000)
}

#[test]
fn the_name_of_a_message_is_cut_in_the_error_of_its_argument() {
    let notify = format!("NOTIFY fin 1 1 \"{}\"", long().as_bytes().escape_ascii());
    let handler = |request: Request<'_>| request.messages().arg::<u32>("ip").map(|_| score());
    let name = "\\x01".repeat(64);
    let expected = format!("argument \"ip\" of message \"{name}… (100000 bytes)\" is missing");
    assert_eq!(text(&notify, handler), expected);
    let handler = |request: Request<'_>| Router::new().unknown(Unknown::Fail).reply(request.messages());
    let expected = format!("there is no route for message \"{name}… (100000 bytes)\"");
    assert_eq!(text(&notify, handler), expected);
}

#[test]
fn the_error_of_a_handler_is_cut() {
    let notify = "NOTIFY fin 1 1 m";
    let cut = "\u{1}".repeat(512) + "…";
    assert_eq!(text(notify, |_: Request<'_>| Err::<Actions, _>(long())), cut);
    assert_eq!(text(notify, |_: Request<'_>| Reply::failed(long())), cut);
    assert_eq!(text(notify, |_: Request<'_>| -> Actions { panic_any(long()) }), cut);
}

#[test]
fn the_message_of_a_disconnect_is_cut() {
    for status in [0, 99] {
        let message = long();
        let disconnect = format!(
            "HAPROXY-DISCONNECT fin 0 0 status-code=uint32:{status} message=string:\"{}\"",
            message.as_bytes().escape_ascii()
        );
        let text = text(&disconnect, |_: Request<'_>| score());
        assert!(text.ends_with("… (256 bytes)\""), "{text}");
    }
}

#[test]
fn the_panic_of_a_watch_is_cut() {
    let mut config = AgentConfig::default();
    config.watch_fragments = true;
    let mut server = Server::new(config);
    server.app.on_watch = Some(|_| panic_any(long()));
    let mut conn = server.session("e");
    let fields = fields(|| server.say(&mut conn, "NOTIFY - 1 1 raw:part"));
    assert!(fields.contains(&format!("error={}…", "\u{1}".repeat(512))), "{fields:?}");
}

#[test]
fn what_is_not_accepted_has_a_short_reason() {
    let server = Server::new(ServerConfig::default());
    let fields = fields(|| {
        // The limit suppresses the last, which is logged at level debug.
        for _ in 0..11 {
            server.agent.log_not_accepted(server.now, "refused", &long());
        }
        server.agent.connection_panicked(server.now, &long());
    });
    let cut = format!("error={}…", "\u{1}".repeat(512));
    assert_eq!(fields.iter().filter(|field| **field == cut).count(), 12);
}

/// Counts how often it is formatted.
struct Counted<'a>(&'a AtomicUsize);

impl fmt::Display for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fetch_add(1, Ordering::Relaxed);
        f.write_str("text")
    }
}

#[test]
fn what_the_limit_suppresses_is_not_formatted() {
    let mut server = Server::new(ServerConfig::default());
    let conn = session(&mut server);
    let State::Session(session) = &conn.state else { panic!("no session") };
    server.log.lock().unwrap().clear();
    let formatted = AtomicUsize::new(0);
    for _ in 0..1000 {
        server.agent.log_not_accepted(server.now, "refused", &Counted(&formatted));
        server.agent.connection_panicked(server.now, &Counted(&formatted));
        session.log_failed(&server.agent, server.now, &Counted(&formatted));
    }
    // The subscriber of the tests formats no text.
    assert_eq!(formatted.load(Ordering::Relaxed), 0);
    assert_eq!(server.logged().len(), 1000 + 10);
}
