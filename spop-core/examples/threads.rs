//! A driver for whatever can be read and written, as long as both can be done at the same time: blocking sockets, pipes,
//! serial lines. A thread reads, another one writes, and handlers run on a third; what they have done comes by one channel,
//! so that the thread with the reactor has one thing to wait for.
//!
//! ```text
//! cargo run -p spop-core --example threads -- 127.0.0.1:12345
//! ```
//!
//! It echoes every argument of every message as the variable `MESSAGE.ARGUMENT`, and drains on SIGTERM.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use signal_hook::{consts::SIGTERM, iterator::Signals};
use spop_core::{
    Action, Actions, AgentReactor, Clock, Closed, ConnectionId, Messages, Notify, Scope, Ticket,
    link::Progress,
};

/// How much is read or written at once.
const CHUNK: usize = 64 * 1024;
/// How long a read that is under way may take to return what has arrived.
const READ: Duration = Duration::from_millis(1);

enum Event {
    Read(Vec<u8>, io::Result<usize>),
    Written(Vec<u8>, io::Result<usize>),
    Answered(Ticket, Actions),
    Drain,
}

type Job = Box<dyn FnOnce() + Send>;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:12345".into());
    let listener = TcpListener::bind(address)?;
    let (address, stop) = (listener.local_addr()?, listener.try_clone()?);
    let mut signals = Signals::new([SIGTERM])?;
    println!("listening on {address}");
    thread::spawn(move || {
        signals.forever().next();
        // Nothing interrupts an `accept` but a connection; those after it do not wait for one.
        stop.set_nonblocking(true).and_then(|()| TcpStream::connect(address))
    });
    let (jobs, handler) = channel::<Job>();
    thread::spawn(move || handler.into_iter().for_each(|job| job()));

    let config = Arc::default();
    let mut connections = Vec::new();
    for number in 0.. {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // Descriptors may be exhausted, or the peer is gone again: others are served on.
            Err(error) => {
                eprintln!("accept: {error}");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let (config, jobs, (sender, events)) = (Arc::clone(&config), jobs.clone(), channel());
        let for_drain = sender.clone();
        let thread = thread::spawn(move || {
            let clock = Clock::start();
            let reactor = AgentReactor::new(config, ConnectionId(number), clock.now());
            let driver = Driver { clock, reactor, sender, jobs, closed: None };
            match driver.serve(&stream, &events) {
                Ok(Some(closed)) => eprintln!("{peer}: {closed}"),
                Ok(None) => {}
                Err(error) => eprintln!("{peer}: {error}"),
            }
        });
        connections.retain(|(thread, _): &(thread::JoinHandle<()>, _)| !thread.is_finished());
        connections.push((thread, for_drain));
    }
    drop(listener);
    for (_, events) in &connections {
        // One that is over needs no drain.
        let _ = events.send(Event::Drain);
    }
    for (thread, _) in connections {
        let _ = thread.join();
    }
    Ok(())
}

/// Starts a thread that reads into each buffer it is sent, or writes from it.
fn perform(
    stream: &TcpStream,
    done: &Sender<Event>,
    act: impl Fn(&TcpStream, Vec<u8>) -> Event + Send + 'static,
) -> io::Result<Sender<Vec<u8>>> {
    let (buffers, to_do) = channel();
    let (stream, done) = (stream.try_clone()?, done.clone());
    thread::spawn(move || {
        for buffer in to_do {
            if done.send(act(&stream, buffer)).is_err() {
                break;
            }
        }
    });
    Ok(buffers)
}

struct Driver {
    clock: Clock,
    reactor: AgentReactor,
    sender: Sender<Event>,
    jobs: Sender<Job>,
    closed: Option<Closed>,
}

impl Driver {
    /// Serves a connection until it is closed.
    fn serve(mut self, stream: &TcpStream, events: &Receiver<Event>) -> io::Result<Option<Closed>> {
        stream.set_nodelay(true)?;
        let reads = perform(stream, &self.sender, |mut stream, mut buffer| {
            let read = stream.read(&mut buffer);
            Event::Read(buffer, read)
        })?;
        let writes = perform(stream, &self.sender, |mut stream, buffer| {
            let written = stream.write(&buffer);
            Event::Written(buffer, written)
        })?;
        // A buffer is here, or with the thread that reads into it or writes from it.
        let (mut to_read, mut to_write) = (Some(vec![0; CHUNK]), Some(Vec::new()));
        let mut input = Vec::new();
        loop {
            let interest = self.reactor.interest();
            if interest.close {
                // Ends the read that is under way.
                let _ = stream.shutdown(Shutdown::Both);
                return Ok(self.closed);
            } else if interest.resume {
                self.feed(&mut input, false);
                continue;
            } else if interest.shut.is_some() && to_write.is_some() {
                // If this fails, the connection is gone already.
                let _ = stream.shutdown(Shutdown::Write);
                let _ = self.reactor.on_write_shut(self.clock.now(), Progress::Done);
                continue;
            }
            if interest.write
                && let Some(mut buffer) = to_write.take()
            {
                buffer.clear();
                buffer.extend(self.reactor.outgoing().iter().take(CHUNK));
                let _ = writes.send(buffer);
            }
            if interest.read
                && let Some(buffer) = to_read.take()
            {
                let _ = reads.send(buffer);
            }
            let deadline = self.reactor.deadline().map(|(at, _)| at.since(self.clock.now()));
            let time = if interest.read_now { READ } else { deadline.unwrap_or(Duration::MAX) };
            let event = events.recv_timeout(time);
            let now = self.clock.now();
            match event {
                Ok(Event::Read(buffer, Ok(n))) => {
                    input.extend_from_slice(buffer.get(..n).unwrap_or_default());
                    to_read = Some(buffer);
                    self.feed(&mut input, n == 0);
                }
                Ok(Event::Written(buffer, Ok(n))) if n > 0 => {
                    to_write = Some(buffer);
                    let action = self.reactor.on_sent(now, n).map_err(io::Error::other)?;
                    self.carry_out(action);
                }
                Ok(Event::Read(..) | Event::Written(..)) => {
                    let action = self.reactor.on_transport_error(now);
                    self.carry_out(action);
                }
                Ok(Event::Answered(ticket, actions)) => {
                    if let Err(error) = self.reactor.acknowledge(now, ticket, &actions) {
                        // The answer is too long: HAProxy goes on without one.
                        let _ = self.reactor.fail(now, error.into_ticket());
                    }
                }
                Ok(Event::Drain) => self.reactor.drain(now),
                Err(_) if interest.read_now => {
                    let action = self.reactor.on_read_blocked(now);
                    self.carry_out(action);
                }
                Err(_) => loop {
                    let action = self.reactor.on_timeout(now);
                    if !self.carry_out(action) {
                        break;
                    }
                },
            }
        }
    }

    /// Gives the input to the reactor until there is no more to do with it.
    fn feed(&mut self, input: &mut Vec<u8>, ended: bool) {
        let mut used = 0;
        loop {
            let (now, unused) = (self.clock.now(), input.get(used..).unwrap_or_default());
            let step = if ended {
                self.reactor.on_input_eof(now, unused)
            } else {
                self.reactor.on_bytes(now, unused)
            };
            used += step.consumed;
            if !self.carry_out(step.action) {
                break;
            }
        }
        input.drain(..used);
    }

    /// Carries out an action. False when there is no more to do with the input that it follows from.
    fn carry_out(&mut self, action: Action<'_>) -> bool {
        match action {
            Action::SendFrames | Action::WantBytes { .. } | Action::Paused => return false,
            Action::Close(reason) => {
                self.closed = Some(reason);
                return false;
            }
            Action::RunMessages(Notify { ticket, payload, .. }) => {
                let (messages, done) = (payload.into_owned(), self.sender.clone());
                let job = move || drop(done.send(Event::Answered(ticket, echo(messages.view()))));
                let _ = self.jobs.send(Box::new(job));
            }
            _ => {}
        }
        true
    }
}

fn echo(messages: Messages<'_>) -> Actions {
    let mut actions = Actions::new();
    for message in messages {
        for (name, value) in message.args() {
            actions.set_var(Scope::Transaction, [message.name(), b".", name].concat(), value);
        }
    }
    actions
}
