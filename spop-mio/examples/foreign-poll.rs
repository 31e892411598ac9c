//! SPOP on an event loop that is there already, and has something else to do: here it also says on a second port, to
//! whoever connects, how many requests were answered.
//!
//! ```text
//! cargo run --example foreign-poll -- 127.0.0.1:12345 127.0.0.1:12346
//! ```

use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind, Write as _},
    sync::Arc,
    time::Duration,
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use spop_core::{Action, Actions, AgentConfig, AgentReactor, Clock, ConnectionId, Scope, config::Checked};
use spop_mio::{Connection, ReadBuffer, Turn};

const AGENT: Token = Token(0);
const COUNTER: Token = Token(1);

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut listen = |default: &str| {
        let address = arguments.next().unwrap_or_else(|| default.into());
        TcpListener::bind(address.parse().map_err(io::Error::other)?)
    };
    let (mut agent, mut counter) = (listen("127.0.0.1:12345")?, listen("127.0.0.1:12346")?);
    println!("listening on {}\ncounting on {}", agent.local_addr()?, counter.local_addr()?);

    let mut poll = Poll::new()?;
    poll.registry().register(&mut agent, AGENT, Interest::READABLE)?;
    poll.registry().register(&mut counter, COUNTER, Interest::READABLE)?;
    let (config, clock) = (Arc::<Checked<AgentConfig>>::default(), Clock::start());
    let (mut events, mut buffer) = (Events::with_capacity(256), ReadBuffer::new());
    let mut connections: HashMap<Token, Connection<TcpStream>> = HashMap::new();
    let (mut next, mut answered) = (2, 0_u64);
    let mut turns: VecDeque<Token> = VecDeque::new();
    // Whether more may wait to be accepted: readiness is told once, and descriptors may be exhausted meanwhile.
    let (mut at_agent, mut at_counter) = (false, false);
    loop {
        // With few connections no timer structure is needed.
        let deadline = connections.values().filter_map(Connection::deadline).min();
        let wait = deadline.map(|at| at.since(clock.now()));
        let again = (at_agent || at_counter).then_some(Duration::from_millis(100));
        let wait = if turns.is_empty() { wait.into_iter().chain(again).min() } else { Some(Duration::ZERO) };
        match poll.poll(&mut events, wait) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        let now = clock.now();
        for event in &events {
            match event.token() {
                COUNTER => at_counter = true,
                AGENT => at_agent = true,
                token => {
                    if let Some(connection) = connections.get_mut(&token) {
                        if event.is_read_closed() {
                            connection.ready_closed();
                        }
                        connection.ready(event.is_readable() || event.is_error(), event.is_writable());
                        turns.push_back(token);
                    }
                }
            }
        }
        while at_counter && let Some(mut stream) = accept(&counter, &mut at_counter) {
            let _ = writeln!(stream, "{answered}");
        }
        while at_agent && let Some(mut stream) = accept(&agent, &mut at_agent) {
            let token = Token(next);
            next += 1;
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, token, both)?;
            let reactor = AgentReactor::new(Arc::clone(&config), ConnectionId(token.0 as u64), now);
            connections.insert(token, Connection::new(stream, reactor));
            turns.push_back(token);
        }
        let due =
            connections.iter().filter(|(_, connection)| connection.deadline().is_some_and(|at| at <= now));
        turns.extend(due.map(|(token, _)| *token));
        for _ in 0..turns.len() {
            let Some(token) = turns.pop_front() else { break };
            let Some(connection) = connections.get_mut(&token) else { continue };
            let turn = connection.turn(now, &mut buffer, |reactor, action| {
                if let Action::RunMessages(notify) = action {
                    answered += 1;
                    let mut actions = Actions::new();
                    actions.set_var(Scope::Transaction, "answered", answered);
                    // An answer as short as this one fits.
                    let _ = reactor.acknowledge(now, notify.ticket, &actions);
                }
            });
            match turn {
                Turn::Wait => {}
                Turn::Again => turns.push_back(token),
                Turn::Over => drop(connections.remove(&token)),
            }
        }
    }
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
