//! An engine of HAProxy, and its connections.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use spop_core::{
    ConnectionId, EngineConfig, MessageList, Timestamp,
    engine::{
        StreamIds,
        pool::{Pool, PoolAction, PoolConfig, RequestId},
    },
    frame::Ids,
    link::Progress,
};

use crate::{
    rng::Rng,
    wire::{ENGINE, Wire},
    world::Weather,
};

pub struct Engine {
    pub pool: Pool,
    /// Whether it may take an answer on another connection.
    pub asynchronous: bool,
    /// Whether it takes a frame in several reads.
    pub cuts: bool,
    pub requests: BTreeMap<RequestId, u64>,
    /// Connections that are being opened: when, and to which agent.
    pub opening: Vec<(Timestamp, ConnectionId, usize)>,
    pub lines: BTreeMap<ConnectionId, Line>,
    /// It gives a request up soon, and reuses its identifiers.
    pub hasty: bool,
    /// The longest request.
    pub longest: usize,
    /// It numbers its streams, as HAProxy 2.6 and 3.0 do.
    numbers: Option<u64>,
    /// The identifiers of requests, and those that may come again: of requests that timed out.
    ids: BTreeMap<RequestId, Ids>,
    reusable: Vec<Ids>,
}

/// A connection that is open.
pub struct Line {
    /// Its server, and its number there.
    pub wire: (usize, ConnectionId),
    inbox: Vec<u8>,
    ended: bool,
    readable: bool,
    writable: bool,
}

impl Engine {
    pub fn new(rng: &mut Rng, weather: Weather, number: usize, agents: usize, now: Timestamp) -> Self {
        let mut cuts = true;
        // With `continue-on-error`, the next event follows soon.
        let hasty = weather == Weather::Calm && rng.permille(500);
        // Only the first can take an answer on another connection.
        let profile = if weather == Weather::Losses || hasty { rng.below(3) } else { rng.below(5) };
        let mut config = match profile {
            0 | 1 => EngineConfig::haproxy_2_6(),
            2 => {
                cuts = false;
                EngineConfig::haproxy_3_1()
            }
            3 => EngineConfig::haproxy_3_2(),
            _ => EngineConfig::default(),
        };
        let asynchronous = config.capabilities.contains(spop_core::frame::Capabilities::ASYNC);
        if asynchronous {
            config.engine_id = Some(format!("engine-{number}").into());
        }
        config.timeouts.message = Some(Duration::from_millis(if hasty { 1_500 } else { 5_000 }));
        config.max_frame_size = rng.pick(&[1_000, 16_380]);
        // Few: the more connections.
        config.max_waiting_frames = if weather == Weather::Losses || hasty { 3 } else { rng.pick(&[8, 20]) };
        let longest = if config.send_frag_payload { 40_000 } else { config.max_frame_size as usize - 100 };
        let numbers = (config.profile.stream_ids == StreamIds::Streams).then_some(0);
        let mut config = PoolConfig::new(config, agents);
        // Enough for requests that are never answered, and occupy a connection until they time out.
        config.max_connections = rng.pick(&[16, 40]);
        config.max_retry_after = Duration::from_millis(500);
        if rng.permille(300) {
            config.check_every = Some(Duration::from_millis(100));
        }
        let pool = Pool::new(config.checked().unwrap(), now);
        Self {
            pool,
            asynchronous,
            cuts,
            requests: BTreeMap::new(),
            opening: Vec::new(),
            lines: BTreeMap::new(),
            longest,
            numbers,
            hasty,
            ids: BTreeMap::new(),
            reusable: Vec::new(),
        }
    }

    /// A request of about this length.
    pub fn ask(&mut self, now: Timestamp, rng: &mut Rng, n: u64, name: &str, length: usize) -> bool {
        let mut messages = MessageList::new();
        messages.message(name).arg("n", n).arg("body", "x".repeat(length).as_str());
        let ids = self.numbers.as_mut().map(|next| {
            let again = self.reusable.pop().filter(|_| rng.permille(700));
            again.unwrap_or_else(|| {
                *next += 1;
                Ids::new(*next, 1)
            })
        });
        match self.pool.ask(now, ids, &messages) {
            Ok(request) => {
                assert!(self.requests.insert(request, n).is_none());
                self.ids.extend(ids.map(|ids| (request, ids)));
                true
            }
            Err(_) => false,
        }
    }

    /// How many identifiers may come again.
    pub fn reusable(&self) -> usize {
        self.reusable.len()
    }

    /// The number of a request that has ended.
    pub fn end(&mut self, request: RequestId, timed_out: bool) -> u64 {
        let ids = self.ids.remove(&request);
        self.reusable.extend(ids.filter(|_| timed_out));
        self.requests.remove(&request).expect("it was asked")
    }

    /// The address of a connection: any of its network, as a host with IPv6 has.
    pub fn address(number: usize, rng: &mut Rng) -> SocketAddr {
        let network = 0x2001_0db8_0000_0000 | number as u64;
        (Ipv6Addr::from_bits(u128::from(network) << 64 | u128::from(rng.next())), 1024).into()
    }

    pub fn opened(&mut self, now: Timestamp, connection: ConnectionId, wire: (usize, ConnectionId)) {
        self.lines.insert(
            connection,
            Line { wire, inbox: Vec::new(), ended: false, readable: true, writable: true },
        );
        self.pool.on_open(now, connection);
    }

    pub fn next_event(&self) -> Option<Timestamp> {
        self.opening.iter().map(|(at, ..)| *at).chain(self.pool.deadline()).min()
    }

    /// The outcomes since the last call.
    pub fn actions(&mut self, now: Timestamp, rng: &mut Rng) -> Vec<PoolAction> {
        let mut outcomes = Vec::new();
        while let Some(action) = self.pool.next_action() {
            match action {
                PoolAction::Open { connection, agent } => {
                    self.opening.push((now + rng.up_to(Duration::from_millis(3)), connection, agent));
                }
                PoolAction::Answered { .. } | PoolAction::Failed { .. } => outcomes.push(action),
                _ => {}
            }
        }
        outcomes
    }

    /// Reads, writes and closes what can be. True if something happened.
    pub fn drive(
        &mut self,
        now: Timestamp,
        wires: &mut BTreeMap<(usize, ConnectionId), Wire>,
        rng: &mut Rng,
    ) -> bool {
        let mut any = false;
        if self.pool.deadline().is_some_and(|at| at <= now) {
            self.pool.on_timeout(now);
            any = true;
        }
        let Self { pool, lines, .. } = self;
        lines.retain(|connection, line| {
            let Some(wire) = wires.get_mut(&line.wire) else { return false };
            let (readable, writable) = wire.take_ready(ENGINE);
            line.readable |= readable;
            line.writable |= writable;
            if wire.reset {
                pool.on_transport_error(now, *connection);
            }
            loop {
                let interest = pool.interest(*connection);
                if interest.close {
                    wire.close(ENGINE, now);
                    pool.on_closed(now, *connection);
                    any = true;
                    return false;
                } else if interest.write && line.writable {
                    match wire.write(ENGINE, now, rng, pool.outgoing(*connection)) {
                        Ok(n) => pool.on_sent(now, *connection, n).unwrap(),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => line.writable = false,
                        Err(_) => pool.on_transport_error(now, *connection),
                    }
                } else if interest.shut.is_some() {
                    wire.shut(ENGINE, now);
                    pool.on_write_shut(now, *connection, Progress::Done).unwrap();
                } else if interest.resume {
                    let used = pool.on_bytes(now, *connection, &line.inbox);
                    line.inbox.drain(..used);
                } else if interest.read && line.readable && !line.ended {
                    let mut space = [0; 4_096];
                    match wire.read(ENGINE, rng, &mut space) {
                        Ok(0) => {
                            line.ended = true;
                            let used = pool.on_input_eof(now, *connection, &line.inbox);
                            line.inbox.drain(..used);
                        }
                        Ok(n) => {
                            line.inbox.extend(&space[..n]);
                            let used = pool.on_bytes(now, *connection, &line.inbox);
                            line.inbox.drain(..used);
                        }
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => line.readable = false,
                        Err(_) => pool.on_transport_error(now, *connection),
                    }
                } else {
                    return true;
                }
                any = true;
            }
        });
        any
    }
}
