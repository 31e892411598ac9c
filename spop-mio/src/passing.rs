//! The I/O of a pending connection: what an [`Acceptor`] asks for before the session begins.

use std::{
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use bytes::{Buf as _, BytesMut};
use spop_core::{
    Step, Timestamp,
    accept::{Accept, Acceptor, Origin, Peer},
    link::Layer,
};
use spop_server::Entrance;
#[cfg(feature = "tls")]
use spop_server::tls::TlsPeer;

#[cfg(feature = "tls")]
use crate::tls::TlsStream;
use crate::{
    Stream as _,
    stream::{Plain, Socket},
};

/// The size of a read. A PROXY header, a probe and the beginning of a session are short.
const READ: usize = 2_048;

/// Actions in one turn. A peer that keeps the socket full then waits for the other connections.
const TURN: usize = 16;

/// A connection on its way to its session.
#[derive(Debug)]
pub(crate) struct Passing {
    /// Gone for a moment, while TLS is put around it.
    socket: Option<Socket>,
    acceptor: Acceptor,
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    entrance: Arc<Entrance>,
    inbox: BytesMut,
    next: Accept,
}

/// A connection whose session begins.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) socket: Socket,
    pub(crate) whence: Whence,
    /// What it has sent of its session already.
    pub(crate) input: BytesMut,
}

/// Where a connection comes from.
#[derive(Debug)]
pub(crate) struct Whence {
    /// The other end of its transport.
    pub(crate) peer: Peer,
    /// What else was learned before its session.
    pub(crate) learned: Option<Box<Learned>>,
}

/// What was learned of a connection before its session.
#[derive(Debug)]
pub(crate) struct Learned {
    pub(crate) origin: Origin,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<TlsPeer>,
}

impl std::fmt::Display for Whence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.peer.fmt(f)
    }
}

/// What became of a connection.
#[derive(Debug)]
pub(crate) enum Passage {
    /// Nothing yet. True when there is more to do, after the others have had their turns.
    Waits(bool),
    Session(Box<Arrival>),
    /// It ended well: a monitor's.
    Probe,
    /// It may have no session, or cannot, and this is why.
    Refused(&'static str, String),
}

impl Passing {
    pub(crate) fn new(
        socket: Plain,
        peer: Peer,
        entrance: Arc<Entrance>,
        now: Timestamp,
        lame_duck: bool,
    ) -> Self {
        let mut acceptor = Acceptor::new(Arc::clone(&entrance.config), peer, now);
        acceptor.set_lame_duck(lame_duck);
        let next = acceptor.on_bytes(now, &[]).action;
        Self { socket: Some(Socket::Plain(socket)), acceptor, entrance, inbox: BytesMut::new(), next }
    }

    /// When the next turn is due, whatever happens.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.acceptor.deadline()
    }

    pub(crate) const fn socket_mut(&mut self) -> Option<&mut Socket> {
        self.socket.as_mut()
    }

    /// Goes on as far as it gets without waiting.
    pub(crate) fn turn(&mut self, now: Timestamp, lame_duck: bool) -> Passage {
        self.acceptor.set_lame_duck(lame_duck);
        let passage = self.steps(now);
        // Time is up after what has arrived in time, however late this turn is.
        if matches!(passage, Passage::Waits(_)) && self.deadline().is_some_and(|deadline| deadline <= now) {
            self.next = self.acceptor.on_timeout(now);
            return self.steps(now);
        }
        passage
    }

    fn steps(&mut self, now: Timestamp) -> Passage {
        for _ in 0..TURN {
            match self.step(now) {
                Ok(Some(passage)) => return passage,
                Ok(None) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Passage::Waits(false),
                    io::ErrorKind::Interrupted => {}
                    _ => {
                        let peer = &self.acceptor.origin().transport;
                        let words = format!("{peer} was lost before its session: {error}");
                        return Passage::Refused("lost", words);
                    }
                },
            }
        }
        Passage::Waits(true)
    }

    /// Does what comes next.
    fn step(&mut self, now: Timestamp) -> io::Result<Option<Passage>> {
        let Some(socket) = &mut self.socket else { return Ok(Some(Passage::Probe)) };
        self.next = match &self.next {
            Accept::WantBytes { .. } => {
                let mut bytes = [0; READ];
                let n = match socket.read(&mut bytes) {
                    // TLS: a monitor that has its answer may close without a `close_notify`.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                    read => read?,
                };
                self.inbox.extend_from_slice(bytes.get(..n).unwrap_or_default());
                if n == 0 {
                    advance(&mut self.inbox, |input| self.acceptor.on_input_eof(now, input))
                } else {
                    advance(&mut self.inbox, |input| self.acceptor.on_bytes(now, input))
                }
            }
            Accept::SendReply => {
                let n = socket.write(self.acceptor.outgoing())?;
                if n == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.acceptor.on_sent(now, n).map_err(io::Error::other)?
            }
            Accept::ShutWrite => {
                if socket.layers() == spop_core::link::Layers::Data {
                    socket.shut_write(Layer::Data)?;
                }
                socket.shut_write(Layer::Transport)?;
                advance(&mut self.inbox, |input| self.acceptor.on_bytes(now, input))
            }
            #[cfg(feature = "tls")]
            Accept::StartTls => return self.shake(now),
            Accept::Refuse(refusal) => return Ok(Some(Passage::Refused("refused", refusal.to_string()))),
            Accept::Ready(origin) => {
                return Ok(Some(arrive(self.socket.take(), origin.clone(), &mut self.inbox)));
            }
            // `Close`. The others ask for what was done already, and never come.
            _ => return Ok(Some(Passage::Probe)),
        };
        Ok(None)
    }

    /// Goes on with the handshake.
    #[cfg(feature = "tls")]
    fn shake(&mut self, now: Timestamp) -> io::Result<Option<Passage>> {
        let peer = &self.acceptor.origin().transport;
        let failed = |error: &dyn std::fmt::Display| {
            Passage::Refused("tls_failed", format!("TLS with {peer} failed: {error}"))
        };
        let mut stream = match (self.socket.take(), &self.entrance.tls) {
            (Some(Socket::Tls(stream)), _) => stream,
            (Some(Socket::Plain(plain)), Some(tls)) => {
                match TlsStream::new(tls, plain, &std::mem::take(&mut self.inbox)) {
                    Ok(stream) => Box::new(stream),
                    Err(error) => return Ok(Some(failed(&error))),
                }
            }
            _ => return Ok(Some(failed(&"there is no certificate"))),
        };
        let done = stream.handshake();
        let refused = done.as_ref().err().map(|error| (error.kind(), failed(error)));
        self.socket = Some(Socket::Tls(stream));
        match refused {
            Some((io::ErrorKind::UnexpectedEof, _)) => {
                self.next = self.acceptor.on_input_eof(now, &[]).action;
            }
            Some((_, refused)) => return Ok(Some(refused)),
            None if matches!(done, Ok(true)) => {
                self.acceptor.on_tls_done(now).map_err(io::Error::other)?;
                self.next = self.acceptor.on_bytes(now, &[]).action;
            }
            None => return Ok(Some(Passage::Waits(false))),
        }
        Ok(None)
    }
}

/// Gives an input what the inbox holds. What is used of it leaves the inbox.
fn advance(inbox: &mut BytesMut, input: impl FnOnce(&[u8]) -> Step<Accept>) -> Accept {
    let Step { consumed, action } = input(inbox);
    inbox.advance(consumed);
    action
}

fn arrive(socket: Option<Socket>, origin: Origin, inbox: &mut BytesMut) -> Passage {
    let Some(socket) = socket else { return Passage::Probe };
    let learned = Learned {
        #[cfg(feature = "tls")]
        tls: match &socket {
            Socket::Plain(_) => None,
            Socket::Tls(stream) => Some(stream.peer()),
        },
        origin,
    };
    let whence = Whence { peer: learned.origin.transport.clone(), learned: Some(Box::new(learned)) };
    Passage::Session(Box::new(Arrival { socket, whence, input: std::mem::take(inbox) }))
}
