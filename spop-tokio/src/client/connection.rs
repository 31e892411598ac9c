//! One connection of an engine.

use std::{future::poll_fn, io, pin::Pin, sync::Arc, task::Poll};

use bytes::BytesMut;
use futures_util::task::AtomicWaker;
use spop_core::{
    ConnectionId, Interest, Misuse, Timestamp,
    accept::{Open, Opening},
    engine::pool::Pool,
    link::{Layers, Progress},
};
use spop_server::{Driver, Protocol, Turn};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tracing::debug;

use super::{Target, shared::Shared};
#[cfg(feature = "tls")]
use crate::tls::ClientTlsStream;
use crate::{
    stream::Stream,
    transport::{self, IoState, Memory, Polled},
};

/// Opens a connection and drives it to its end.
pub(super) async fn run(shared: Arc<Shared>, id: ConnectionId, target: Target, waker: Arc<AtomicWaker>) {
    let end = PoolEnd {
        shared: Arc::clone(&shared),
        id,
        interest: Interest::default(),
        out: BytesMut::new(),
        error: None,
    };
    match open(&shared, &target).await {
        Ok(stream) => {
            shared.connected();
            debug!(name: "agent_connected", %target, connection = id.0, "agent connected");
            let error = match stream {
                Opened::Plain(stream) => drive(stream, Layers::Plain, end, &waker).await,
                #[cfg(feature = "tls")]
                Opened::Tls(stream) => drive(*stream, Layers::Data, end, &waker).await,
            };
            shared.disconnected();
            let error = error.as_ref().map(tracing::field::display);
            debug!(name: "agent_disconnected", %target, connection = id.0, error, "agent disconnected");
        }
        Err(error) => {
            shared.unreachable(&target, &error);
            shared.tell(|pool, now| pool.on_transport_error(now, id));
        }
    }
    shared.closed(id);
}

/// A stream on which a session can begin.
enum Opened {
    Plain(Stream),
    #[cfg(feature = "tls")]
    Tls(Box<ClientTlsStream>),
}

/// Connects, and does what comes before the session.
async fn open(shared: &Shared, target: &Target) -> io::Result<Opened> {
    let limit = shared.open.timeout;
    timeout(limit, introduce(shared, target)).await.unwrap_or_else(|_| {
        let late = format!("no session could begin within {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, late))
    })
}

/// Sends the PROXY header, if there is to be one, without a client's address. Then starts TLS, if there is to be.
async fn introduce(shared: &Shared, target: &Target) -> io::Result<Opened> {
    let now = || transport::now(&shared.clock);
    let mut socket = target.connect().await?;
    let mut opening = Opening::new(&shared.open, None, now());
    let mut next = opening.on_connected(now());
    while next == Open::SendHeader {
        let sent = socket.write(opening.outgoing()).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        next = opening.on_sent(now(), sent).map_err(io::Error::other)?;
    }
    #[cfg(feature = "tls")]
    if next == Open::StartTls
        && let Some(tls) = &shared.tls
    {
        let name = tls.name_of(target.host().as_deref())?;
        let stream = crate::tls::connect(tls, name, socket).await?;
        if opening.on_tls_done(now()).map_err(io::Error::other)? == Open::Ready {
            return Ok(Opened::Tls(Box::new(stream)));
        }
        return Err(io::Error::other("TLS was done, and no session can begin"));
    }
    if next == Open::Ready {
        Ok(Opened::Plain(socket))
    } else {
        Err(io::Error::other(format!("cannot go on with {next:?}")))
    }
}

/// Drives a connection to its end. Returns the error of the transport, if it failed.
async fn drive<I: AsyncRead + AsyncWrite + Unpin>(
    mut stream: I,
    layers: Layers,
    end: PoolEnd,
    waker: &AtomicWaker,
) -> Option<io::Error> {
    let shared = Arc::clone(&end.shared);
    shared.tell(|pool, now| pool.on_open_with(now, end.id, layers));
    let (mut driver, mut state) = (Driver::new(end), IoState::default());
    poll_fn(|cx| {
        waker.register(cx.waker());
        driver.ready(true, true);
        driver.protocol_mut().refresh();
        let mut polled = Polled::<_, transport::Unknown>::new(&mut stream, &mut state, cx);
        let turn = Memory::lend(|memory| {
            driver.turn(transport::now(&shared.clock), Some(&mut polled), &mut memory.input, &mut ())
        });
        match turn {
            Turn::Wait => Poll::Pending,
            Turn::Again => {
                transport::yield_turn(cx);
                Poll::Pending
            }
            Turn::Closed | Turn::Over => Poll::Ready(()),
        }
    })
    .await;
    if layers == Layers::Data {
        // HAProxy's side closes at once; TLS gets its close_notify if that can be written without waiting.
        poll_fn(|cx| {
            drop(Pin::new(&mut stream).poll_shutdown(cx));
            Poll::Ready(())
        })
        .await;
    }
    driver.protocol_mut().error.take()
}

/// The most bytes that are copied for a write. An agent that does not read has each of its own frames followed by a copy that cannot
/// be written.
const PIECE: usize = 16 * 1024;

/// A connection of the pool as its driver sees it.
struct PoolEnd {
    shared: Arc<Shared>,
    id: ConnectionId,
    /// As of the last look at the pool. A later change wakes the task.
    interest: Interest,
    /// A copy of the bytes to send, at most [`PIECE`]: the pool is not locked while they are written.
    out: BytesMut,
    error: Option<io::Error>,
}

impl PoolEnd {
    fn refresh(&mut self) {
        self.interest = self.shared.look(|pool| pool.interest(self.id));
    }

    /// Tells the pool something of this connection.
    fn tell<T>(&mut self, now: Timestamp, tell: impl FnOnce(&mut Pool, Timestamp, ConnectionId) -> T) -> T {
        let id = self.id;
        let (told, interest) = self.shared.tell_at(now, |pool, now| (tell(pool, now, id), pool.interest(id)));
        self.interest = interest;
        told
    }
}

impl Protocol<()> for PoolEnd {
    fn interest(&self) -> Interest {
        self.interest
    }

    /// The pool has one timer for all its connections.
    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    fn outgoing(&mut self) -> &[u8] {
        self.out.clear();
        self.shared.look(|pool| {
            let outgoing = pool.outgoing(self.id);
            self.out.extend_from_slice(outgoing.get(..PIECE).unwrap_or(outgoing));
        });
        &self.out
    }

    fn on_bytes(&mut self, now: Timestamp, (): &mut (), input: &[u8], eof: bool) -> usize {
        self.tell(
            now,
            |pool, now, id| {
                if eof { pool.on_input_eof(now, id, input) } else { pool.on_bytes(now, id, input) }
            },
        )
    }

    fn on_read_blocked(&mut self, _: Timestamp, (): &mut ()) {}

    fn on_sent(&mut self, now: Timestamp, (): &mut (), n: usize) -> Result<(), Misuse> {
        self.tell(now, |pool, now, id| pool.on_sent(now, id, n))
    }

    fn on_write_shut(&mut self, now: Timestamp, (): &mut (), progress: Progress) -> Result<(), Misuse> {
        self.tell(now, |pool, now, id| pool.on_write_shut(now, id, progress))
    }

    fn on_transport_error(&mut self, now: Timestamp, (): &mut (), error: &io::Error) {
        self.error = Some(io::Error::new(error.kind(), error.to_string()));
        self.tell(now, Pool::on_transport_error);
    }

    fn on_timeout(&mut self, _: Timestamp, (): &mut ()) {}
}
