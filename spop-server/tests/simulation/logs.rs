//! The log events of the servers.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

/// The longest text of a log event, also if the peer chose it.
const MAX_TEXT: usize = 600;

/// Events about a request: they name its messages.
const OF_REQUESTS: [&str; 3] = ["request_failed", "request_abandoned", "answered_late"];

/// How a server ended, as it logs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were ended with requests unanswered, and those requests.
    pub cut: u64,
    pub lost: u64,
}

/// Checks the events of this thread while it lives.
pub struct Logs {
    drained: Arc<Mutex<Option<Drained>>>,
    _guard: DefaultGuard,
}

impl Logs {
    pub fn new() -> Self {
        let drained = Arc::<Mutex<_>>::default();
        let guard = tracing::subscriber::set_default(Checker { drained: Arc::clone(&drained) });
        Self { drained, _guard: guard }
    }

    /// What the server that has just ended logged.
    pub fn take_drained(&self) -> Option<Drained> {
        self.drained.lock().unwrap().take()
    }
}

struct Checker {
    drained: Arc<Mutex<Option<Drained>>>,
}

impl Subscriber for Checker {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let name = event.metadata().name();
        let mut fields = Fields { name, drained: Drained::default(), messages: false };
        event.record(&mut fields);
        assert!(fields.messages || !OF_REQUESTS.contains(&name), "{name} names no messages");
        if name == "drained" {
            *self.drained.lock().unwrap() = Some(fields.drained);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Fields {
    name: &'static str,
    drained: Drained,
    messages: bool,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "cut" => self.drained.cut = value,
            "lost" => self.drained.lost = value,
            _ => {}
        }
    }

    fn record_i64(&mut self, _: &Field, _: i64) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        let (name, length) = (self.name, value.len());
        assert!(length <= MAX_TEXT, "{name} has {length} bytes of {field}");
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.messages |= field.name() == "messages";
        // The name of a transport is the server's own.
        if ["error", "reason", "message"].contains(&field.name()) {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}
