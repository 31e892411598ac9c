//! A thread for each connection and no event loop at all: the protocol driven over `std::net`.
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

use bytes::BytesMut;
use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, Clock, ConnectionId, Scope, config::Checked, link::Progress,
};

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
            Ok(()) => eprintln!("{peer}: over"),
            Err(error) => eprintln!("{peer}: {error}"),
        });
    }
    Ok(())
}

/// The loop of `spop-core`'s front page. Answers are ready at once here, so there is nothing to wait for but the peer.
fn serve(mut stream: TcpStream, config: Arc<Checked<AgentConfig>>, id: ConnectionId) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let clock = Clock::start();
    let mut reactor = AgentReactor::new(config, id, clock.now());
    let mut inbox = BytesMut::new();
    loop {
        let interest = reactor.interest();
        if interest.close {
            return Ok(());
        } else if interest.write {
            let sent = stream.write(reactor.outgoing())?;
            carry_out(&clock, &mut reactor, |reactor| reactor.on_sent(clock.now(), sent));
        } else if interest.shut.is_some() {
            // What cannot be shut is gone already.
            let _ = stream.shutdown(Shutdown::Write);
            carry_out(&clock, &mut reactor, |reactor| reactor.on_write_shut(clock.now(), Progress::Done));
        } else if interest.resume {
            while carry_out(&clock, &mut reactor, |reactor| reactor.on_bytes(clock.now(), &mut inbox)) {}
        } else {
            let wait = reactor.deadline().map(|(at, _)| at.since(clock.now()).max(Duration::from_millis(1)));
            if interest.read {
                stream.set_read_timeout(wait)?;
                receive(&mut stream, &clock, &mut reactor, &mut inbox)?;
            } else {
                // More may be sent when its time has come.
                thread::sleep(wait.unwrap_or_default());
            }
            while carry_out(&clock, &mut reactor, |reactor| reactor.on_timeout(clock.now())) {}
        }
    }
}

/// Reads once, as long as the timeout allows.
fn receive(
    stream: &mut TcpStream,
    clock: &Clock,
    reactor: &mut AgentReactor,
    inbox: &mut BytesMut,
) -> io::Result<()> {
    let mut room = [0; 8 * 1024];
    match stream.read(&mut room) {
        Ok(0) => while carry_out(clock, reactor, |reactor| reactor.on_input_eof(clock.now(), inbox)) {},
        Ok(n) => {
            inbox.extend_from_slice(room.get(..n).unwrap_or_default());
            while carry_out(clock, reactor, |reactor| reactor.on_bytes(clock.now(), inbox)) {}
        }
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
            _ => return Err(error),
        },
    }
    Ok(())
}

/// Carries out what follows from an input. True when there is more to be done with it.
fn carry_out<'i>(
    clock: &Clock,
    reactor: &mut AgentReactor,
    input: impl FnOnce(&mut AgentReactor) -> Action<'i>,
) -> bool {
    match input(reactor) {
        Action::SendFrames | Action::WantBytes { .. } | Action::Paused | Action::Close(_) => return false,
        Action::RunMessages(notify) => {
            let mut actions = Actions::new();
            actions.set_var(Scope::Transaction, "messages", notify.messages.len() as u64);
            // An answer as short as this one fits.
            let _ = reactor.acknowledge(clock.now(), notify.ticket, &actions);
        }
        _ => {}
    }
    true
}
