//! One connection of an engine.

use std::{future::poll_fn, io, sync::Arc, task::Context};

use bytes::BytesMut;
use futures_util::task::AtomicWaker;
use spop_core::{
    Clock, ConnectionId, Interest, Timestamp,
    accept::{Open, OpenConfig, Opening},
    link::Progress,
};
use tokio::{io::AsyncWriteExt as _, time::timeout};
use tracing::debug;

use super::{Target, shared::Shared};
use crate::{
    inbox::Inbox,
    stream::Stream,
    transfer::{self, End, Transfer},
};

/// Opens a connection and drives it to its end.
pub(super) async fn run(shared: Arc<Shared>, id: ConnectionId, target: Target, waker: Arc<AtomicWaker>) {
    let end = PoolEnd { shared: Arc::clone(&shared), id, out: BytesMut::new() };
    match open(&shared, &target).await {
        Ok(stream) => {
            debug!(name: "agent_connected", %target, connection = id.0, "agent connected");
            shared.tell(|pool, now| pool.on_open(now, id));
            drive(stream, end, &waker).await;
            debug!(name: "agent_disconnected", %target, connection = id.0, "agent disconnected");
        }
        Err(error) => {
            shared.unreachable(&target, &error);
            shared.tell(|pool, now| pool.on_transport_error(now, id));
        }
    }
    shared.closed(id);
}

/// Connects, and sends what comes before the session.
async fn open(shared: &Shared, target: &Target) -> io::Result<Stream> {
    let config = &shared.open;
    let opening = async {
        let mut stream = target.connect().await?;
        introduce(&mut stream, config, &shared.clock).await?;
        Ok(stream)
    };
    timeout(config.timeout, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Sends the PROXY header, if there is to be one: this engine speaks for nobody else.
async fn introduce(stream: &mut Stream, config: &OpenConfig, clock: &Clock) -> io::Result<()> {
    let mut opening = Opening::new(config, None, transfer::now(clock));
    let mut next = opening.on_connected(transfer::now(clock));
    while next == Open::SendHeader {
        let sent = stream.write(opening.outgoing()).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        next = opening.on_sent(transfer::now(clock), sent);
    }
    if next == Open::Ready { Ok(()) } else { Err(io::Error::other(format!("cannot go on with {next:?}"))) }
}

async fn drive(stream: Stream, mut end: PoolEnd, waker: &AtomicWaker) {
    let mut transfer = Transfer::new(stream, Inbox::default());
    poll_fn(|cx| {
        waker.register(cx.waker());
        transfer.poll(&mut end, cx)
    })
    .await;
}

/// A connection of the pool as the loop sees it.
struct PoolEnd {
    shared: Arc<Shared>,
    id: ConnectionId,
    /// A copy of what is to be sent: nobody else waits for the pool while it leaves.
    out: BytesMut,
}

impl End for PoolEnd {
    fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    fn interest(&self) -> Interest {
        self.shared.look(|pool| pool.interest(self.id))
    }

    /// The pool has one timer for all its connections.
    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    fn outgoing(&mut self) -> &[u8] {
        self.out.clear();
        self.shared.look(|pool| self.out.extend_from_slice(pool.outgoing(self.id)));
        &self.out
    }

    fn work(&mut self, _: Timestamp, _: &mut Context<'_>) -> bool {
        false
    }

    fn on_bytes(&mut self, _: Timestamp, _: &mut Context<'_>, inbox: &mut BytesMut, eof: bool) {
        self.shared.tell(|pool, now| {
            if eof { pool.on_input_eof(now, self.id, inbox) } else { pool.on_bytes(now, self.id, inbox) }
        });
    }

    fn on_read_blocked(&mut self, _: Timestamp, _: &mut Context<'_>) {}

    fn on_sent(&mut self, _: Timestamp, _: &mut Context<'_>, n: usize) {
        self.shared.tell(|pool, now| pool.on_sent(now, self.id, n));
    }

    fn on_write_shut(&mut self, _: Timestamp, _: &mut Context<'_>, progress: Progress) {
        self.shared.tell(|pool, now| pool.on_write_shut(now, self.id, progress));
    }

    fn on_transport_error(&mut self, _: Timestamp, _: &mut Context<'_>) {
        self.shared.tell(|pool, now| pool.on_transport_error(now, self.id));
    }

    fn on_timeout(&mut self, _: Timestamp, _: &mut Context<'_>) {}
}
