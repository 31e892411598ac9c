//! Log events with all their fields.

use std::fmt::{self, Write as _};

use tracing::{Level, field::Field};

use super::*;

/// Keeps events and spans up to a level, a line each: the name, and the fields as `name=value`.
struct Lines(Level, Arc<Mutex<Vec<String>>>);

impl Lines {
    fn keep(&self, name: &str, record: impl FnOnce(&mut Line)) {
        let mut line = Line(name.to_owned());
        record(&mut line);
        self.1.lock().unwrap().push(line.0);
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        self.keep(attributes.metadata().name(), |line| attributes.record(line));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        self.keep(event.metadata().name(), |line| event.record(line));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            // Writing to a string cannot fail.
            let _ = write!(self.0, " {field}={value:?}");
        }
    }
}

/// The events and spans while this runs.
fn events(level: Level, run: impl FnOnce()) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::with_default(Lines(level, Arc::clone(&lines)), run);
    std::mem::take(&mut *lines.lock().unwrap())
}

#[test]
fn a_run_is_told_at_level_info() {
    let listening = |endpoint| crate::Endpoint::from(endpoint).listen(false).unwrap();
    let listeners = [listening("127.0.0.1:0"), listening("[::1]:0")];
    let config = ServerConfig { lame_duck: millis(300), ..ServerConfig::default() };
    let mut server = Server::new(config);
    let lines = events(Level::INFO, || {
        server.agent.ready(listeners.iter().map(|listening| &listening.entrance));
        let (mut idle, mut busy) = (server.session("e"), server.session("e"));
        server.say(&mut busy, "NOTIFY fin 1 1 later");
        server.say(&mut busy, "NOTIFY fin 2 1 later");
        server.agent.handle().drain();
        server.agent.handle().drain();
        for conn in [&mut idle, &mut busy] {
            server.agent.poll_shutdown(server.now);
            server.wake(conn);
        }
        server.wait(&mut idle, millis(100));
        drop(idle);
        server.wait(&mut busy, millis(9900));
        drop(busy);
        server.agent.ended(server.now);
        server.agent.ended(server.now);
    });
    let [v4, v6] = listeners.map(|listening| listening.address().unwrap());
    assert_eq!(
        lines,
        [
            format!("listening listener={v4} tls=false proxy=false"),
            format!("listening listener={v6} tls=false proxy=false"),
            "lame_duck time=300ms connections=2 requests=2".to_owned(),
            "draining connections=2 requests=2".to_owned(),
            "connection_failed peer=a unix socket connection=1 reason=the drain was not finished in time; lost: 2 unanswered \
             NOTIFYs suppressed=0"
                .to_owned(),
            "drained took=10s cut=1 lost=2 background=0".to_owned(),
        ]
    );
}

#[test]
fn a_stop_is_told_as_well() {
    let mut server = Server::new(ServerConfig::default());
    let mut busy = server.session("e");
    server.say(&mut busy, "NOTIFY fin 1 1 later");
    let lines = events(Level::INFO, || {
        server.agent.handle().stop();
        server.agent.poll_shutdown(server.now);
        server.wake(&mut busy);
        drop(busy);
        server.agent.ended(server.now + millis(2));
    });
    assert_eq!(lines, ["stopping connections=1 requests=1", "drained took=2ms cut=1 lost=1 background=0"]);
}

#[test]
fn what_is_left_at_the_end_is_told() {
    let mut server = Server::new(ServerConfig::default());
    let mut busy = server.session("e");
    server.say(&mut busy, "NOTIFY fin 1 1 later");
    server.say(&mut busy, "NOTIFY fin 2 1 later");
    let work = busy.connection.shutdown.enter_background();
    let lines = events(Level::INFO, || {
        server.agent.handle().drain();
        server.agent.poll_shutdown(server.now);
        server.now = server.agent.end_deadline().unwrap();
        server.agent.ended(server.now);
    });
    assert_eq!(lines, ["draining connections=1 requests=2", "drained took=11s cut=1 lost=2 background=1"]);
    drop(work);
}

#[test]
fn a_connection_that_was_cut_and_lingers_is_counted_once() {
    let mut server = Server::new(ServerConfig::default());
    let mut busy = server.session("e");
    server.say(&mut busy, "NOTIFY fin 1 1 later");
    let lines = events(Level::INFO, || {
        server.agent.handle().drain();
        server.agent.poll_shutdown(server.now);
        server.wake(&mut busy);
        server.wait(&mut busy, millis(10_000));
        server.agent.ended(server.now);
    });
    assert_eq!(lines.last().map(String::as_str), Some("drained took=10s cut=1 lost=1 background=0"));
    assert!(!busy.is_over());
}

#[test]
fn that_too_much_goes_on_in_the_background_is_told_at_a_bounded_rate() {
    let mut server = Server::new(ServerConfig { max_background: 0, ..ServerConfig::default() });
    let conn = server.session("e");
    let lines = events(Level::WARN, || {
        assert!((0..50).all(|_| conn.connection.shutdown.enter_background().is_none()));
    });
    assert_eq!((lines.len(), &*lines[0]), (10, "background_full max=0 suppressed=0"));
}

/// The lines of the requests that fail while this runs.
fn failed(run: impl FnOnce()) -> Vec<String> {
    let mut lines = events(Level::WARN, run);
    lines.retain(|line| line.starts_with("request_failed "));
    lines
}

fn line(conn: &Conn, ids: &str, messages: &str, what: &str, error: &str) -> String {
    let (peer, id) = (conn.peer(), conn.id().0);
    format!(
        "request_failed peer={peer} connection={id} ids={ids} messages={messages} what={what} error={error} suppressed=0"
    )
}

#[test]
fn a_failure_that_is_known_at_once_names_the_messages_of_its_request() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    let lines = failed(|| {
        server.say(&mut conn, "NOTIFY fin 1 1 fail a=int32:1 ; other ; third");
        server.say(&mut conn, "NOTIFY fin 2 1 panic");
        server.say(&mut conn, "NOTIFY fin 3 1 nothing");
        server.say(&mut conn, "NOTIFY - 4 1 messages[..3] fail");
        server.say(&mut conn, "UNSET fin 4 1 messages[3..] fail");
    });
    assert_eq!(
        lines,
        [
            line(&conn, "1/1", "fail and 2 more", "handler_failed", "no"),
            line(&conn, "2/1", "panic", "handler_panicked", "boom"),
            line(&conn, "3/1", "nothing", "handler_failed", "it answered nothing"),
            line(&conn, "4/1", "fail", "handler_failed", "no"),
        ]
    );
}

#[test]
fn a_failure_that_comes_later_names_them_as_well() {
    let mut config = ServerConfig::from(asynchronous());
    config.max_in_flight = Some(3);
    let mut server = Server::new(config);
    let mut conn = server.session("e");
    let lines = failed(|| {
        server.say(&mut conn, "NOTIFY fin 1 1 dropped ; x");
        server.wake(&mut conn);
        for id in 2..=4 {
            server.say(&mut conn, &format!("NOTIFY fin {id} 1 later"));
        }
        server.say(&mut conn, "NOTIFY fin 5 1 now");
        server.app.deferred.remove(0).reply(long(20_000));
        server.wake(&mut conn);
        server.hear(&mut conn);
        server.wait(&mut conn, Duration::from_secs(30));
    });
    let unsendable = lines[2].split_once("error=").unwrap().1.strip_suffix(" suppressed=0").unwrap();
    assert_eq!(
        lines,
        [
            line(&conn, "1/1", "dropped and 1 more", "responder_dropped", "the responder was dropped"),
            line(&conn, "5/1", "now", "overloaded", "too many requests"),
            line(&conn, "2/1", "later", "answer_unsendable", unsendable),
            line(&conn, "3/1", "later", "timed_out", "no answer in time"),
            line(&conn, "4/1", "later", "timed_out", "no answer in time"),
        ]
    );
}

#[test]
fn the_failure_of_an_answer_that_a_sibling_sends_names_them_as_well() {
    let mut server = Server::asynchronous();
    let (mut home, mut sibling) = (server.session("e"), server.session("e"));
    server.say(&mut home, "NOTIFY fin 1 1 later");
    server.lose(&mut home);
    let lines = failed(|| {
        server.app.deferred.remove(0).reply(disconnect());
        server.wake(&mut home);
        server.wake(&mut sibling);
    });
    assert_eq!(lines, [line(&sibling, "1/1", "later", "already_disconnected", "go")]);
}

#[test]
fn the_span_of_a_request_names_its_messages() {
    let mut server = Server::new(ServerConfig::default());
    let mut conn = server.session("e");
    let lines = events(Level::DEBUG, || server.say(&mut conn, "NOTIFY fin 1 1 now ; b"));
    assert_eq!(lines, ["request ids=1/1 messages=now and 1 more"]);
}
