//! Agents on `io_uring`: accepts, receives and sends are asked of the kernel for many connections with one system call.
//!
//! The unsafe code of this example is in [`Ring`]: the kernel is given addresses, and what is there must stay there until
//! it is done. What it receives goes to a pool that lives as long as the ring; what it sends belongs to a connection that is
//! not dropped before the last of its operations has ended.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;
use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, Clock, ConnectionId, Timestamp, config::Checked,
    frame::MessageIter, link::Progress,
};

/// Operations that can be asked for at once.
const ENTRIES: u32 = 1024;
/// Buffers that the kernel receives into, each of this size. A connection that waits has none.
const BUFFERS: u16 = 512;
const SIZE: u16 = 16 * 1024;
const GROUP: u16 = 1;
/// How often the timers of all connections are looked at.
const TICK: Duration = Duration::from_millis(500);

/// What an operation was for; the rest of its number says which connection.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const OTHER: u64 = 3;

/// Serves for ever.
///
/// # Errors
/// When there is no `io_uring`, or it fails as a whole; nothing that a connection does.
pub(crate) fn serve(
    listener: &TcpListener,
    config: AgentConfig,
    mut answer: impl FnMut(MessageIter<'_>) -> Actions,
) -> io::Result<()> {
    let mut agent = Agent {
        ring: Ring::new()?,
        config: Arc::new(config.checked()?),
        clock: Clock::start(),
        conns: Slab::new(),
        opened: 0,
        accepts: true,
    };
    agent.ring.accept(listener)?;
    let mut swept = agent.clock.now();
    loop {
        let completed = agent.ring.wait()?;
        let now = agent.clock.now();
        for (user_data, result, flags) in completed {
            let key = (user_data >> 2) as usize;
            match user_data & 3 {
                ACCEPT => agent.accepted(now, listener, result, flags)?,
                RECEIVE => agent.received(now, key, result, flags, &mut answer)?,
                SEND => agent.sent(now, key, result, &mut answer)?,
                _ => {}
            }
        }
        if now >= swept + TICK {
            swept = now;
            agent.sweep(now, &mut answer)?;
            if !std::mem::replace(&mut agent.accepts, true) {
                agent.ring.accept(listener)?;
            }
        }
    }
}

struct Agent {
    ring: Ring,
    config: Arc<Checked<AgentConfig>>,
    clock: Clock,
    conns: Slab<Conn>,
    opened: u64,
    /// False when the system could not accept, for want of descriptors for instance: it is asked again later.
    accepts: bool,
}

struct Conn {
    stream: TcpStream,
    reactor: AgentReactor,
    inbox: BytesMut,
    /// What the kernel is sending: never touched while it does.
    out: Vec<u8>,
    sending: bool,
    receiving: Receiving,
    /// No more operations: it is dropped when those under way have ended.
    over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Receiving {
    No,
    Yes,
    /// It was asked to end.
    Ending,
}

impl Agent {
    fn accepted(
        &mut self,
        now: Timestamp,
        listener: &TcpListener,
        result: i32,
        flags: u32,
    ) -> io::Result<()> {
        if result >= 0 {
            let stream = Ring::stream(result);
            // Answers leave in one piece, and at once.
            let _ = stream.set_nodelay(true);
            self.opened += 1;
            let reactor = AgentReactor::new(Arc::clone(&self.config), ConnectionId(self.opened), now);
            let key = self.conns.insert(Conn {
                stream,
                reactor,
                inbox: BytesMut::new(),
                out: Vec::new(),
                sending: false,
                receiving: Receiving::No,
                over: false,
            });
            self.go_on(now, key, &mut |_| Actions::new())?;
        }
        if cqueue::more(flags) {
            return Ok(());
        }
        self.accepts = result >= 0;
        if self.accepts { self.ring.accept(listener) } else { Ok(()) }
    }

    fn received(
        &mut self,
        now: Timestamp,
        key: usize,
        result: i32,
        flags: u32,
        answer: &mut impl FnMut(MessageIter<'_>) -> Actions,
    ) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
        if !cqueue::more(flags) {
            conn.receiving = Receiving::No;
        }
        if let Some(id) = cqueue::buffer_select(flags) {
            conn.inbox.extend_from_slice(self.ring.buffer(id, usize::try_from(result).unwrap_or(0)));
            self.ring.give_back(id)?;
        }
        match result {
            0 => while conn.act(now, answer, |reactor, inbox| reactor.on_input_eof(now, inbox)) {},
            1.. => while conn.act(now, answer, |reactor, inbox| reactor.on_bytes(now, inbox)) {},
            // It ran out of buffers, or was asked to end.
            _ if matches!(-result, libc_errno::ENOBUFS | libc_errno::ECANCELED) => {}
            _ => drop(conn.act(now, answer, |reactor, _| reactor.on_transport_error(now))),
        }
        self.go_on(now, key, answer)
    }

    fn sent(
        &mut self,
        now: Timestamp,
        key: usize,
        result: i32,
        answer: &mut impl FnMut(MessageIter<'_>) -> Actions,
    ) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
        conn.sending = false;
        match usize::try_from(result) {
            Ok(n) if n > 0 => drop(conn.act(now, answer, |reactor, _| reactor.on_sent(now, n))),
            _ => drop(conn.act(now, answer, |reactor, _| reactor.on_transport_error(now))),
        }
        self.go_on(now, key, answer)
    }

    /// Asks the kernel for what the connection's interest says.
    fn go_on(
        &mut self,
        now: Timestamp,
        key: usize,
        answer: &mut impl FnMut(MessageIter<'_>) -> Actions,
    ) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
        let mut interest = conn.reactor.interest();
        if interest.resume {
            while conn.act(now, answer, |reactor, inbox| reactor.on_bytes(now, inbox)) {}
            interest = conn.reactor.interest();
        }
        if interest.shut.is_some() && !conn.sending {
            // What cannot be shut is gone already.
            let _ = conn.stream.shutdown(Shutdown::Write);
            conn.act(now, answer, |reactor, _| reactor.on_write_shut(now, Progress::Done));
            interest = conn.reactor.interest();
        }
        if interest.close {
            conn.over = true;
            // Ends what is under way.
            let _ = conn.stream.shutdown(Shutdown::Both);
        }
        if conn.over {
            if !conn.sending && conn.receiving == Receiving::No {
                self.conns.remove(key);
            }
            return Ok(());
        }
        if interest.write && !conn.sending {
            conn.out.clear();
            conn.out.extend_from_slice(conn.reactor.outgoing());
            conn.sending = true;
            self.ring.send(conn, key)?;
        }
        match (interest.read, conn.receiving) {
            (true, Receiving::No) => {
                conn.receiving = Receiving::Yes;
                self.ring.receive(conn, key)?;
            }
            (false, Receiving::Yes) => {
                conn.receiving = Receiving::Ending;
                self.ring.stop_receiving(key)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn sweep(
        &mut self,
        now: Timestamp,
        answer: &mut impl FnMut(MessageIter<'_>) -> Actions,
    ) -> io::Result<()> {
        let keys: Vec<usize> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            if conn.reactor.deadline().is_some_and(|(at, _)| at <= now) {
                while conn.act(now, answer, |reactor, _| reactor.on_timeout(now)) {}
                self.go_on(now, key, answer)?;
            }
        }
        Ok(())
    }
}

impl Conn {
    /// Gives an input to the reactor, and carries out what follows. False when there is no more to do with that input.
    fn act(
        &mut self,
        now: Timestamp,
        answer: &mut impl FnMut(MessageIter<'_>) -> Actions,
        input: impl for<'i> FnOnce(&mut AgentReactor, &'i mut BytesMut) -> Action<'i>,
    ) -> bool {
        match input(&mut self.reactor, &mut self.inbox) {
            Action::SendFrames | Action::WantBytes { .. } | Action::Paused | Action::Close(_) => false,
            Action::RunMessages(notify) => {
                let actions = answer(notify.messages.iter());
                if let Err(error) = self.reactor.acknowledge(now, notify.ticket, &actions) {
                    let _ = self.reactor.fail(now, error.into_ticket());
                }
                true
            }
            _ => true,
        }
    }
}

/// The numbers of errors that are none.
mod libc_errno {
    pub(super) const ENOBUFS: i32 = 105;
    pub(super) const ECANCELED: i32 = 125;
}

/// What is asked of the kernel, and the memory that it receives into.
struct Ring {
    ring: IoUring,
    pool: Vec<u8>,
}

impl Ring {
    fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(8 * ENTRIES)
            .build(ENTRIES)
            .map_err(|error| io::Error::new(error.kind(), format!("no io_uring: {error}")))?;
        let mut ring = Self { ring, pool: vec![0; usize::from(BUFFERS) * usize::from(SIZE)] };
        let pool = ring.pool.as_mut_ptr();
        ring.push(&opcode::ProvideBuffers::new(pool, i32::from(SIZE), BUFFERS, GROUP, 0).build(), OTHER)?;
        Ok(ring)
    }

    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        self.push(&opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).build(), ACCEPT)
    }

    fn receive(&mut self, conn: &Conn, key: usize) -> io::Result<()> {
        let receive = opcode::RecvMulti::new(types::Fd(conn.stream.as_raw_fd()), GROUP).build();
        self.push(&receive, (key as u64) << 2 | RECEIVE)
    }

    fn stop_receiving(&mut self, key: usize) -> io::Result<()> {
        self.push(&opcode::AsyncCancel::new((key as u64) << 2 | RECEIVE).build(), OTHER)
    }

    fn send(&mut self, conn: &Conn, key: usize) -> io::Result<()> {
        let fd = types::Fd(conn.stream.as_raw_fd());
        let send = opcode::Send::new(fd, conn.out.as_ptr(), conn.out.len() as u32).build();
        self.push(&send, (key as u64) << 2 | SEND)
    }

    /// What was received into a buffer.
    fn buffer(&self, id: u16, len: usize) -> &[u8] {
        let start = usize::from(id) * usize::from(SIZE);
        self.pool.get(start..start + len).unwrap_or_default()
    }

    fn give_back(&mut self, id: u16) -> io::Result<()> {
        let Some(buffer) = self.pool.get_mut(usize::from(id) * usize::from(SIZE)..) else { return Ok(()) };
        let provide = opcode::ProvideBuffers::new(buffer.as_mut_ptr(), i32::from(SIZE), 1, GROUP, id).build();
        // Nothing is to be done when it has succeeded.
        let provide = provide.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&provide, OTHER)
    }

    fn push(&mut self, entry: &squeue::Entry, user_data: u64) -> io::Result<()> {
        let entry = entry.clone().user_data(user_data);
        loop {
            // SAFETY: receives go to the pool, which is neither moved nor dropped before the ring. The bytes of a send
            // belong to a connection that leaves them alone and stays until the send has completed.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    /// Submits what was asked for, and waits for something to happen.
    fn wait(&mut self) -> io::Result<Vec<(u64, i32, u32)>> {
        let tick = types::Timespec::from(TICK);
        let args = types::SubmitArgs::new().timespec(&tick);
        match self.ring.submitter().submit_with_args(1, &args) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // ETIME, and EBUSY when completions are to be taken first.
            Err(error) if matches!(error.raw_os_error(), Some(62 | 16)) => {}
            other => drop(other?),
        }
        Ok(self.ring.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())).collect())
    }

    /// The stream of a descriptor that an accept has returned.
    fn stream(fd: i32) -> TcpStream {
        // SAFETY: the kernel has just opened it for this process, and nobody else knows it.
        unsafe { TcpStream::from_raw_fd(fd) }
    }
}
