//! A thread for each connection and no event loop: the loop of `spop-core`'s front page over `std::net`. A thread waits in
//! poll(2) for its connection, for time, and for the signal that all threads wait for.
//!
//! ```text
//! cargo run -p spop-core --example blocking -- 127.0.0.1:12345
//! ```
//!
//! It echoes every argument of every message as the variable `MESSAGE.ARGUMENT`, and drains on SIGTERM.

use std::{
    io::{self, ErrorKind, PipeReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use signal_hook::{consts::SIGTERM, low_level::pipe};
use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, Clock, Closed, ConnectionId, Interest, Messages, Notify,
    Scope, config::Checked, link::Progress,
};

/// The first size of the input buffer. It grows to hold the longest frame.
const INPUT: usize = 16 * 1024;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:12345".into());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // The byte that the signal writes is not read: it wakes every thread.
    let (signal, on_signal) = io::pipe()?;
    pipe::register(SIGTERM, on_signal)?;
    println!("listening on {}", listener.local_addr()?);
    let config = Arc::default();
    thread::scope(|scope| {
        // Dropped when the drain begins.
        let listener = listener;
        for number in 0.. {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let (config, signal) = (Arc::clone(&config), &signal);
                    scope.spawn(move || match serve(stream, config, ConnectionId(number), signal) {
                        Ok(Some(closed)) => eprintln!("{peer}: {closed}"),
                        Ok(None) => {}
                        Err(error) => eprintln!("{peer}: {error}"),
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if wait(&listener, PollFlags::IN, &signal, PollFlags::IN, None)?.1 {
                        break;
                    }
                }
                // Descriptors may be exhausted, or the peer is gone again: others are served on.
                Err(error) => {
                    eprintln!("accept: {error}");
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
        Ok(())
    })
}

/// Waits until a socket is ready, the signal has come, or the time is over.
fn wait(
    socket: &impl AsFd,
    wanted: PollFlags,
    signal: &PipeReader,
    wanted_of_signal: PollFlags,
    time: Option<Duration>,
) -> io::Result<(PollFlags, bool)> {
    let mut fds = [PollFd::new(socket, wanted), PollFd::new(signal, wanted_of_signal)];
    // A time that is too long for the system is none.
    let time = time.and_then(|time| Timespec::try_from(time).ok());
    match poll(&mut fds, time.as_ref()) {
        Err(Errno::INTR) => return Ok((PollFlags::empty(), false)),
        other => other?,
    };
    let [socket, signal] = fds;
    Ok((socket.revents(), !signal.revents().is_empty()))
}

/// Serves a connection until it is closed. Handlers answer at once.
fn serve(
    stream: TcpStream,
    config: Arc<Checked<AgentConfig>>,
    id: ConnectionId,
    signal: &PipeReader,
) -> io::Result<Option<Closed>> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let clock = Clock::start();
    let reactor = AgentReactor::new(config, id, clock.now());
    let mut driver = Driver { stream, clock, reactor, input: vec![0; INPUT], filled: 0, closed: None };
    let mut wanted_of_signal = PollFlags::IN;
    loop {
        let interest = driver.reactor.interest();
        if interest.close {
            return Ok(driver.closed);
        } else if interest.resume {
            driver.feed(false);
        } else if interest.shut.is_some() {
            // If this fails, the connection is gone already.
            let _ = driver.stream.shutdown(Shutdown::Write);
            let shut = driver.reactor.on_write_shut(driver.clock.now(), Progress::Done);
            driver.carry_out(shut.map_err(io::Error::other)?);
        } else if !(interest.write && driver.write()) {
            let (wanted, time) = driver.wait_for(interest);
            let (ready, signalled) = wait(&driver.stream, wanted, signal, wanted_of_signal, time)?;
            if signalled {
                driver.reactor.drain(driver.clock.now());
                wanted_of_signal = PollFlags::empty();
            }
            driver.woken(interest, ready);
        }
    }
}

struct Driver {
    stream: TcpStream,
    clock: Clock,
    reactor: AgentReactor,
    /// What was received and not used is at the front, `filled` bytes.
    input: Vec<u8>,
    filled: usize,
    closed: Option<Closed>,
}

impl Driver {
    /// What to wait for, and for how long.
    fn wait_for(&self, interest: Interest) -> (PollFlags, Option<Duration>) {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, interest.read);
        wanted.set(PollFlags::OUT, interest.write);
        let deadline = self.reactor.deadline().map(|(at, _)| at.since(self.clock.now()));
        (wanted, if interest.read_now { Some(Duration::ZERO) } else { deadline })
    }

    fn woken(&mut self, interest: Interest, ready: PollFlags) {
        let gone = ready.intersects(PollFlags::ERR | PollFlags::HUP);
        if interest.read && (gone || ready.contains(PollFlags::IN)) {
            self.read();
        } else if gone && !interest.write {
            self.fail();
        } else if interest.read_now {
            let action = self.reactor.on_read_blocked(self.clock.now());
            self.carry_out(action);
        }
        loop {
            let action = self.reactor.on_timeout(self.clock.now());
            if !self.carry_out(action) {
                break;
            }
        }
    }

    /// Reads once.
    fn read(&mut self) {
        if self.filled == self.input.len() {
            // The reactor refuses frames that are longer than the agreed size, so this has an end.
            self.input.resize(2 * self.filled, 0);
        }
        match self.stream.read(self.input.get_mut(self.filled..).unwrap_or_default()) {
            Ok(0) => self.feed(true),
            Ok(n) => {
                self.filled += n;
                self.feed(false);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.fail(),
        }
    }

    /// Writes once. False if that has to wait.
    fn write(&mut self) -> bool {
        match self.stream.write(self.reactor.outgoing()) {
            Ok(sent) if sent > 0 => match self.reactor.on_sent(self.clock.now(), sent) {
                Ok(action) => drop(self.carry_out(action)),
                Err(_) => self.fail(),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => self.fail(),
        }
        true
    }

    fn fail(&mut self) {
        let action = self.reactor.on_transport_error(self.clock.now());
        self.carry_out(action);
    }

    /// Gives the input to the reactor until there is no more to do with it, and moves what is left to the front.
    fn feed(&mut self, ended: bool) {
        let mut used = 0;
        loop {
            let now = self.clock.now();
            let unused = self.input.get(used..self.filled).unwrap_or_default();
            let step = if ended {
                self.reactor.on_input_eof(now, unused)
            } else {
                self.reactor.on_bytes(now, unused)
            };
            used += step.consumed;
            if !carry_out(&self.clock, &mut self.reactor, &mut self.closed, step.action) {
                break;
            }
        }
        self.input.copy_within(used..self.filled, 0);
        self.filled -= used;
    }

    fn carry_out(&mut self, action: Action<'_>) -> bool {
        carry_out(&self.clock, &mut self.reactor, &mut self.closed, action)
    }
}

/// Carries out an action. False when there is no more to do with the input that it follows from.
fn carry_out(
    clock: &Clock,
    reactor: &mut AgentReactor,
    closed: &mut Option<Closed>,
    action: Action<'_>,
) -> bool {
    match action {
        Action::SendFrames | Action::WantBytes { .. } | Action::Paused => return false,
        Action::Close(reason) => {
            *closed = Some(reason);
            return false;
        }
        Action::RunMessages(Notify { ticket, payload, .. }) => {
            let actions = echo(payload.messages());
            if let Err(error) = reactor.acknowledge(clock.now(), ticket, &actions) {
                // The answer is too long: HAProxy goes on without one.
                let _ = reactor.fail(clock.now(), error.into_ticket());
            }
        }
        _ => {}
    }
    true
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
