//! What handlers do, for all adapters: a request says what is to become of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use anyhow::{Context as _, Result};
use spop_core::frame::Messages;
use spop_core::{
    Actions, Scope, Status, Value,
    agent::{Partial, Reply, Watch},
    frame::ArgError,
};
use spop_server::Cancelled;
use spop_tests::wait::{PATIENCE, until};

/// What a handler knows besides the messages.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) source: Option<SocketAddr>,
    pub(crate) destination: Option<SocketAddr>,
    pub(crate) engine: Option<Vec<u8>>,
    /// How many certificates the peer has shown; `None` without TLS.
    pub(crate) certificates: Option<usize>,
    /// Which handler it is, of those that have replaced each other.
    pub(crate) generation: u64,
}

/// What a handler does.
#[derive(Debug)]
pub(crate) enum Deed {
    /// Answers at once.
    Say(Reply),
    /// Answers when the test says so.
    Hold(String, Reply),
    /// Occupies its thread until the test says so, and answers.
    Block(String, Reply),
    /// Drops its responder.
    Drop,
    /// Panics.
    Panic,
}

/// Reads a request: `hold key=…`, `panic`, `drop`, `fail`, `disconnect code=…`, `blob size=…`, `who`, `engine`,
/// `generation`, `block key=…`. Any other message has its arguments echoed, as variables of the same
/// names. A request without messages must not come here: the server answers it.
pub(crate) fn deed(messages: Messages<'_>, facts: &Facts) -> Deed {
    match read(messages, facts) {
        Ok(deed) => deed,
        Err(error) => Deed::Say(Reply::failed(error)),
    }
}

fn read(messages: Messages<'_>, facts: &Facts) -> Result<Deed, ArgError> {
    let mut actions = Actions::new();
    let (mut hold, mut block) = (None, None);
    if messages.is_empty() {
        return Ok(Deed::Say(Reply::Disconnect { status: Status(99), message: "no messages".into() }));
    }
    for message in messages {
        match message.name() {
            b"hold" => hold = Some(message.arg::<&str>("key")?.to_owned()),
            b"panic" => return Ok(Deed::Panic),
            b"drop" => return Ok(Deed::Drop),
            b"fail" => return Ok(Deed::Say(Reply::failed("as you wish"))),
            b"disconnect" => {
                let status = Status(message.arg("code")?);
                let reply = Reply::Disconnect { status, message: "as you wish".into() };
                return Ok(
                    hold.map_or_else(|| Deed::Say(reply.clone()), |key| Deed::Hold(key, reply.clone()))
                );
            }
            b"blob" => {
                let text = vec![b'x'; message.arg::<usize>("size")?];
                actions.set_var(Scope::Transaction, "blob", Value::String(&text));
            }
            b"who" => who(facts, &mut actions),
            b"engine" => {
                let engine = facts.engine.as_deref().map_or(Value::Null, Value::String);
                actions.set_var(Scope::Transaction, "engine", engine);
            }
            b"block" => block = Some(message.arg::<&str>("key")?.to_owned()),
            b"generation" => drop(actions.set_var(Scope::Transaction, "generation", facts.generation)),
            _ => {
                for (name, value) in message.args() {
                    actions.set_var(Scope::Transaction, name, value);
                }
            }
        }
    }
    let reply = Reply::Ack(actions);
    Ok(match (hold, block) {
        (Some(key), _) => Deed::Hold(key, reply),
        (None, Some(key)) => Deed::Block(key, reply),
        (None, None) => Deed::Say(reply),
    })
}

fn who(facts: &Facts, actions: &mut Actions) {
    for (name, address) in [("source", facts.source), ("destination", facts.destination)] {
        if let Some(address) = address {
            actions.set_var(Scope::Transaction, name, address.to_string().as_str());
        }
    }
    if let Some(certificates) = facts.certificates {
        actions.set_var(Scope::Transaction, "certificates", certificates as u64);
    }
}

/// Looks at a payload that is arriving: the message `refuse` is refused, and `watch-panics` makes the look panic.
pub(crate) fn watch(arriving: Partial<'_>) -> Watch {
    match arriving.messages().next().map(|message| message.name().to_vec()).as_deref() {
        Some(b"refuse") => Watch::Refuse,
        Some(b"watch-panics") => panic!("as you wish"),
        _ => Watch::Continue,
    }
}

/// A request that is answered later.
pub(crate) trait Later: Send {
    fn answer(self: Box<Self>, reply: Reply);
    fn is_cancelled(&self) -> bool;
    /// Why the request was cancelled.
    fn cancelled(&self) -> Option<Cancelled>;
}

/// A thread that is occupied.
struct Blocked(mpsc::Sender<()>);

impl Later for Blocked {
    fn answer(self: Box<Self>, _: Reply) {
        // It may have waited for too long.
        let _ = self.0.send(());
    }

    fn is_cancelled(&self) -> bool {
        false
    }

    fn cancelled(&self) -> Option<Cancelled> {
        None
    }
}

/// Where requests wait until the test lets them go on.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<HashMap<String, Held>>>);

struct Held {
    later: Box<dyn Later>,
    reply: Reply,
}

impl Gate {
    pub(crate) fn keep(&self, key: String, later: Box<dyn Later>, reply: Reply) {
        self.held().insert(key, Held { later, reply });
    }

    /// Occupies this thread until the test lets it go on.
    pub(crate) fn block(&self, key: String) {
        let (release, released) = mpsc::channel();
        self.keep(key, Box::new(Blocked(release)), Reply::Ack(Actions::new()));
        let _ = released.recv_timeout(PATIENCE);
    }

    /// Waits until a handler holds this.
    pub(crate) fn wait(&self, key: &str) -> Result<()> {
        until(&format!("{key} is held"), PATIENCE, || Ok(self.held().contains_key(key).then_some(())))
    }

    /// Whether a handler holds this.
    pub(crate) fn holds(&self, key: &str) -> bool {
        self.held().contains_key(key)
    }

    /// Lets a handler answer, as soon as it holds this.
    pub(crate) fn release(&self, key: &str) -> Result<()> {
        self.wait(key)?;
        let held = self.held().remove(key).context("it was taken meanwhile")?;
        held.later.answer(held.reply);
        Ok(())
    }

    /// Waits until a held request is cancelled.
    pub(crate) fn wait_for_cancel(&self, key: &str) -> Result<()> {
        until(&format!("{key} is cancelled"), PATIENCE, || {
            Ok(self.held().get(key).is_some_and(|held| held.later.is_cancelled()).then_some(()))
        })
    }

    /// Waits until a held request is cancelled for this reason.
    pub(crate) fn wait_for_reason(&self, key: &str, why: Cancelled) -> Result<()> {
        self.wait_for_cancel(key)?;
        let reason = || self.held().get(key).and_then(|held| held.later.cancelled());
        until(&format!("{key} is cancelled as {why:?}"), PATIENCE, || {
            Ok((reason() == Some(why)).then_some(()))
        })
        .with_context(|| format!("{:?}", reason()))
    }

    /// Whether a held request is cancelled.
    pub(crate) fn is_cancelled(&self, key: &str) -> bool {
        self.held().get(key).is_some_and(|held| held.later.is_cancelled())
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
