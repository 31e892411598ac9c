//! Transcripts against handlers of this crate.

use std::{
    io::{self, Read, Write},
    thread,
    time::{Duration, Instant},
};

use spop_core::{
    Clock, Timestamp,
    accept::Peer,
    testing::replay::{Player, ReplayError, Todo, Way, parse},
};

use super::{FailureRecord, LIMIT};
use crate::{Agent, Conn, Driver, Handler, ReadBuffer, ServerConfig, Stream, Turn};

/// Runs a [transcript](mod@spop_core::testing::replay) against handlers that `make` makes, one for each connection, with all policies
/// of a server. Time is virtual. An answer that comes from another thread is awaited as by [`call`](super::call()).
///
/// ```
/// use spop_core::{Actions, Scope};
/// use spop_server::{Request, ServerConfig, testing};
///
/// fn count(request: Request<'_>) -> Actions {
///     let mut actions = Actions::new();
///     actions.set_var(Scope::Transaction, "messages", request.messages().len() as u64);
///     actions
/// }
///
/// testing::replay(
///     "
///     > NOTIFY fin 5 1 one ; two
///     < ACK fin 5 1 set txn messages=uint64:2
///     ",
///     ServerConfig::default(),
///     || count,
/// )?;
/// # Ok::<(), testing::ReplayError>(())
/// ```
///
/// # Errors
/// The first line that does not parse, or whose frame the agent does not send.
///
/// # Panics
/// If the configuration is invalid.
#[expect(clippy::panic, reason = "a test with a configuration like this has no other way to go on")]
pub fn replay<H: Handler>(
    text: &str,
    config: impl Into<ServerConfig>,
    mut make: impl FnMut() -> H,
) -> Result<(), ReplayError> {
    let config = config.into();
    for scenario in parse(text)? {
        for way in Way::all() {
            let agent = Agent::new(config.clone(), Clock::start())
                .unwrap_or_else(|error| panic!("the configuration of the server: {error}"));
            let failures = FailureRecord::begin(&agent);
            let now = Timestamp::from_millis(1);
            let conn = agent.connection(now, Peer::unnamed());
            let mut server =
                Server { now, driver: Driver::new(conn), wire: Wire::default(), open: true, handler: make() };
            server.run(&mut Player::new(&scenario, way), failures)?;
        }
    }
    Ok(())
}

struct Server<H> {
    now: Timestamp,
    driver: Driver<Conn>,
    wire: Wire,
    open: bool,
    handler: H,
}

impl<H: Handler> Server<H> {
    fn run(&mut self, player: &mut Player<'_>, failures: &FailureRecord) -> Result<(), ReplayError> {
        while let Some(todo) = player.next_todo()? {
            match todo {
                Todo::Send(bytes) => self.wire.input.extend(bytes),
                Todo::Shut => self.wire.eof = true,
                Todo::Wait(time) => {
                    let until = self.now + time;
                    while self.deadline().is_some_and(|at| at <= until) {
                        self.advance();
                    }
                    self.now = until;
                }
                Todo::Receive if !self.await_threads() && !self.advance() => {
                    return Err(player.nothing_comes());
                }
                Todo::Receive | Todo::Settle => {}
            }
            self.turns();
            player.failures.extend(failures.take().into_iter().map(|(ids, why)| (ids, (&why).into())));
            player.receive(std::mem::take(&mut self.wire.output));
        }
        Ok(())
    }

    /// Waits for an answer of another thread. False if none is awaited, or none comes.
    fn await_threads(&self) -> bool {
        let conn = self.driver.protocol();
        let waits = conn.reactor().is_some_and(|reactor| reactor.in_flight() > 0);
        let until = Instant::now() + LIMIT;
        while waits && Instant::now() < until {
            if conn.is_woken() {
                return true;
            }
            thread::sleep(Duration::from_micros(100));
        }
        false
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.driver.protocol().deadline()
    }

    /// Advances the time to the next deadline. False if there is none.
    fn advance(&mut self) -> bool {
        let Some(deadline) = self.deadline() else { return false };
        self.now = self.now.max(deadline);
        self.turns();
        true
    }

    fn turns(&mut self) {
        let mut buffer = ReadBuffer::new();
        loop {
            self.driver.ready(true, true);
            let wire = self.open.then_some(&mut self.wire);
            match self.driver.turn(self.now, wire, &mut buffer, &mut self.handler) {
                Turn::Again => {}
                Turn::Closed | Turn::Over => {
                    self.open = false;
                    return;
                }
                Turn::Wait => return,
            }
        }
    }
}

/// The connection in memory.
#[derive(Debug, Default)]
struct Wire {
    input: Vec<u8>,
    eof: bool,
    output: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() && !self.eof {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = (&*self.input).read(space)?;
        self.input.drain(..n);
        Ok(n)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Wire {
    fn shut_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}
