//! The memory that the kernel receives into: buffers that it chooses from, listed in a ring that it shares.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};

/// Buffers at first. The kernel takes them in turn: as few as are needed stay in the processor's cache.
const FEW: u16 = 16;
/// Buffers at most; a power of two.
const MANY: u16 = 512;
/// So long that the allocator maps each from the system: memory that nothing was received into costs nothing.
const SIZE: u32 = 128 * 1024;
/// What lies before the bytes that were received, for what is left of a frame that began before them.
pub(super) const HEADROOM: usize = 16 * 1024;
/// The number by which operations name the buffers.
pub(super) const GROUP: u16 = 1;

/// Buffers that receives go to. A connection that waits has none.
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    tail: u16,
    /// Each an allocation of its own: only what the kernel has given back is borrowed.
    memory: Vec<Box<[u8]>>,
}

impl Buffers {
    /// To be dropped after the ring.
    pub(super) fn new(ring: &IoUring) -> io::Result<Self> {
        // SAFETY: the size is not zero.
        let zeros = unsafe { alloc_zeroed(LAYOUT) };
        let entries = NonNull::new(zeros.cast()).unwrap_or_else(|| handle_alloc_error(LAYOUT));
        let mut buffers = Self { entries, tail: 0, memory: Vec::new() };
        // SAFETY: the memory is aligned to pages, holds so many entries, and is dropped after the ring.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, MANY, GROUP, 0)? };
        buffers.add(FEW);
        Ok(buffers)
    }

    /// There were too few of them: doubles their number.
    pub(super) fn grow(&mut self) {
        let count = self.memory.len() as u16;
        self.add(count.min(MANY - count));
    }

    fn add(&mut self, count: u16) {
        for _ in 0..count {
            self.memory.push(vec![0; HEADROOM + SIZE as usize].into());
            self.give_back(self.memory.len() as u16 - 1);
        }
    }

    /// A buffer that the kernel has received into: what it received lies behind the headroom.
    pub(super) fn get(&mut self, id: u16) -> &mut [u8] {
        self.memory.get_mut(usize::from(id)).map(|buffer| &mut **buffer).unwrap_or_default()
    }

    /// Lets the kernel receive into a buffer again.
    pub(super) fn give_back(&mut self, id: u16) {
        let Some(room) = self.get(id).get_mut(HEADROOM..) else { return };
        let address = room.as_mut_ptr() as u64;
        let slot = usize::from(self.tail % MANY);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: there are `MANY` entries, each holds zeros or an entry, and the kernel reads this one once the tail is
        // behind it. The buffer is neither moved nor dropped before the ring, nor borrowed until the kernel has
        // received into it.
        unsafe {
            let entry = self.entries.add(slot).as_mut();
            entry.set_addr(address);
            entry.set_len(SIZE);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

const LAYOUT: Layout = match Layout::from_size_align(MANY as usize * size_of::<BufRingEntry>(), 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("no layout"),
};

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and the kernel has ended with the ring.
        unsafe { dealloc(self.entries.as_ptr().cast(), LAYOUT) };
    }
}
