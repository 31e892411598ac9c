//! Reading without a buffer for each connection.

use std::{
    cell::Cell,
    io, mem,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The size of a thread's buffer, which bounds one read.
const READ: usize = 64 * 1024;

/// Space for a read in a buffer whose front is in use.
const SPACE: usize = 16 * 1024;

/// An unused rest up to this size is copied to the front of the next read. A longer one gets the next read behind it, so
/// that a frame which arrives in many small pieces is not copied for each of them.
const SMALL: usize = 4 * 1024;

thread_local! {
    /// Where the connections of a thread read, one after the other. Requests share it.
    static SCRATCH: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// What a connection has received and not used: nothing, as a rule.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// In memory of the connection's own.
    rest: Bytes,
    /// The input that was given out lies in the thread's buffer.
    in_scratch: bool,
    /// The rest was read before the session began, and was not given out yet.
    fresh: bool,
}

impl From<BytesMut> for Inbox {
    fn from(rest: BytesMut) -> Self {
        let fresh = !rest.is_empty();
        Self { rest: rest.freeze(), in_scratch: false, fresh }
    }
}

impl Inbox {
    /// Reads once. The input is the rest and the bytes that came, whose number comes with it; what is not used of it goes to
    /// [`keep`](Self::keep).
    #[inline]
    pub(crate) fn poll_read<I: AsyncRead + Unpin>(
        &mut self,
        io: &mut I,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Bytes, usize)>> {
        if self.rest.len() > SMALL {
            return self.poll_read_behind(io, cx);
        }
        let mut buffer = SCRATCH.take();
        // From the start again if no request uses the buffer; else behind the part that is in use.
        if !buffer.try_reclaim(READ) && buffer.capacity() < SPACE {
            buffer.reserve(READ);
        }
        buffer.extend_from_slice(&self.rest);
        let read = pin!(io.read_buf(&mut buffer)).poll(cx);
        let Poll::Ready(Ok(n)) = read else {
            // The rest is still where it was.
            buffer.clear();
            SCRATCH.set(buffer);
            return read.map_ok(|n| (Bytes::new(), n));
        };
        let input = buffer.split().freeze();
        SCRATCH.set(buffer);
        self.rest = Bytes::new();
        (self.in_scratch, self.fresh) = (true, false);
        Poll::Ready(Ok((input, n)))
    }

    /// Reads to the end of a long rest. It is copied only if a request shares its memory, and then once.
    #[inline(never)]
    fn poll_read_behind<I: AsyncRead + Unpin>(
        &mut self,
        io: &mut I,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Bytes, usize)>> {
        let rest = mem::take(&mut self.rest).try_into_mut();
        let mut buffer = rest.unwrap_or_else(|shared| BytesMut::from(&*shared));
        buffer.reserve(SPACE);
        let read = pin!(io.read_buf(&mut buffer)).poll(cx);
        self.rest = buffer.freeze();
        let n = ready!(read)?;
        Poll::Ready(Ok((self.take(), n)))
    }

    /// Whether the rest is to be used before anything is read.
    #[inline]
    pub(crate) const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The rest, without a read. What is not used of it goes to [`keep`](Self::keep) as well.
    pub(crate) fn take(&mut self) -> Bytes {
        (self.in_scratch, self.fresh) = (false, false);
        mem::take(&mut self.rest)
    }

    /// Keeps an input but for its first `used` bytes, and no memory beyond that.
    #[inline]
    pub(crate) fn keep(&mut self, mut input: Bytes, used: usize) {
        if used >= input.len() {
            return;
        }
        let rest = input.split_off(used);
        // A rest does not keep the memory of a longer frame before it.
        let copied = self.in_scratch || rest.len() <= SMALL || rest.len() <= used;
        self.rest = if copied { Bytes::copy_from_slice(&rest) } else { rest };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)] // A test that panics has failed.
mod tests {
    use std::task::Waker;

    use super::*;

    /// Reads what `bytes` holds, at once.
    fn read(inbox: &mut Inbox, mut bytes: &[u8]) -> Bytes {
        let before = bytes.len();
        match inbox.poll_read(&mut bytes, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok((input, n))) => {
                assert_eq!(n, before - bytes.len());
                input
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_used_comes_again_in_front_of_the_next_read() {
        let mut inbox = Inbox::default();
        let input = read(&mut inbox, b"abcdef");
        assert_eq!(input, b"abcdef"[..]);
        inbox.keep(input, 4);
        let input = read(&mut inbox, b"gh");
        assert_eq!(input, b"efgh"[..]);
        inbox.keep(input, 0);
        assert_eq!(inbox.take(), b"efgh"[..]);
        // Nothing is kept of an input that was used.
        inbox.keep(Bytes::from_static(b"efgh"), 4);
        assert_eq!(inbox.take(), b""[..]);
    }

    #[test]
    fn connections_share_the_buffer_of_their_thread_and_own_their_rests() {
        let (mut one, mut two) = (Inbox::default(), Inbox::default());
        let input = read(&mut one, b"one");
        let place = input.as_ptr();
        one.keep(input, 0);
        let input = read(&mut two, b"two");
        assert_eq!(input.as_ptr(), place, "from the start again");
        // A request that is kept keeps its bytes.
        let request = input.slice(1..);
        two.keep(input, 3);
        let input = read(&mut one, b"!");
        assert_ne!(input.as_ptr(), place);
        assert_eq!((&*input, &*request), (&b"one!"[..], &b"wo"[..]));
        drop((input, request));
        assert_eq!(read(&mut two, b"x").as_ptr(), place, "from the start again");
    }

    #[test]
    fn a_long_frame_is_not_copied_for_each_of_its_pieces() {
        let mut inbox = Inbox::default();
        let (mut whole, mut moves, mut place) = (vec![b'x'; SMALL + 1], 0, None);
        let input = read(&mut inbox, &whole);
        inbox.keep(input, 0);
        for piece in 0..1_000_u32 {
            let piece = piece.to_be_bytes().repeat(16);
            whole.extend_from_slice(&piece);
            let input = read(&mut inbox, &piece);
            assert!(input == whole);
            moves += usize::from(place.replace(input.as_ptr()) != Some(input.as_ptr()));
            inbox.keep(input, 0);
        }
        // The memory doubles as it grows; it may move then.
        assert!(moves <= 8, "moved {moves} times for 1000 pieces");
    }

    #[test]
    fn a_long_rest_that_a_request_shares_is_copied_once() {
        let mut inbox = Inbox::from(BytesMut::from(&[b'x'; 3 * SMALL][..]));
        assert!(inbox.is_fresh());
        let input = inbox.take();
        assert!(!inbox.is_fresh());
        let request = input.slice(..SMALL);
        let rest = input[SMALL..].as_ptr();
        inbox.keep(input, SMALL);
        let input = read(&mut inbox, b"y");
        assert_eq!((input.len(), input.ends_with(b"xy")), (2 * SMALL + 1, true));
        assert_ne!(input.as_ptr(), rest);
        inbox.keep(input, 0);
        // This read may grow the buffer, which may move it; then there is space for the next.
        let input = read(&mut inbox, b"z");
        let place = input.as_ptr();
        inbox.keep(input, 0);
        assert_eq!(read(&mut inbox, b"z").as_ptr(), place);
        assert_eq!(request, [b'x'; SMALL][..]);
    }

    #[test]
    fn a_short_rest_does_not_keep_the_memory_of_what_came_before_it() {
        let mut inbox = Inbox::from(BytesMut::from(&[b'x'; 3 * SMALL][..]));
        let input = inbox.take();
        let place = input[2 * SMALL..].as_ptr();
        inbox.keep(input, 2 * SMALL);
        assert_ne!(inbox.take().as_ptr(), place);
        let mut inbox = Inbox::from(BytesMut::from(&vec![b'x'; 10 * SMALL][..]));
        let input = inbox.take();
        let place = input[8 * SMALL..].as_ptr();
        inbox.keep(input, 8 * SMALL);
        assert_ne!(inbox.take().as_ptr(), place, "a rest that is not short either");
    }
}
