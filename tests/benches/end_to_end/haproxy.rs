//! HAProxy as the client: requests per second, and what they take of the agent.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{
    Timespec,
    epoll::{self, EventData, EventFlags},
};
use spop_tests::haproxy::{Binary, Config, Haproxy};

use super::{
    load::Outcome,
    measure::{Sample, cpu_at_rest, median},
    process::{AGENT_CORE, Process},
    question::{SCORE, VARIABLE},
    serve::Agent,
};

/// Clients of HAProxy, each with one request at a time on a connection that stays.
const CLIENTS: [usize; 2] = [64, 512];
const VERSIONS: [&str; 2] = ["2.6", "3.4"];

pub fn run(agents: &[Agent], rounds: usize, time: Duration) -> Result<()> {
    for version in VERSIONS {
        for clients in CLIENTS {
            compare(&Binary::of(version)?, clients, agents, rounds, time)?;
        }
    }
    Ok(())
}

fn compare(binary: &Binary, count: usize, agents: &[Agent], rounds: usize, time: Duration) -> Result<()> {
    println!("\nHAProxy {} asks about each request of {count} clients:\n", binary.version());
    let mut pairs = Vec::new();
    for agent in agents {
        let dir = tempfile::tempdir()?;
        let process = Process::start(*agent, &[AGENT_CORE])?;
        // HAProxy closes connections that become idle while it uses more than so many percent of its file descriptors (20 by
        // default). Without pipelining it needs a connection for each request at a time.
        let config = Config::new(&process.address.to_string())
            .global("tune.pool-low-fd-ratio 90")
            .global("tune.pool-high-fd-ratio 95")
            .message("check-client-ip", "ip=src ua=req.fhdr(user-agent)")
            .show_in("sess", VARIABLE);
        let haproxy = Haproxy::start(binary, dir.path(), &config)?;
        pairs.push((process, haproxy, dir));
    }
    let mut samples = vec![Vec::new(); agents.len()];
    for round in 0..rounds {
        for turn in 0..agents.len() {
            let index = (turn + round) % agents.len();
            let (process, haproxy, _) = &pairs[index];
            let mut clients = Clients::connect(haproxy.address(), count)?;
            clients.run(Duration::from_millis(50))?;
            let before = cpu_at_rest(process)?;
            let outcome = clients.run(time)?;
            let after = cpu_at_rest(process)?;
            samples[index].push(Sample::new(after - before, outcome));
        }
    }
    println!(
        "| agent | requests per s | of the first's | agent's ns per request | p50 µs | p99 µs |\n|---|---|---|---|---|---|"
    );
    for (agent, runs) in agents.iter().zip(&samples) {
        let middle = |value: fn(&Sample) -> f64| median(runs.iter().map(value));
        let pairs = runs.iter().zip(&samples[0]);
        println!(
            "| {} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} |",
            agent.name(),
            middle(|sample| sample.rate),
            median(pairs.map(|(run, first)| run.rate / first.rate)),
            middle(|sample| sample.cpu),
            middle(|sample| f64::from(sample.latencies[0]) / 1e3),
            middle(|sample| f64::from(sample.latencies[1]) / 1e3),
        );
    }
    Ok(())
}

/// Web clients on one epoll loop.
struct Clients {
    epoll: rustix::fd::OwnedFd,
    clients: Vec<Client>,
}

struct Client {
    stream: TcpStream,
    reply: Vec<u8>,
    asked: Instant,
}

impl Clients {
    fn connect(haproxy: SocketAddr, count: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut clients = Vec::new();
        for key in 0..count {
            let stream = TcpStream::connect(haproxy)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            epoll::add(&epoll, &stream, EventData::new_u64(key as u64), EventFlags::IN)?;
            clients.push(Client { stream, reply: Vec::new(), asked: Instant::now() });
        }
        Ok(Self { epoll, clients })
    }

    /// Asks for so long. Every reply must have the variable that the agent sets.
    fn run(&mut self, time: Duration) -> Result<Outcome> {
        let expected = format!("x-sess.{VARIABLE}: {SCORE}\r\n").into_bytes();
        let start = Instant::now();
        let mut latencies = Vec::new();
        for client in &mut self.clients {
            client.ask()?;
        }
        let mut busy = self.clients.len();
        let mut events = Vec::with_capacity(self.clients.len());
        while busy > 0 {
            events.clear();
            let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&patience))?;
            ensure!(!events.is_empty(), "HAProxy has not replied");
            for event in &events {
                let client = self.clients.get_mut(event.data.u64() as usize).context("no such client")?;
                if !client.read()? {
                    continue;
                }
                let has_variable = client.reply.windows(expected.len()).any(|part| part == expected);
                ensure!(has_variable, "{}", String::from_utf8_lossy(&client.reply));
                latencies.push(u32::try_from(client.asked.elapsed().as_nanos()).unwrap_or(u32::MAX));
                if start.elapsed() < time { client.ask()? } else { busy -= 1 }
            }
        }
        let elapsed = start.elapsed();
        Ok(Outcome::new(&mut latencies, elapsed))
    }
}

impl Client {
    fn ask(&mut self) -> Result<()> {
        self.reply.clear();
        self.asked = Instant::now();
        let request = b"GET / HTTP/1.1\r\nhost: test\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\r\n";
        Ok(self.stream.write_all(request)?)
    }

    /// Whether the reply, which has no body, is whole.
    fn read(&mut self) -> Result<bool> {
        let mut room = [0; 4096];
        match self.stream.read(&mut room) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            read => {
                let n = read?;
                ensure!(n > 0, "HAProxy has closed a connection");
                self.reply.extend_from_slice(room.get(..n).unwrap_or_default());
            }
        }
        Ok(self.reply.ends_with(b"\r\n\r\n"))
    }
}
