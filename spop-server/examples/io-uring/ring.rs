//! What is asked of the kernel. It is given addresses, and what is there must stay until it is done: the unsafe code is here.
#![allow(unsafe_code, reason = "io_uring works with addresses")]

use std::{
    io::{self, PipeReader},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _},
    sync::atomic::{AtomicU8, AtomicU16, Ordering},
    time::Duration,
};

use io_uring::{IoUring, cqueue, opcode, squeue::Entry, types};

/// Operations that are submitted at once.
const ENTRIES: u32 = 1024;
/// Receive buffers; a power of two. The fewer the kernel takes in turn, the more of them stay in the processor's cache.
const BUFFERS: u16 = 64;
/// The longest receive. So long that the allocator maps each buffer: what was never received into takes no memory.
const SIZE: usize = 128 * 1024;
/// The space before what was received, for the leftover of earlier input.
pub(super) const HEADROOM: usize = 16 * 1024;
const GROUP: u16 = 1;
/// What an operation is for.
pub(super) const ACCEPT: u64 = 0;
pub(super) const RECEIVE: u64 = 1;
pub(super) const SEND: u64 = 2;
pub(super) const WAKE: u64 = 3;
const CANCEL: u64 = 4;
/// Where the bytes go that end a wait.
static WAKES: AtomicU8 = AtomicU8::new(0);

#[repr(align(4096))]
struct Entries(#[allow(dead_code, reason = "the kernel reads them")] [types::BufRingEntry; BUFFERS as usize]);

/// To be dropped when no operation is under way: the kernel ends them some time after the ring was closed.
pub(super) struct Ring {
    uring: IoUring,
    /// The ring of free buffers, and its tail.
    free: Box<MaybeUninit<Entries>>,
    tail: u16,
    buffers: Vec<Box<[u8]>>,
    /// What is being sent, by the key of the connection.
    sends: Vec<Vec<u8>>,
}

/// An operation has ended, or goes on and has something to report.
pub(super) struct Completion {
    pub(super) kind: u64,
    pub(super) key: usize,
    /// An error is `Interrupted` if nothing has failed: the operation was cancelled, or there was no buffer for it.
    pub(super) result: io::Result<usize>,
    pub(super) accepted: Option<TcpStream>,
    pub(super) buffer: Option<u16>,
    pub(super) goes_on: bool,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(8 * ENTRIES);
        let uring = builder.build(ENTRIES)?;
        let mut free = Box::new(MaybeUninit::<Entries>::zeroed());
        let address = free.as_mut_ptr() as u64;
        // SAFETY: there are so many entries, aligned to pages, until the ring is dropped.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, BUFFERS, GROUP, 0)? };
        let buffers = (0..BUFFERS).map(|_| vec![0; HEADROOM + SIZE].into()).collect();
        let mut ring = Self { uring, free, tail: 0, buffers, sends: Vec::new() };
        (0..BUFFERS).for_each(|id| ring.give_back(id));
        Ok(ring)
    }

    /// A buffer that the kernel has received into, behind the headroom.
    pub(super) fn buffer(&mut self, id: u16) -> &mut [u8] {
        self.buffers.get_mut(usize::from(id)).map(|buffer| &mut **buffer).unwrap_or_default()
    }

    /// Lets the kernel receive into a buffer again.
    pub(super) fn give_back(&mut self, id: u16) {
        let Some(space) = self.buffer(id).get_mut(HEADROOM..) else { return };
        let (address, length) = (space.as_mut_ptr() as u64, space.len() as u32);
        let entries = self.free.as_mut_ptr().cast::<types::BufRingEntry>();
        let index = usize::from(self.tail % BUFFERS);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: there are so many entries, zeros are valid, and the kernel reads this one once the tail is behind it. The
        // buffer lives as long as the ring, and is not borrowed until the kernel has received into it.
        unsafe {
            let entry = &mut *entries.add(index);
            entry.set_addr(address);
            entry.set_len(length);
            entry.set_bid(id);
            (*types::BufRingEntry::tail(entries).cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }

    /// Accepts until that is cancelled or fails.
    pub(super) fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        self.push(opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).build(), ACCEPT, 0)
    }

    /// Receives until that is cancelled or fails, or there is no buffer.
    pub(super) fn receive(&mut self, stream: &TcpStream, key: usize) -> io::Result<()> {
        self.push(opcode::RecvMulti::new(types::Fd(stream.as_raw_fd()), GROUP).build(), RECEIVE, key)
    }

    /// Sends. The send before it must have ended.
    pub(super) fn send(&mut self, stream: &TcpStream, bytes: &[u8], key: usize) -> io::Result<()> {
        self.sends.resize_with(self.sends.len().max(key + 1), Vec::new);
        let Some(send) = self.sends.get_mut(key).filter(|send| send.is_empty()) else { return Ok(()) };
        send.extend_from_slice(bytes);
        let fd = types::Fd(stream.as_raw_fd());
        let entry = opcode::Send::new(fd, send.as_ptr(), send.len() as u32).build();
        self.push(entry, SEND, key)
    }

    /// Reads a byte.
    pub(super) fn wait_for_wake(&mut self, pipe: &PipeReader) -> io::Result<()> {
        self.push(opcode::Read::new(types::Fd(pipe.as_raw_fd()), WAKES.as_ptr(), 1).build(), WAKE, 0)
    }

    pub(super) fn cancel(&mut self, kind: u64, key: usize) -> io::Result<()> {
        self.push(opcode::AsyncCancel::new((key as u64) << 3 | kind).build(), CANCEL, 0)
    }

    fn push(&mut self, entry: Entry, kind: u64, key: usize) -> io::Result<()> {
        let entry = entry.user_data((key as u64) << 3 | kind);
        // SAFETY: it points to a static, to receive buffers, or to bytes that stay as they are until their send has ended.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.uring.submit()?;
        }
        Ok(())
    }

    /// Submits what was queued, and waits for completions.
    pub(super) fn wait(&mut self, time: Option<Duration>) -> io::Result<Vec<Completion>> {
        let time = time.map(types::Timespec::from);
        let args = types::SubmitArgs::new();
        let args = time.as_ref().map_or(args, |time| args.timespec(time));
        match self.uring.submitter().submit_with_args(1, &args) {
            // ETIME; EINTR; EBUSY: completions are to be taken first.
            Err(error) if matches!(error.raw_os_error(), Some(62 | 4 | 16)) => {}
            result => _ = result?,
        }
        let sends = &mut self.sends;
        let completion = |entry: cqueue::Entry| {
            let (kind, key) = (entry.user_data() & 7, (entry.user_data() >> 3) as usize);
            if let (SEND, Some(send)) = (kind, sends.get_mut(key)) {
                *send = Vec::new();
            }
            let result = match entry.result() {
                // ENOBUFS, ECANCELED.
                -105 | -125 => Err(io::ErrorKind::Interrupted.into()),
                result => usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)),
            };
            let accepted = (kind == ACCEPT && result.is_ok()).then(|| entry.result());
            // SAFETY: the kernel has just opened it, and nothing else knows it.
            let accepted = accepted.map(|fd| unsafe { TcpStream::from_raw_fd(fd) });
            let (buffer, goes_on) = (cqueue::buffer_select(entry.flags()), cqueue::more(entry.flags()));
            Completion { kind, key, result, accepted, buffer, goes_on }
        };
        Ok(self.uring.completion().map(completion).collect())
    }
}
