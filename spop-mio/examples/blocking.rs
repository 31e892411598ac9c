//! A thread for each connection and no event loop: the loop of `spop-core`'s front page over `std::net`.
//!
//! ```text
//! cargo run --example blocking -- 127.0.0.1:12345
//! ```

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, Clock, Closed, ConnectionId, Notify, Scope, config::Checked,
    link::Progress,
};

/// The first size of the input buffer. It grows to hold the longest frame.
const INPUT: usize = 16 * 1024;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:12345".into());
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let config = Arc::default();
    for number in 0.. {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            // Descriptors may be exhausted, or the peer is gone again: others are served on.
            Err(error) => {
                eprintln!("accept: {error}");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let config = Arc::clone(&config);
        thread::spawn(move || match serve(stream, config, ConnectionId(number)) {
            Ok(Some(closed)) => eprintln!("{peer}: {closed}"),
            Ok(None) => {}
            Err(error) => eprintln!("{peer}: {error}"),
        });
    }
    Ok(())
}

/// Serves a connection until it is closed. Handlers answer at once, so the only things to wait for are the peer and time.
fn serve(
    stream: TcpStream,
    config: Arc<Checked<AgentConfig>>,
    id: ConnectionId,
) -> io::Result<Option<Closed>> {
    stream.set_nodelay(true)?;
    let clock = Clock::start();
    let reactor = AgentReactor::new(config, id, clock.now());
    let mut driver = Driver { stream, clock, reactor, input: vec![0; INPUT], filled: 0, closed: None };
    loop {
        let interest = driver.reactor.interest();
        if interest.close {
            return Ok(driver.closed);
        } else if interest.resume {
            driver.feed(false);
        } else if interest.write {
            driver.write()?;
        } else if interest.shut.is_some() {
            // What cannot be shut is gone already.
            let _ = driver.stream.shutdown(Shutdown::Write);
            let shut = driver.reactor.on_write_shut(driver.clock.now(), Progress::Done);
            driver.carry_out(shut.map_err(io::Error::other)?);
        } else if interest.read_now {
            driver.stream.set_nonblocking(true)?;
            driver.read();
            driver.stream.set_nonblocking(false)?;
        } else if interest.read {
            driver.stream.set_read_timeout(driver.wait())?;
            driver.read();
            driver.serve_timers();
        } else {
            thread::sleep(driver.wait().unwrap_or(Duration::MAX));
            driver.serve_timers();
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
    /// How long until the deadline. The system rounds shorter times to zero, which would mean none.
    fn wait(&self) -> Option<Duration> {
        let (deadline, _) = self.reactor.deadline()?;
        Some(deadline.since(self.clock.now()).max(Duration::from_millis(1)))
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
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    let action = self.reactor.on_read_blocked(self.clock.now());
                    self.carry_out(action);
                }
                ErrorKind::Interrupted => {}
                _ => self.fail(),
            },
        }
    }

    /// Writes once, until the deadline at the latest: a peer that reads nothing meets the write timeout.
    fn write(&mut self) -> io::Result<()> {
        self.stream.set_write_timeout(self.wait())?;
        match self.stream.write(self.reactor.outgoing()) {
            Ok(sent) if sent > 0 => {
                let sent = self.reactor.on_sent(self.clock.now(), sent);
                self.carry_out(sent.map_err(io::Error::other)?);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.serve_timers();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => self.fail(),
        }
        Ok(())
    }

    fn serve_timers(&mut self) {
        loop {
            let action = self.reactor.on_timeout(self.clock.now());
            if !self.carry_out(action) {
                break;
            }
        }
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
            let mut actions = Actions::new();
            actions.set_var(Scope::Transaction, "messages", payload.messages().len() as u64);
            // An answer as short as this one fits.
            let _ = reactor.acknowledge(clock.now(), ticket, &actions);
        }
        _ => {}
    }
    true
}
