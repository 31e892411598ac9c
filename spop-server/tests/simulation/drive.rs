//! The drivers of a connection: for readiness, and for completions.

use std::io::{ErrorKind, Read, Write};

use spop_core::Timestamp;
use spop_server::{CompletionDriver, Conn, Driver, Operation, ReadBuffer, Stream, Turn};

use crate::{app::App, rng::Rng, wire::End};

#[allow(clippy::large_enum_variant)] // A few in a test.
pub enum Drive {
    Readiness(Driver<Conn>),
    Completions(Completions),
}

impl Drive {
    pub fn new(conn: Conn, rng: &mut Rng) -> Self {
        if rng.permille(700) {
            Self::Readiness(Driver::new(conn))
        } else {
            Self::Completions(Completions::new(conn))
        }
    }

    pub fn protocol(&self) -> &Conn {
        match self {
            Self::Readiness(driver) => driver.protocol(),
            Self::Completions(one) => one.driver.conn(),
        }
    }

    pub fn protocol_mut(&mut self) -> &mut Conn {
        match self {
            Self::Readiness(driver) => driver.protocol_mut(),
            Self::Completions(one) => one.driver.conn_mut(),
        }
    }

    pub fn turn(
        &mut self,
        now: Timestamp,
        ready: (bool, bool),
        end: Option<&mut End<'_>>,
        buffer: &mut ReadBuffer,
        app: &mut App,
    ) -> Turn {
        match self {
            Self::Readiness(driver) => {
                driver.ready(ready.0, ready.1);
                driver.turn(now, end, buffer, app)
            }
            Self::Completions(one) => one.turn(now, ready, end, app),
        }
    }
}

/// A loop that starts operations, which end in a later turn.
#[allow(clippy::struct_excessive_bools)] // Independent facts, not states.
pub struct Completions {
    driver: CompletionDriver,
    receiving: bool,
    /// What a receive has got that ended before the close, and was not reported.
    received: Option<Vec<u8>>,
    sending: Option<Vec<u8>>,
    readable: bool,
    writable: bool,
    closed: bool,
    /// It was closed in the last turn: its operations are still under way.
    closing: bool,
}

/// The free space before what is received.
const HEADROOM: usize = 256;

impl Completions {
    fn new(conn: Conn) -> Self {
        let driver = CompletionDriver::new(conn);
        Self {
            driver,
            receiving: false,
            received: None,
            sending: None,
            readable: true,
            writable: true,
            closed: false,
            closing: false,
        }
    }

    fn turn(
        &mut self,
        now: Timestamp,
        ready: (bool, bool),
        end: Option<&mut End<'_>>,
        app: &mut App,
    ) -> Turn {
        self.readable |= ready.0;
        self.writable |= ready.1;
        let mut end = end;
        if !std::mem::take(&mut self.closing) {
            self.end_operations(now, end.as_deref_mut(), app);
        }
        loop {
            match self.driver.next_operation(now, app) {
                Operation::Receive => {
                    assert!(!std::mem::replace(&mut self.receiving, true), "a second receive");
                }
                Operation::Send => {
                    let bytes = self.driver.conn().outgoing().to_vec();
                    assert!(self.sending.replace(bytes).is_none(), "a second send");
                }
                Operation::ShutWrite => {
                    if let Some(end) = end.as_deref_mut() {
                        let _ = end.shut_write();
                    }
                }
                Operation::Peek => {
                    let is_empty = end.as_deref_mut().is_none_or(Stream::is_drained);
                    self.driver.peeked(now, app, is_empty);
                }
                Operation::Close => {
                    // What was to be sent is sent as far as possible.
                    self.send(now, end.as_deref_mut(), app);
                    if self.receiving {
                        self.received = end.as_deref_mut().map(End::take_arrived);
                    }
                    (self.closed, self.closing) = (true, true);
                    return Turn::Closed;
                }
                Operation::Wait(_) => break,
                Operation::Over => {
                    assert!(!self.receiving && self.sending.is_none(), "an operation is under way");
                    return Turn::Over;
                }
            }
        }
        let ends = self.receiving && self.readable || self.sending.is_some() && self.writable;
        if ends || self.closed && (self.receiving || self.sending.is_some()) {
            Turn::Again
        } else {
            Turn::Wait
        }
    }

    fn end_operations(&mut self, now: Timestamp, mut end: Option<&mut End<'_>>, app: &mut App) {
        self.send(now, end.as_deref_mut(), app);
        if !self.receiving || !(self.readable || self.closed) {
            return;
        }
        let mut space = [0; HEADROOM + 2_048];
        let received = match end {
            _ if self.closed => Ok(self.received.take().map_or(0, |bytes| {
                space[HEADROOM..][..bytes.len()].copy_from_slice(&bytes);
                bytes.len()
            })),
            Some(end) => end.read(&mut space[HEADROOM..]),
            None => Ok(0),
        };
        match received {
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            received => {
                self.receiving = false;
                let buffer = received.map(|n| &mut space[..HEADROOM + n]);
                self.driver.received(now, app, HEADROOM, buffer);
            }
        }
    }

    fn send(&mut self, now: Timestamp, end: Option<&mut End<'_>>, app: &mut App) {
        let Some(bytes) = self.sending.take_if(|_| self.writable || self.closed) else { return };
        let sent = match end {
            Some(end) => end.write(&bytes),
            None => Err(ErrorKind::BrokenPipe.into()),
        };
        match sent {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                self.sending = Some(bytes);
            }
            sent => self.driver.sent(now, app, sent),
        }
    }
}
