//! The limit on open files. It is that of a whole process, so that each case runs in one of its own.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // It is a test.

use std::{
    env, fmt,
    process::Command,
    sync::{Arc, Mutex},
};

use nix::sys::resource::{Resource, getrlimit};
use spop_core::{Clock, accept::AcceptConfig};
use spop_server::{Agent, Entrance, ServerConfig};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// `max_connections`, for the process of a case.
const MAX_CONNECTIONS: &str = "SPOP_TEST_MAX_CONNECTIONS";
/// What the limit is then, and a part of each warning.
const EXPECTED: &str = "SPOP_TEST_EXPECTED";

/// Starts a server with these limits on open files.
fn start(soft: u32, hard: u32, max_connections: usize, limit: u32, warning: &str) {
    // The hard limit cannot be set above its present value.
    let shell = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
    // Captured: its lines would break those of this process.
    let output = Command::new("sh")
        .args(["-c", &shell])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "server"])
        .env(MAX_CONNECTIONS, max_connections.to_string())
        .env(EXPECTED, format!("{limit} {hard} {warning}"))
        .env_remove("NOTIFY_SOCKET")
        .output()
        .unwrap();
    assert!(output.status.success(), "{soft} {hard} {max_connections}: {output:?}");
}

/// What the process of a case runs. By itself, it does nothing.
#[test]
fn server() {
    let Ok(max_connections) = env::var(MAX_CONNECTIONS) else { return };
    let mut config = ServerConfig::default();
    config.max_connections = max_connections.parse().unwrap();
    let agent = Agent::new(config, Clock::start()).unwrap();
    let warnings = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::with_default(Warnings(Arc::clone(&warnings)), || {
        let entrance = Arc::new(Entrance::new(AcceptConfig::new()).unwrap());
        agent.ready([&entrance, &entrance]);
    });
    let warnings = warnings.lock().unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let expected = env::var(EXPECTED).unwrap();
    let found = format!("{soft} {hard} {}", warnings.join("\n"));
    if expected.ends_with(' ') {
        assert_eq!(found, expected);
    } else {
        assert!(warnings.len() == 1 && found.starts_with(&expected), "{found}");
    }
}

#[test]
fn the_soft_limit_is_raised_for_all_connections() {
    start(256, 2048, 1000, 1066, "");
}

#[test]
fn a_soft_limit_that_is_enough_stays() {
    start(300, 2048, 200, 300, "");
}

#[test]
fn a_hard_limit_that_is_too_low_is_reported_once() {
    let figures = "limit=512 hard=512 needed=1066 max_connections=1000";
    start(256, 512, 1000, 512, figures);
    start(512, 512, 1000, 512, figures);
    start(256, 512, usize::MAX, 512, "limit=512 hard=512 needed=");
}

#[test]
fn the_warning_names_what_would_do() {
    start(
        256,
        512,
        447,
        512,
        "limit=512 hard=512 needed=513 max_connections=447 message=the limit on open files is too low",
    );
    start(256, 512, 446, 512, "");
}

/// Keeps the fields of warnings.
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().unwrap().push(format!("{} message={}", fields.others.join(" "), fields.message));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields {
    others: Vec<String>,
    message: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.others.push(format!("{name}={value:?}")),
        }
    }
}
