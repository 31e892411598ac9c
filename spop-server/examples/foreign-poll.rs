//! A server on an event loop of its own, here poll(2): [`Driver`] moves the bytes, the loop waits. Every policy is in `Conn`.
//! `foreign-poll 127.0.0.1:12345` echoes each argument as the variable `MESSAGE.ARGUMENT`, and drains on SIGTERM.

use std::{
    io::{self, PipeWriter, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    task::{Wake, Waker},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use signal_hook::{consts::SIGTERM, iterator::Signals};
use spop_core::{Actions, Clock, Scope};
use spop_server::{Agent, Conn, Driver, Entrance, Handler, ReadBuffer, Request, ServerConfig, Stage, Turn};

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:12345"))?;
    println!("listening on {}", listener.local_addr()?);
    let agent = Agent::new(ServerConfig::default(), Clock::start())?;
    let (handle, mut signals) = (agent.handle(), Signals::new([SIGTERM])?);
    thread::spawn(move || signals.forever().for_each(|_| handle.drain()));
    serve(listener, &agent, None, &mut |request: Request<'_>| {
        let mut actions = Actions::new();
        for message in request.messages() {
            for (name, value) in message.args() {
                actions.set_var(Scope::Transaction, [message.name(), b".", name].concat(), value);
            }
        }
        actions
    })
}

/// Wakes the loop: while it is `woken`, there is a byte in the pipe.
struct Notify {
    woken: AtomicBool,
    pipe: PipeWriter,
}

impl Wake for Notify {
    fn wake(self: Arc<Self>) {
        if !self.woken.swap(true, AcqRel) {
            // The reader lives as long as the loop.
            let _ = (&self.pipe).write(&[0]);
        }
    }
}

struct Connection {
    driver: Driver<Conn>,
    /// `None` after it was closed, while other connections of its engine send answers to its requests.
    stream: Option<TcpStream>,
    turn: Turn,
}

/// Serves until the agent has shut down, and its last connection has ended.
pub(crate) fn serve<H: Handler>(
    listener: TcpListener,
    agent: &Arc<Agent>,
    entrance: Option<&Arc<Entrance>>,
    handler: &mut H,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let (mut wakes, pipe) = io::pipe()?;
    let notify = Arc::new(Notify { woken: AtomicBool::new(false), pipe });
    let waker = Waker::from(Arc::clone(&notify));
    let _subscription = agent.subscribe(&waker);
    let (clock, mut buffer) = (agent.clock(), ReadBuffer::new());
    let mut connections = Vec::<Connection>::new();
    let (mut listener, mut accept_at) = (Some(listener), None);
    while listener.is_some() || !connections.is_empty() {
        let now = clock.now();
        accept_at = accept_at.filter(|at| *at > now);
        // A descriptor without events to wait for is left out: poll(2) would report its errors again and again.
        let nothing = || PollFd::new(&wakes, PollFlags::empty());
        let listening = listener.as_ref().filter(|_| accept_at.is_none());
        let mut fds = vec![PollFd::new(&wakes, PollFlags::IN)];
        fds.push(listening.map_or_else(nothing, |listener| PollFd::new(listener, PollFlags::IN)));
        fds.extend(connections.iter().map(|Connection { driver, stream, .. }| {
            let (conn, mut flags) = (driver.protocol(), PollFlags::empty());
            flags.set(PollFlags::IN, conn.interest().read || conn.wants_tls());
            flags.set(PollFlags::OUT, driver.wants_write::<H>());
            let stream = stream.as_ref().filter(|_| !flags.is_empty());
            stream.map_or_else(nothing, |stream| PollFd::new(stream, flags))
        }));
        let deadlines = connections.iter().filter_map(|connection| connection.driver.protocol().deadline());
        let deadline = deadlines.chain(accept_at).chain(agent.shutdown_deadline()).min();
        let again = connections.iter().any(|connection| connection.turn == Turn::Again);
        let time = if again { Some(Duration::ZERO) } else { deadline.map(|at| at.since(now)) };
        // A time that is too long for the system is none.
        match poll(&mut fds, time.and_then(|time| Timespec::try_from(time).ok()).as_ref()) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
        let [is_woken, can_accept, ready @ ..] = &*ready else { continue };

        let now = clock.now();
        if !is_woken.is_empty() {
            wakes.read_exact(&mut [0])?;
            notify.woken.swap(false, AcqRel);
        }
        // Each connection gets a turn: poll(2) is linear in their number anyway. An error is found by the read or write of the turn.
        for (Connection { driver, stream, turn }, ready) in connections.iter_mut().zip(ready) {
            driver.ready(ready.intersects(!PollFlags::OUT), ready.intersects(!PollFlags::IN));
            *turn = driver.turn(now, stream.as_mut(), &mut buffer, handler);
            stream.take_if(|_| *turn == Turn::Closed);
        }
        connections.retain(|connection| connection.turn != Turn::Over);
        let draining = agent.poll_shutdown(now) >= Stage::Drain;
        // A drain also serves the connections that are in the backlog.
        if let Some(listener) = listener.as_ref().filter(|_| draining || !can_accept.is_empty()) {
            accept_at = agent.accept_all(now, listener, entrance, |stream, mut conn| {
                // A connection that is gone already cannot be set up.
                if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_ok() {
                    conn.set_waker(&waker);
                    let (driver, stream) = (Driver::new(conn), Some(stream));
                    connections.push(Connection { driver, stream, turn: Turn::Again });
                }
            });
        }
        if draining {
            (listener, accept_at) = (None, None);
        }
    }
    agent.wait_until_ended();
    agent.ended(clock.now());
    Ok(())
}
