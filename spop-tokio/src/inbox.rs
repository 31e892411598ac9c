//! Reading without a buffer for each connection.

use std::{
    cell::Cell,
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What one read takes at most.
const READ: usize = 64 * 1024;

/// Room for a read in a buffer that handlers still use the front of.
const ROOM: usize = 16 * 1024;

/// A leftover up to this size is copied to the front of the next read. A longer one gets the next read behind it, so
/// that a frame which arrives in many small pieces is not copied for each of them.
const SMALL: usize = 4 * 1024;

thread_local! {
    /// Where the connections of a thread read, one after the other. Frames are slices of it.
    static SCRATCH: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// What a connection has received and not used: nothing, as a rule.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    rest: BytesMut,
    /// The buffer that is out is the thread's.
    scratch: bool,
    /// The rest came with the connection, and nobody has looked at it.
    fresh: bool,
}

impl From<BytesMut> for Inbox {
    fn from(rest: BytesMut) -> Self {
        let fresh = !rest.is_empty();
        Self { rest, scratch: false, fresh }
    }
}

impl Inbox {
    /// Reads once. The buffer that comes back begins with the rest, and goes to [`keep`](Self::keep) after use.
    #[inline]
    pub(crate) fn poll_read<I: AsyncRead + Unpin>(
        &mut self,
        io: &mut I,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(BytesMut, usize)>> {
        if self.rest.len() > SMALL {
            self.rest.reserve(ROOM);
            let n = ready!(pin!(io.read_buf(&mut self.rest)).poll(cx))?;
            return Poll::Ready(Ok((self.take(), n)));
        }
        let mut buffer = SCRATCH.take();
        // From the start again if nobody uses the buffer; else what is behind the part that is in use.
        if !buffer.try_reclaim(READ) && buffer.capacity() < ROOM {
            buffer.reserve(READ);
        }
        buffer.extend_from_slice(&self.rest);
        let read = pin!(io.read_buf(&mut buffer)).poll(cx);
        match read {
            Poll::Ready(Ok(n)) => {
                self.rest = BytesMut::new();
                self.scratch = true;
                Poll::Ready(Ok((buffer, n)))
            }
            // The rest is still where it was.
            Poll::Ready(Err(error)) => {
                put_back(buffer);
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                put_back(buffer);
                Poll::Pending
            }
        }
    }

    /// Whether the rest is to be used before anything is read.
    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The rest, to be used without a read. It goes to [`keep`](Self::keep) as well.
    pub(crate) fn take(&mut self) -> BytesMut {
        (self.scratch, self.fresh) = (false, false);
        std::mem::take(&mut self.rest)
    }

    /// Keeps what is left of a buffer, and no memory beyond that.
    #[inline]
    pub(crate) fn keep(&mut self, buffer: BytesMut) {
        if self.scratch {
            if !buffer.is_empty() {
                self.rest = BytesMut::from(&*buffer);
            }
            put_back(buffer);
        } else if buffer.len() > SMALL {
            self.rest = buffer;
        } else if !buffer.is_empty() {
            // Of the memory of a long frame, the little behind it keeps none.
            self.rest = BytesMut::from(&*buffer);
        }
    }
}

#[inline]
fn put_back(mut buffer: BytesMut) {
    buffer.clear();
    SCRATCH.set(buffer);
}
