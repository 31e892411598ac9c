//! SPOP on an event loop that is there already, and has something else to do: here it also says on a second port, to
//! whoever connects, how many requests were answered.
//!
//! ```text
//! cargo run --example foreign-poll -- 127.0.0.1:12345 127.0.0.1:12346
//! ```
//!
//! It echoes every argument of every message as the variable `MESSAGE.ARGUMENT`, and drains on SIGTERM.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind, Write as _},
    os::fd::AsRawFd as _,
    sync::Arc,
    time::Duration,
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
    unix::SourceFd,
};
use signal_hook::{consts::SIGTERM, low_level::pipe};
use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, Clock, ConnectionId, Messages, Notify, Scope, Timestamp,
    config::Checked,
};
use spop_mio::{Connection, ReadBuffer, Turn};

const AGENT: Token = Token(0);
const COUNTER: Token = Token(1);
const SIGNAL: Token = Token(2);

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut listen = |default: &str| {
        let address = arguments.next().unwrap_or_else(|| default.into());
        TcpListener::bind(address.parse().map_err(io::Error::other)?)
    };
    let (mut agent, mut counter) = (listen("127.0.0.1:12345")?, listen("127.0.0.1:12346")?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut agent, AGENT, Interest::READABLE)?;
    poll.registry().register(&mut counter, COUNTER, Interest::READABLE)?;
    let (signal, on_signal) = io::pipe()?;
    poll.registry().register(&mut SourceFd(&signal.as_raw_fd()), SIGNAL, Interest::READABLE)?;
    pipe::register(SIGTERM, on_signal)?;
    println!("listening on {}\ncounting on {}", agent.local_addr()?, counter.local_addr()?);

    let mut spop = Spop::default();
    let mut events = Events::with_capacity(256);
    // Dropped when the drain begins.
    let mut agent = Some(agent);
    // Whether more may wait to be accepted: readiness is told once, and descriptors may be exhausted meanwhile.
    let (mut at_agent, mut at_counter) = (false, false);
    while agent.is_some() || !spop.connections.is_empty() {
        let again = (at_agent || at_counter).then_some(Duration::from_millis(100));
        match poll.poll(&mut events, spop.timeout().into_iter().chain(again).min()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        let mut drain = false;
        for event in &events {
            match event.token() {
                AGENT => at_agent = true,
                COUNTER => at_counter = true,
                SIGNAL => drain = true,
                token => spop.ready(token, event),
            }
        }
        while at_counter && let Some(mut stream) = accept(&counter, &mut at_counter) {
            let _ = writeln!(stream, "{}", spop.answered);
        }
        // Also those that have connected just before the signal.
        at_agent |= drain;
        while at_agent && let Some(stream) = agent.as_ref().and_then(|agent| accept(agent, &mut at_agent)) {
            spop.open(stream, &poll)?;
        }
        if drain {
            (agent, at_agent) = (None, false);
            spop.drain();
        }
        spop.turns();
    }
    Ok(())
}

/// Accepts a connection, if it can now; `more` is false afterwards when none waits.
fn accept(listener: &TcpListener, more: &mut bool) -> Option<TcpStream> {
    match listener.accept() {
        Ok((stream, _)) => return Some(stream),
        Err(error) if error.kind() == ErrorKind::WouldBlock => *more = false,
        Err(error) => eprintln!("accept: {error}"),
    }
    None
}

/// What the loop has for SPOP.
struct Spop {
    config: Arc<Checked<AgentConfig>>,
    clock: Clock,
    buffer: ReadBuffer,
    connections: HashMap<Token, Connection<TcpStream>>,
    next: usize,
    /// Connections that have something to do.
    turns: VecDeque<Token>,
    answered: u64,
}

impl Default for Spop {
    fn default() -> Self {
        Self {
            config: Arc::default(),
            clock: Clock::start(),
            buffer: ReadBuffer::new(),
            connections: HashMap::new(),
            next: 3,
            turns: VecDeque::new(),
            answered: 0,
        }
    }
}

impl Spop {
    fn open(&mut self, mut stream: TcpStream, poll: &Poll) -> io::Result<()> {
        let token = Token(self.next);
        self.next += 1;
        // Answers leave in one piece, and at once.
        let _ = stream.set_nodelay(true);
        poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let id = ConnectionId(token.0 as u64);
        let reactor = AgentReactor::new(Arc::clone(&self.config), id, self.clock.now());
        self.connections.insert(token, Connection::new(stream, reactor));
        self.turns.push_back(token);
        Ok(())
    }

    fn ready(&mut self, token: Token, event: &mio::event::Event) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if event.is_read_closed() {
            connection.ready_closed();
        }
        connection.ready(event.is_readable() || event.is_error(), event.is_writable());
        self.turns.push_back(token);
    }

    fn drain(&mut self) {
        for (token, connection) in &mut self.connections {
            connection.reactor_mut().drain(self.clock.now());
            self.turns.push_back(*token);
        }
    }

    /// How long there is nothing to do. With few connections no timer structure is needed.
    fn timeout(&self) -> Option<Duration> {
        if !self.turns.is_empty() {
            return Some(Duration::ZERO);
        }
        Some(self.connections.values().filter_map(Connection::deadline).min()?.since(self.clock.now()))
    }

    fn turns(&mut self) {
        let now = self.clock.now();
        let due = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline().is_some_and(|at| at <= now));
        self.turns.extend(due.map(|(token, _)| *token));
        for _ in 0..self.turns.len() {
            let Some(token) = self.turns.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            let turn = connection.turn(now, &mut self.buffer, |reactor, action| {
                if let Action::RunMessages(notify) = action {
                    self.answered += 1;
                    answer(reactor, now, notify);
                }
            });
            match turn {
                Turn::Wait => {}
                Turn::Again => self.turns.push_back(token),
                Turn::Over => drop(self.connections.remove(&token)),
            }
        }
    }
}

fn answer(reactor: &mut AgentReactor, now: Timestamp, notify: Notify<'_>) {
    let actions = echo(notify.messages());
    if let Err(error) = reactor.acknowledge(now, notify.ticket, &actions) {
        // The answer is too long: HAProxy goes on without one.
        let _ = reactor.fail(now, error.into_ticket());
    }
}

fn echo(messages: Messages<'_>) -> Actions {
    let mut actions = Actions::new();
    for message in messages {
        for (name, value) in message.args() {
            actions.set_var(Scope::Transaction, [message.name(), b".", name].concat(), value);
        }
    }
    actions
}
