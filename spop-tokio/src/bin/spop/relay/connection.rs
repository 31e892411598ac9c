//! One connection: HAProxy's, and the one to the agent.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use spop_core::{Clock, accept::Peer, link::Side, notation::Direction};
use tokio::{
    io::split,
    net::{TcpStream, UnixStream},
    pin,
    time::{sleep, timeout},
};

use super::{
    faults::Faults,
    pump::{End, Pump},
    tap::{Ends, Tap},
    unix_ends,
};
use crate::{
    accept::{Entered, Entrance},
    address::{Connector, Socket, Transport as _},
};

/// How long one direction stays open behind the other.
const HALF_CLOSED: Duration = Duration::from_secs(60);

/// How long a connection stays open whose agent cannot be reached. HAProxy waits as long for a server that refuses it, and some
/// versions connect again at once where one closes: thousands of times a second.
const UNREACHABLE: Duration = Duration::from_secs(1);

/// A connection that was accepted.
pub(super) struct Relaying {
    pub(super) target: Arc<Connector>,
    /// TLS, if it ends here.
    pub(super) entrance: Option<Arc<Entrance>>,
    pub(super) faults: Faults,
    pub(super) tap: Tap,
}

impl Relaying {
    /// Relays a connection to its end.
    pub(super) async fn run(self, socket: Socket<TcpStream, UnixStream>, peer: Peer) {
        let Self { target, entrance, faults, mut tap } = self;
        let number = tap.connection();
        let (ends, name) = match &socket {
            Socket::Tcp(socket) => match (socket.peer_addr(), socket.local_addr()) {
                (Ok(haproxy), Ok(relay)) => {
                    (Ends { haproxy: plain(haproxy), relay: plain(relay) }, peer.to_string())
                }
                // It is closed already.
                _ => return,
            },
            Socket::Unix(_) => {
                let ends = unix_ends(number);
                (ends, ends.haproxy.to_string())
            }
        };
        let mut haproxy = socket.boxed();
        let mut input = BytesMut::new();
        if let Some(entrance) = entrance {
            match entrance.pass(haproxy, peer, &Clock::start()).await {
                Ok(Entered { io, input: read, .. }) => (haproxy, input) = (io, read),
                Err(why) => return tap.refused(name, why),
            }
        }
        let agent = match target.open().await {
            Ok(agent) => agent,
            Err(failure) => {
                tap.refused(name, failure.to_string());
                return sleep(UNREACHABLE).await;
            }
        };
        let answers = tap.opened(ends);
        let mut to_agent = Pump::new(tap.clone(), faults.of(number, Direction::ToAgent));
        let mut to_haproxy = Pump::new(answers, faults.of(number, Direction::ToHaproxy));
        to_agent.received(&input);

        let (mut from_haproxy, mut into_haproxy) = split(haproxy);
        let (mut from_agent, mut into_agent) = split(agent);
        let ends = {
            let requests = to_agent.run(&mut from_haproxy, &mut into_agent);
            let answers = to_haproxy.run(&mut from_agent, &mut into_haproxy);
            both(requests, answers).await
        };
        let is_reset = ends
            .iter()
            .flatten()
            .any(|end| matches!(end, End::Reset | End::Gone | End::Stalled | End::Fault { reset: true }));
        let (haproxy, agent) = (from_haproxy.unsplit(into_haproxy), from_agent.unsplit(into_agent));
        if is_reset {
            tap.reset(Side::Agent);
            haproxy.reset_on_close();
            agent.reset_on_close();
        }
        tap.over();
    }
}

/// Runs both directions until the connection is over: how each has ended.
async fn both(requests: impl Future<Output = End>, answers: impl Future<Output = End>) -> [Option<End>; 2] {
    pin!(requests, answers);
    let (first, of_requests) = tokio::select! {
        end = &mut requests => (end, true),
        end = &mut answers => (end, false),
    };
    if matches!(first, End::Reset | End::Stalled | End::Fault { .. }) {
        return [Some(first), None];
    }
    // What is still under way in the other direction passes.
    let second = timeout(HALF_CLOSED, async { if of_requests { answers.await } else { requests.await } });
    [Some(first), second.await.ok()]
}

/// Without what a recording does not have.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}
