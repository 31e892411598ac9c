//! A server with blocking sockets of `std`: for each connection a thread reads, one writes, and one drives its `Conn`, which has
//! every policy. `thread-per-connection ADDRESS` echoes each argument as the variable `MESSAGE.ARGUMENT`; SIGTERM drains.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    task::Wake,
    thread,
    time::Duration,
};

use signal_hook::{consts::SIGTERM, iterator::Signals};
use spop_core::{Actions, Clock, Scope, accept::Peer, link::Progress};
use spop_server::{Agent, Conn, Entrance, Handler, Protocol, Request, Stage};

const CHUNK: usize = 64 * 1024; // Read or written at once, at most.

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:12345"))?;
    println!("listening on {}", listener.local_addr()?);
    let agent = Agent::with_defaults(Clock::start());
    let (handle, mut signals) = (agent.handle(), Signals::new([SIGTERM])?);
    thread::spawn(move || signals.forever().for_each(|_| handle.drain()));
    serve(listener, &agent, None, &|request: Request<'_>| {
        let mut actions = Actions::new();
        for message in request.messages() {
            for (name, value) in message.args() {
                actions.set_var(Scope::Transaction, [message.name(), b".", name].concat(), value);
            }
        }
        actions
    })
}

/// Serves until the agent has shut down, and its last connection has ended.
pub(crate) fn serve<H: Handler + Clone + Send>(
    listener: TcpListener,
    agent: &Arc<Agent>,
    entrance: Option<&Arc<Entrance>>,
    handler: &H,
) -> io::Result<()> {
    let (address, stop, handle) = (listener.local_addr()?, listener.try_clone()?, agent.handle());
    thread::spawn(move || {
        handle.wait_for(Stage::Drain);
        // A blocked `accept` returns only with a connection; the later ones do not block.
        stop.set_nonblocking(true).and_then(|()| TcpStream::connect(address))
    });
    thread::scope(move |scope| {
        loop {
            match listener.accept() {
                Ok((stream, peer)) => {
                    if let Some(conn) = agent.accept(agent.clock().now(), Peer::Ip(peer), entrance) {
                        let (clock, mut handler) = (*agent.clock(), handler.clone());
                        scope.spawn(move || drive(&stream, conn, clock, &mut handler));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    agent.accept_failed(agent.clock().now(), &error);
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    });
    agent.wait_until_ended();
    agent.ended(agent.clock().now());
    Ok(())
}

enum Event {
    Read(Vec<u8>, io::Result<usize>),
    Written(io::Result<usize>),
    Wake,
}

struct Notify(mpsc::Sender<Event>);

impl Wake for Notify {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(Event::Wake);
    }
}

/// Starts a thread that reads into each buffer it is sent, or writes from it.
fn perform(
    (stream, done): (&TcpStream, &mpsc::Sender<Event>),
    event: fn(Vec<u8>, io::Result<usize>) -> Event,
    act: fn(&TcpStream, &mut [u8]) -> io::Result<usize>,
) -> io::Result<mpsc::Sender<Vec<u8>>> {
    let ((buffers, to_do), stream, done) = (mpsc::channel::<Vec<u8>>(), stream.try_clone()?, done.clone());
    thread::spawn(move || {
        for mut buffer in to_do {
            let result = act(&stream, &mut buffer);
            let _ = done.send(event(buffer, result));
        }
    });
    Ok(buffers)
}

/// Drives a connection to its end.
fn drive(stream: &TcpStream, mut conn: Conn, clock: Clock, handler: &mut impl Handler) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (sender, events) = mpsc::channel();
    conn.set_waker(&Arc::new(Notify(sender.clone())).into());
    let reads = perform((stream, &sender), Event::Read, |mut from, buffer| from.read(buffer))?;
    let writes = perform((stream, &sender), |_, n| Event::Written(n), |mut to, buffer| to.write(buffer))?;
    // The read buffer is here, or with the thread that reads into it.
    let (mut to_read, mut writing, mut input) = (Some(vec![0; CHUNK]), false, Vec::new());
    while !conn.is_over() {
        let (now, interest) = (clock.now(), conn.interest());
        if interest.resume {
            input.drain(..conn.on_bytes(now, handler, &input));
            continue;
        } else if interest.shut.is_some() && !writing {
            // If this fails, the connection is gone already.
            let _ = stream.shutdown(Shutdown::Write);
            conn.on_write_shut(now, handler, Progress::Done).map_err(io::Error::other)?;
            continue;
        } else if interest.close {
            let _ = stream.shutdown(Shutdown::Both);
            conn.on_transport_closed();
        }
        if interest.write && !std::mem::replace(&mut writing, true) {
            let _ = writes.send(conn.outgoing().iter().copied().take(CHUNK).collect());
        }
        if let Some(buffer) = to_read.take_if(|_| interest.read) {
            let _ = reads.send(buffer);
        }
        let deadline = conn.deadline().map_or(Duration::MAX, |at| at.since(now));
        // With `read_now`, input that has arrived is expected from the read under way within this time.
        let event = events.recv_timeout(if interest.read_now { Duration::from_millis(10) } else { deadline });
        let now = clock.now();
        match event {
            Ok(Event::Read(buffer, Ok(n))) => {
                input.extend_from_slice(buffer.get(..n).unwrap_or_default());
                input.drain(..Protocol::on_bytes(&mut conn, now, handler, &input, n == 0));
                to_read = Some(buffer);
            }
            Ok(Event::Written(Ok(n))) => {
                conn.on_sent(now, handler, n).map_err(io::Error::other)?;
                writing = false;
            }
            Ok(Event::Read(_, Err(error)) | Event::Written(Err(error))) => {
                conn.on_transport_error(now, handler, &error);
            }
            Ok(Event::Wake) => conn.on_wake(now, handler),
            Err(_) if interest.read_now => conn.on_read_blocked(now, handler),
            Err(_) => conn.on_timeout(now, handler),
        }
    }
    stream.shutdown(Shutdown::Both)
}
