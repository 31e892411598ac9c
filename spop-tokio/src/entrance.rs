//! The I/O of a pending connection: what an [`Acceptor`] asks for before the session begins.

use std::{io, sync::Arc};

use bytes::{Buf as _, BytesMut};
use spop_core::{
    Clock, Step, Timestamp,
    accept::{Accept, Acceptor, Origin, Peer},
    link::Layers,
};
use spop_server::Entrance;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout_at},
};

#[cfg(feature = "tls")]
use crate::tls::{self, TlsPeer, TlsStream};
use crate::{control::Control, stream::Stream};

/// The size of a read. A PROXY header, a probe and the beginning of a session are short.
const READ: usize = 2_048;

/// A connection whose session begins.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The other end of its transport.
    pub(crate) peer: Peer,
    /// What else is known of it.
    pub(crate) accepted: Option<Arc<Accepted>>,
    /// What it has sent of its session already.
    pub(crate) rest: BytesMut,
    pub(crate) layers: Layers,
}

impl From<Peer> for Arrival {
    fn from(peer: Peer) -> Self {
        Self { peer, accepted: None, rest: BytesMut::new(), layers: Layers::Plain }
    }
}

/// What was learned of a connection before its session.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) origin: Origin,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<TlsPeer>,
}

/// What became of a connection.
pub(crate) enum Passage {
    Session(Passing, Arrival),
    /// It ended well: a monitor's.
    Probe,
    /// It may have no session, or cannot, and this is why.
    Refused(&'static str, String),
}

/// A stream on its way to a session.
pub(crate) enum Passing {
    Plain(Stream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

macro_rules! io {
    ($passing:expr, $io:ident => $call:expr) => {
        match $passing {
            Passing::Plain($io) => $call,
            #[cfg(feature = "tls")]
            Passing::Tls($io) => $call,
        }
    };
}

/// Drives a pending connection until its session begins or it ends.
pub(crate) async fn pass(
    entrance: &Entrance,
    stream: Stream,
    peer: Peer,
    clock: Clock,
    control: &Control,
) -> Passage {
    let now = || clock.at(Instant::now().into_std());
    let mut acceptor = Acceptor::new(Arc::clone(&entrance.config), peer.clone(), now());
    let mut inbox = BytesMut::new();
    let mut passing = Passing::Plain(stream);
    acceptor.set_lame_duck(control.is_ending());
    let mut accept = acceptor.on_bytes(now(), &[]).action;
    loop {
        accept = match accept {
            Accept::WantBytes { .. } => {
                inbox.reserve(READ);
                let read = async { io!(&mut passing, io => io.read_buf(&mut inbox).await) };
                let read = in_time(clock, acceptor.deadline(), read).await;
                acceptor.set_lame_duck(control.is_ending());
                match read {
                    Some(Ok(0)) => advance(&mut inbox, |input| acceptor.on_input_eof(now(), input)),
                    Some(Ok(_)) => advance(&mut inbox, |input| acceptor.on_bytes(now(), input)),
                    // TLS: a monitor that has its answer may close without a `close_notify`.
                    Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        advance(&mut inbox, |input| acceptor.on_input_eof(now(), input))
                    }
                    Some(Err(error)) => return Passage::lost(&peer, &error),
                    None => acceptor.on_timeout(now()),
                }
            }
            Accept::SendReply => {
                let write = async { io!(&mut passing, io => io.write(acceptor.outgoing()).await) };
                match in_time(clock, acceptor.deadline(), write).await {
                    Some(Ok(n)) => match acceptor.on_sent(now(), n) {
                        Ok(accept) => accept,
                        Err(misuse) => return Passage::lost(&peer, &io::Error::other(misuse)),
                    },
                    Some(Err(error)) => return Passage::lost(&peer, &error),
                    None => acceptor.on_timeout(now()),
                }
            }
            Accept::ShutWrite => {
                let shut = async { io!(&mut passing, io => io.shutdown().await) };
                match in_time(clock, acceptor.deadline(), shut).await {
                    Some(Ok(())) => advance(&mut inbox, |input| acceptor.on_bytes(now(), input)),
                    Some(Err(error)) => return Passage::lost(&peer, &error),
                    None => acceptor.on_timeout(now()),
                }
            }
            #[cfg(feature = "tls")]
            Accept::StartTls => {
                let (Some(tls), Passing::Plain(socket)) = (&entrance.tls, passing) else {
                    return Passage::Refused("tls_failed", format!("no TLS for {peer}"));
                };
                let shake = tls::accept(tls, inbox.split(), socket);
                match in_time(clock, acceptor.deadline(), shake).await {
                    Some(Ok(stream)) => {
                        passing = Passing::Tls(Box::new(stream));
                        if let Err(misuse) = acceptor.on_tls_done(now()) {
                            return Passage::lost(&peer, &io::Error::other(misuse));
                        }
                        acceptor.on_bytes(now(), &[]).action
                    }
                    Some(Err(error)) => {
                        let error = format!("TLS with {peer} failed: {error}");
                        return Passage::Refused("tls_failed", error);
                    }
                    None => match acceptor.on_timeout(now()) {
                        Accept::Refuse(refusal) => {
                            return Passage::Refused("refused", refusal.to_string());
                        }
                        _ => return Passage::Probe,
                    },
                }
            }
            Accept::Refuse(refusal) => return Passage::Refused("refused", refusal.to_string()),
            Accept::Ready(origin) => {
                let layers = passing.layers();
                let accepted = Accepted {
                    origin,
                    #[cfg(feature = "tls")]
                    tls: passing.tls_peer(),
                };
                let accepted = Some(Arc::new(accepted));
                return Passage::Session(passing, Arrival { peer, accepted, rest: inbox, layers });
            }
            // `Close`. The others ask for what was done already, and never come.
            _ => return Passage::Probe,
        };
    }
}

impl Passing {
    const fn layers(&self) -> Layers {
        match self {
            Self::Plain(_) => Layers::Plain,
            #[cfg(feature = "tls")]
            Self::Tls(_) => Layers::Data,
        }
    }

    #[cfg(feature = "tls")]
    fn tls_peer(&self) -> Option<TlsPeer> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(TlsPeer::of(stream.get_ref().1)),
        }
    }
}

impl Passage {
    fn lost(peer: &Peer, error: &io::Error) -> Self {
        Self::Refused("lost", format!("{peer} was lost before its session: {error}"))
    }
}

/// Gives an input what the inbox holds. What is used of it leaves the inbox.
fn advance(inbox: &mut BytesMut, input: impl FnOnce(&[u8]) -> Step<Accept>) -> Accept {
    let Step { consumed, action } = input(inbox);
    inbox.advance(consumed);
    action
}

/// `None` when the deadline comes first.
async fn in_time<T>(clock: Clock, deadline: Option<Timestamp>, work: impl Future<Output = T>) -> Option<T> {
    match deadline.and_then(|deadline| clock.instant(deadline)) {
        Some(deadline) => timeout_at(Instant::from_std(deadline), work).await.ok(),
        None => Some(work.await),
    }
}
