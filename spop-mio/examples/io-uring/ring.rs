//! What is asked of the kernel.
//!
//! The unsafe code of this example is here and in `buffers`: the kernel is given addresses, and what is there must stay there
//! until it is done. What it receives goes to a pool that lives as long as the ring; what it sends belongs to a connection that
//! is not dropped before the last of its operations has ended.

use std::{
    io,
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _},
    time::Duration,
};

use io_uring::{IoUring, opcode, squeue, types};

use super::buffers::{Buffers, GROUP};

/// Operations that can be asked for at once.
const ENTRIES: u32 = 1024;
/// Buffers kept for sends to come.
const SPARE: usize = 256;

/// There is something to read.
const POLLIN: u32 = 1;
/// Errors that are no failure of a connection.
const ENOBUFS: i32 = 105;
const ECANCELED: i32 = 125;
/// Errors of a wait that are none.
const ETIME: i32 = 62;
const EBUSY: i32 = 16;

/// What an operation is for, and the key of its connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    Accept,
    Receive(usize),
    Send(usize),
    Drain,
    Other,
}

impl Operation {
    const fn user_data(self) -> u64 {
        match self {
            Self::Accept => 0,
            Self::Receive(key) => (key as u64) << 2 | 1,
            Self::Send(key) => (key as u64) << 2 | 2,
            Self::Other => 3,
            Self::Drain => 4,
        }
    }

    const fn of(user_data: u64) -> Self {
        let key = (user_data >> 2) as usize;
        match user_data & 3 {
            0 if key == 0 => Self::Accept,
            0 => Self::Drain,
            1 => Self::Receive(key),
            2 => Self::Send(key),
            _ => Self::Other,
        }
    }
}

/// An operation that has ended, or that goes on and has something to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) operation: Operation,
    pub(super) result: i32,
    pub(super) flags: u32,
}

impl Completion {
    /// Whether a receive has ended because there were no buffers.
    pub(super) const fn wants_buffers(&self) -> bool {
        self.result == -ENOBUFS
    }

    /// Whether an operation has ended because it was asked to.
    pub(super) const fn is_cancelled(&self) -> bool {
        self.result == -ECANCELED
    }
}

pub(super) struct Ring {
    uring: IoUring,
    pub(super) buffers: Buffers,
    spare: Vec<Vec<u8>>,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(8 * ENTRIES)
            .build(ENTRIES)
            .map_err(|error| io::Error::new(error.kind(), format!("no io_uring: {error}")))?;
        let buffers = Buffers::new(&uring)?;
        Ok(Self { uring, buffers, spare: Vec::new() })
    }

    pub(super) fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).build();
        self.push(&accept, Operation::Accept)
    }

    pub(super) fn stop_accepting(&mut self) -> io::Result<()> {
        let cancel = opcode::AsyncCancel::new(Operation::Accept.user_data()).build();
        self.push(&cancel, Operation::Other)
    }

    /// Completes when there is something to read.
    pub(super) fn wait_for_drain(&mut self, drain: &impl AsFd) -> io::Result<()> {
        let fd = types::Fd(drain.as_fd().as_raw_fd());
        self.push(&opcode::PollAdd::new(fd, POLLIN).build(), Operation::Drain)
    }

    /// Receives until it is stopped or runs out of buffers.
    pub(super) fn receive(&mut self, stream: &TcpStream, key: usize) -> io::Result<()> {
        let receive = opcode::RecvMulti::new(types::Fd(stream.as_raw_fd()), GROUP).build();
        self.push(&receive, Operation::Receive(key))
    }

    pub(super) fn stop_receiving(&mut self, key: usize) -> io::Result<()> {
        let cancel = opcode::AsyncCancel::new(Operation::Receive(key).user_data()).build();
        self.push(&cancel, Operation::Other)
    }

    /// Sends bytes that stay where they are, unchanged, until the send has ended.
    pub(super) fn send(&mut self, stream: &TcpStream, bytes: &[u8], key: usize) -> io::Result<()> {
        let fd = types::Fd(stream.as_raw_fd());
        let send = opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32).build();
        self.push(&send, Operation::Send(key))
    }

    /// An empty buffer to send from. Connections that do not send hold none.
    pub(super) fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes back a buffer whose send has ended.
    pub(super) fn reuse(&mut self, out: &mut Vec<u8>) {
        let mut out = std::mem::take(out);
        out.clear();
        if self.spare.len() < SPARE {
            self.spare.push(out);
        }
    }

    fn push(&mut self, entry: &squeue::Entry, operation: Operation) -> io::Result<()> {
        let entry = entry.clone().user_data(operation.user_data());
        loop {
            // SAFETY: receives go to the pool. The bytes of a send belong to a connection that leaves them alone and stays
            // until the send has ended.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.uring.submit()?;
        }
    }

    /// Submits what was asked for, and waits until something has completed or the time is over.
    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let timeout = timeout.map(types::Timespec::from);
        let mut args = types::SubmitArgs::new();
        if let Some(timeout) = &timeout {
            args = args.timespec(timeout);
        }
        match self.uring.submitter().submit_with_args(1, &args) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // EBUSY: completions are to be taken first.
            Err(error) if matches!(error.raw_os_error(), Some(ETIME | EBUSY)) => {}
            other => drop(other?),
        }
        completions.extend(self.uring.completion().map(|entry| Completion {
            operation: Operation::of(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        }));
        Ok(())
    }

    /// The connection that an accept has returned.
    pub(super) fn stream(completion: &Completion) -> Option<TcpStream> {
        // SAFETY: the kernel has just opened it for this process, and nothing else knows it.
        (completion.result >= 0).then(|| unsafe { TcpStream::from_raw_fd(completion.result) })
    }
}
