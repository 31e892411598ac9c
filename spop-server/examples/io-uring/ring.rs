//! Operations of the kernel. The memory that they use must stay until they have ended: the unsafe code is here.
#![allow(unsafe_code, reason = "io_uring works with addresses")]

use std::sync::atomic::{AtomicU16, Ordering};
use std::{io, mem::take, os::fd::AsFd, os::fd::AsRawFd, ptr::null_mut, time::Duration};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

/// Receive buffers; a power of two. The fewer the kernel takes in turn, the more of them stay in the processor's cache.
const BUFFERS: u16 = 64;
/// The longest receive. So long that the allocator maps each buffer: what was never received into takes no memory.
const SIZE: u32 = 128 * 1024;
/// The space before what was received, for the leftover of earlier input.
pub(super) const HEADROOM: usize = 16 * 1024;

#[repr(align(4096))]
struct Page([u64; 512]);

/// To be dropped when no operation is under way: the kernel ends them some time after the ring was closed.
pub(super) struct Ring {
    uring: IoUring,
    free: Box<Page>, // A ring of the buffers that the kernel can receive into.
    tail: u16,
    buffers: Vec<Box<[u8]>>,
    last: Option<u16>,   // The buffer of the last completion.
    sends: Vec<Vec<u8>>, // What is being sent, by key.
}

/// How an operation has ended.
pub(super) enum Completion<'r> {
    /// There is something to read or to accept.
    Ready,
    /// What was received is behind the headroom. The error is `Interrupted` if there was no buffer.
    Received(io::Result<&'r mut [u8]>),
    Sent(io::Result<usize>),
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let uring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(1024)?;
        let mut free = Box::new(Page([0; 512]));
        // SAFETY: there is memory for so many entries, of 16 bytes, until the ring is dropped.
        unsafe { uring.submitter().register_buf_ring_with_flags(free.0.as_mut_ptr() as u64, BUFFERS, 0, 0)? };
        let buffers = (0..BUFFERS).map(|_| vec![0; HEADROOM + SIZE as usize].into()).collect();
        let mut ring = Self { uring, free, tail: 0, buffers, last: None, sends: Vec::new() };
        (0..BUFFERS).for_each(|id| ring.give_back(id));
        Ok(ring)
    }

    /// Lets the kernel receive into a buffer.
    fn give_back(&mut self, id: u16) {
        let Some(buffer) = self.buffers.get_mut(usize::from(id)) else { return };
        let entries = self.free.0.as_mut_ptr().cast::<types::BufRingEntry>();
        // SAFETY: there are so many entries, zeros are valid, and the kernel reads this one once the tail is behind it. The
        // buffer lives as long as the ring, and is not borrowed until the kernel has received into it.
        unsafe {
            let entry = &mut *entries.add(usize::from(self.tail % BUFFERS));
            entry.set_addr(buffer.as_mut_ptr().wrapping_add(HEADROOM) as u64);
            entry.set_len(SIZE);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            (*types::BufRingEntry::tail(entries).cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }

    pub(super) fn poll(&mut self, file: &impl AsRawFd, key: usize) -> io::Result<()> {
        self.push(opcode::PollAdd::new(types::Fd(file.as_raw_fd()), 1).build(), key, 0) // POLLIN
    }

    pub(super) fn receive(&mut self, stream: &impl AsRawFd, key: usize) -> io::Result<()> {
        let receive = opcode::Recv::new(types::Fd(stream.as_raw_fd()), null_mut(), SIZE).buf_group(0);
        self.push(receive.build().flags(squeue::Flags::BUFFER_SELECT), key, 1)
    }

    /// Sends a copy. The send before it must have ended.
    pub(super) fn send(&mut self, stream: &impl AsRawFd, key: usize, bytes: &[u8]) -> io::Result<()> {
        self.sends.resize_with(self.sends.len().max(key + 1), Vec::new);
        let Some(send) = self.sends.get_mut(key).filter(|send| send.is_empty()) else { return Ok(()) };
        send.extend_from_slice(bytes);
        let (address, length) = (send.as_ptr(), send.len() as u32);
        self.push(opcode::Send::new(types::Fd(stream.as_raw_fd()), address, length).build(), key, 2)
    }

    fn push(&mut self, entry: squeue::Entry, key: usize, kind: u64) -> io::Result<()> {
        let entry = entry.user_data((key as u64) << 2 | kind);
        // SAFETY: it points to receive buffers, or to bytes that stay as they are until their send has ended.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.uring.submit()?;
        }
        Ok(())
    }

    /// Ends the operations of a socket, a send after it has sent what it can without waiting.
    pub(super) fn close(&mut self, socket: &impl AsFd) -> io::Result<()> {
        self.uring.submit()?;
        let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        Ok(())
    }

    /// Submits what was started, and waits until something has ended.
    pub(super) fn wait(&mut self, time: Option<Duration>) -> io::Result<()> {
        let time = time.map(types::Timespec::from);
        let args = time.iter().fold(types::SubmitArgs::new(), |args, time| args.timespec(time));
        match self.uring.submitter().submit_with_args(1, &args) {
            // ETIME; EINTR; EBUSY: completions are to be taken first.
            Err(error) if !matches!(error.raw_os_error(), Some(62 | 4 | 16)) => Err(error),
            _ => Ok(()),
        }
    }

    /// The next operation that has ended: its key, and its result.
    pub(super) fn completed(&mut self) -> Option<(usize, Completion<'_>)> {
        self.last.take().into_iter().for_each(|id| self.give_back(id));
        let entry = self.uring.completion().next()?;
        let (key, code) = ((entry.user_data() >> 2) as usize, entry.result());
        let error = if code == -105 { 4 } else { -code }; // ENOBUFS is reported as EINTR.
        let result = usize::try_from(code).map_err(|_| io::Error::from_raw_os_error(error));
        let completion = match entry.user_data() & 3 {
            0 => Completion::Ready,
            1 => {
                self.last = cqueue::buffer_select(entry.flags());
                let buffer = self.last.and_then(|id| self.buffers.get_mut(usize::from(id)));
                let received = |n| buffer.and_then(|all| all.get_mut(..HEADROOM + n)).unwrap_or_default();
                Completion::Received(result.map(received))
            }
            _ => {
                self.sends.get_mut(key).map(take);
                Completion::Sent(result)
            }
        };
        Some((key, completion))
    }
}
