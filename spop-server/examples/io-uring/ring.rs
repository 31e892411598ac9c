//! Operations of the kernel. The memory that they use must stay until they have ended: the unsafe code is here.
#![allow(unsafe_code, reason = "io_uring works with addresses")]

use std::{
    io,
    mem::{MaybeUninit, take},
    os::fd::AsRawFd,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

/// Operations that are submitted at once.
const ENTRIES: u32 = 1024;
/// Receive buffers; a power of two. The fewer the kernel takes in turn, the more of them stay in the processor's cache.
const BUFFERS: u16 = 64;
/// The longest receive. So long that the allocator maps each buffer: what was never received into takes no memory.
const SIZE: u32 = 128 * 1024;
/// The space before what was received, for the leftover of earlier input.
pub(super) const HEADROOM: usize = 16 * 1024;

#[repr(align(4096))]
struct Entries(#[allow(dead_code, reason = "the kernel reads them")] [types::BufRingEntry; BUFFERS as usize]);

/// To be dropped when no operation is under way: the kernel ends them some time after the ring was closed.
pub(super) struct Ring {
    uring: IoUring,
    /// The ring of free buffers, and its tail.
    free: Box<MaybeUninit<Entries>>,
    tail: u16,
    buffers: Vec<Box<[u8]>>,
    /// What is being sent, by key.
    sends: Vec<Vec<u8>>,
}

/// An operation has ended. It has the key that it was started with.
pub(super) enum Completion {
    Ready(usize),
    /// The buffer, and how many bytes were received. An error is `Interrupted` if there was no buffer.
    Received(usize, Option<u16>, io::Result<usize>),
    Sent(usize, io::Result<usize>),
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        let uring = builder.setup_single_issuer().setup_defer_taskrun().build(ENTRIES)?;
        let mut free = Box::new(MaybeUninit::<Entries>::zeroed());
        let address = free.as_mut_ptr() as u64;
        // SAFETY: there are so many entries, aligned to pages, until the ring is dropped.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, BUFFERS, 0, 0)? };
        let buffers = (0..BUFFERS).map(|_| vec![0; HEADROOM + SIZE as usize].into()).collect();
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
        let address = self.buffer(id).as_mut_ptr().wrapping_add(HEADROOM) as u64;
        let entries = self.free.as_mut_ptr().cast::<types::BufRingEntry>();
        // SAFETY: there are so many entries, zeros are valid, and the kernel reads this one once the tail is behind it. The
        // buffer lives as long as the ring, and is not borrowed until the kernel has received into it.
        unsafe {
            let entry = &mut *entries.add(usize::from(self.tail % BUFFERS));
            entry.set_addr(address);
            entry.set_len(SIZE);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            (*types::BufRingEntry::tail(entries).cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }

    /// Waits until there is something to read or to accept.
    pub(super) fn poll(&mut self, file: &impl AsRawFd, key: usize) -> io::Result<()> {
        self.push(&opcode::PollAdd::new(types::Fd(file.as_raw_fd()), 1).build(), key, 0)
    }

    pub(super) fn receive(&mut self, stream: &impl AsRawFd, key: usize) -> io::Result<()> {
        let fd = types::Fd(stream.as_raw_fd());
        let receive = opcode::Recv::new(fd, std::ptr::null_mut(), SIZE).buf_group(0).build();
        self.push(&receive.flags(squeue::Flags::BUFFER_SELECT), key, 1)
    }

    /// Sends. The send before it must have ended.
    pub(super) fn send(&mut self, stream: &impl AsRawFd, key: usize, bytes: &[u8]) -> io::Result<()> {
        self.sends.resize_with(self.sends.len().max(key + 1), Vec::new);
        let Some(send) = self.sends.get_mut(key).filter(|send| send.is_empty()) else { return Ok(()) };
        send.extend_from_slice(bytes);
        let (address, length) = (send.as_ptr(), send.len() as u32);
        self.push(&opcode::Send::new(types::Fd(stream.as_raw_fd()), address, length).build(), key, 2)
    }

    fn push(&mut self, entry: &squeue::Entry, key: usize, kind: u64) -> io::Result<()> {
        let entry = entry.clone().user_data((key as u64) << 2 | kind);
        // SAFETY: it points to receive buffers, or to bytes that stay as they are until their send has ended.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.uring.submit()?;
        }
        Ok(())
    }

    /// Submits what was started, and waits until something has ended.
    pub(super) fn wait(&mut self, time: Option<Duration>) -> io::Result<Vec<Completion>> {
        let time = time.map(types::Timespec::from);
        let args = types::SubmitArgs::new();
        let args = time.as_ref().map_or(args, |time| args.timespec(time));
        match self.uring.submitter().submit_with_args(1, &args) {
            // ETIME; EINTR; EBUSY: completions are to be taken first.
            Err(error) if matches!(error.raw_os_error(), Some(62 | 4 | 16)) => {}
            result => _ = result?,
        }
        let completed = |entry: cqueue::Entry| {
            let (key, buffer) = ((entry.user_data() >> 2) as usize, cqueue::buffer_select(entry.flags()));
            let result = match entry.result() {
                // ENOBUFS.
                -105 => Err(io::ErrorKind::Interrupted.into()),
                result => usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)),
            };
            match entry.user_data() & 3 {
                0 => Completion::Ready(key),
                1 => Completion::Received(key, buffer, result),
                _ => {
                    self.sends.get_mut(key).map(take);
                    Completion::Sent(key, result)
                }
            }
        };
        Ok(self.uring.completion().map(completed).collect())
    }
}
