//! The loop. All completions of a round are handled before anything is sent: one send has the answers to all that a connection
//! has received. A round is one system call.

use std::collections::BTreeSet;
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::mem::{ManuallyDrop, replace};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::{task::Wake, time::Duration};

use rustix::io::ioctl_fionread;
use slab::Slab;
use spop_core::Timestamp;
use spop_server::{Agent, CompletionDriver, Entrance, Handler, Operation, Stage};

use self::ring::{Completion, HEADROOM, Ring};

#[path = "ring.rs"]
mod ring;

/// The keys of what is polled. Those of connections are less.
const LISTENER: usize = usize::MAX >> 2;
const WAKES: usize = LISTENER - 1;

/// Serves until the agent has shut down, and its last connection has ended.
pub(crate) fn serve<H: Handler>(
    listener: TcpListener,
    agent: &Arc<Agent>,
    entrance: Option<&Arc<Entrance>>,
    handler: &mut H,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?; // Connections inherit it.
    let (mut pipe, writer) = io::pipe()?;
    let wakes = Arc::new((Mutex::default(), writer));
    let _subscription = agent.subscribe(&Arc::new(Notify(Arc::clone(&wakes), WAKES)).into());
    // An error leaves operations under way, and with them the memory that they use.
    let mut ring = ManuallyDrop::new(Ring::new()?);
    ring.poll(&pipe, WAKES)?;
    // To accept, unless the listener is polled.
    let (clock, mut listener, mut accept_at) = (agent.clock(), Some(listener), Some(agent.clock().now()));
    let (mut connections, mut changed) = (Slab::<Connection>::new(), Vec::new());
    // For each connection a time that is not later than its deadline.
    let mut timers = BTreeSet::<(Timestamp, usize)>::new();
    while listener.is_some() || !connections.is_empty() {
        let timer = timers.first().map(|(at, _)| *at);
        let deadline = timer.into_iter().chain(accept_at).chain(agent.shutdown_deadline()).min();
        ring.wait(deadline.map(|at| at.since(clock.now())))?;
        let now = clock.now();
        while let Some((key, completion)) = ring.completed() {
            match (completion, connections.get_mut(key)) {
                (Completion::Received(input), Some(it)) => it.driver.received(now, handler, HEADROOM, input),
                (Completion::Sent(sent), Some(it)) => it.driver.sent(now, handler, sent),
                _ if key == LISTENER => accept_at = listener.is_some().then_some(now),
                _ => {
                    pipe.read_exact(&mut [0])?;
                    ring.poll(&pipe, WAKES)?;
                    changed.append(&mut wakes.0.lock().unwrap_or_else(PoisonError::into_inner));
                }
            }
            changed.push(key);
        }
        changed.extend(timers.range(..=(now, usize::MAX)).map(|(_, key)| *key));
        let draining = agent.poll_shutdown(now) >= Stage::Drain;
        // A drain also serves the connections that are in the backlog.
        if let Some(open) = listener.as_ref().filter(|_| draining || accept_at.is_some_and(|at| at <= now)) {
            accept_at = agent.accept_all(now, open, entrance, |stream, mut conn| {
                let key = connections.vacant_key();
                conn.set_waker(&Arc::new(Notify(Arc::clone(&wakes), key)).into());
                let driver = CompletionDriver::new(conn);
                connections.insert(Connection { driver, stream, timer: now });
                changed.push(key);
            });
            if draining {
                ring.close(open)?;
                (listener, accept_at) = (None, None);
            } else if accept_at.is_none() {
                ring.poll(open, LISTENER)?;
            }
        }
        for key in changed.drain(..) {
            let Some(Connection { driver, stream, timer }) = connections.get_mut(key) else { continue };
            let deadline = loop {
                match driver.next_operation(now, handler) {
                    Operation::Receive => ring.receive(stream, key)?,
                    Operation::Send => ring.send(stream, key, driver.conn().outgoing())?,
                    Operation::Peek => driver.peeked(now, handler, ioctl_fionread(&*stream) == Ok(0)),
                    Operation::ShutWrite => drop(stream.shutdown(Shutdown::Write)),
                    Operation::Close => ring.close(stream)?,
                    Operation::Wait(deadline) => break Some(deadline.unwrap_or(now + Duration::MAX)),
                    Operation::Over => break None,
                }
            };
            match deadline {
                Some(deadline) if deadline < *timer || *timer <= now => {
                    timers.remove(&(replace(timer, deadline), key));
                    timers.insert((deadline, key));
                }
                Some(_) => {}
                None => {
                    timers.remove(&(*timer, key));
                    connections.remove(key);
                }
            }
        }
    }
    drop(ManuallyDrop::into_inner(ring));
    agent.wait_until_ended();
    agent.ended(clock.now());
    Ok(())
}

struct Connection {
    driver: CompletionDriver,
    stream: TcpStream,
    timer: Timestamp,
}

/// The keys of the connections that were woken. With the first of them a byte is written.
struct Notify(Arc<(Mutex<Vec<usize>>, PipeWriter)>, usize);

impl Wake for Notify {
    fn wake(self: Arc<Self>) {
        let mut keys = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.push(self.1);
        if keys.len() == 1 {
            let _ = (&self.0.1).write(&[0]);
        }
    }
}
