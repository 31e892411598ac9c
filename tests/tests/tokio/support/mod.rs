//! A peer that speaks in sentences, over any stream.
#![allow(dead_code, unreachable_pub)] // No test uses all of it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that panics has failed.

pub mod log;
pub mod pki;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use spop_core::{AgentConfig, frame::Frame, notation};
use spop_tokio::{Address, Endpoint, Handler, Server, ServerConfig, ServerHandle};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// No test takes longer than this; if it does, something hangs.
pub fn within<T>(test: impl Future<Output = T>) -> impl Future<Output = T> {
    let test = Box::pin(test);
    // `tracing` caches for the whole process whether a subscriber is interested in an event. If another thread emits the event
    // while this test installs its subscriber, the cache can stay at "none". A subscriber for all events, installed first,
    // prevents that.
    let all_events = tracing::subscriber::set_default(tracing_subscriber::registry());
    async {
        let _all_events = all_events;
        timeout(Duration::from_secs(20), test).await.expect("the test hangs")
    }
}

/// Waits until something is so that no event announces. No other test waits for time to pass.
pub async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// The one line that is logged.
pub async fn logged(log: &log::Log) -> String {
    let mut lines = Vec::new();
    until("a line is logged", || {
        lines.extend(log.take());
        !lines.is_empty()
    })
    .await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// Lets the other tasks of this thread do all that they can do at once.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A server on a free port of its own.
pub struct Running {
    pub address: Address,
    pub handle: ServerHandle,
    pub task: JoinHandle<()>,
}

impl Running {
    pub async fn start(handler: impl Handler) -> Self {
        Self::with(handler, AgentConfig::default()).await
    }

    pub async fn with(handler: impl Handler, config: impl Into<ServerConfig>) -> Self {
        Self::on(handler, config, Endpoint::from("127.0.0.1:0")).await
    }

    pub async fn on(handler: impl Handler, config: impl Into<ServerConfig>, endpoint: Endpoint) -> Self {
        Self::of(Server::with_config(handler, config).unwrap().bind(endpoint).await.unwrap())
    }

    pub fn of(server: Server<impl Handler>) -> Self {
        let address = server.addresses().unwrap().remove(0);
        let handle = server.handle();
        Self { address, handle, task: tokio::spawn(async { server.serve().await.unwrap() }) }
    }

    pub async fn connect(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.address.tcp().unwrap()).await.unwrap())
    }

    /// A connection whose handshake is done.
    pub async fn session(&self) -> Client<TcpStream> {
        let mut client = self.connect().await;
        client.greet().await;
        client
    }
}

pub struct Client<I> {
    pub io: I,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Client<I> {
    pub fn new(io: I) -> Self {
        Self { io }
    }

    pub async fn greet(&mut self) {
        self.greet_as("e1", "pipelining,async").await;
    }

    pub async fn greet_as(&mut self, engine: &str, capabilities: &str) {
        self.send(&format!(
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
             capabilities=string:\"{capabilities}\" engine-id=string:{engine}"
        ))
        .await;
        let hello = self.receive().await.unwrap();
        assert!(hello.starts_with("AGENT-HELLO fin 0 0"), "{hello}");
    }

    /// Sends sentences, one a line, in one write.
    pub async fn send(&mut self, sentences: &str) {
        let lines = sentences.lines().map(str::trim).filter(|line| !line.is_empty());
        let bytes: Vec<u8> = lines.flat_map(|line| notation::parse_bytes(line).unwrap()).collect();
        self.io.write_all(&bytes).await.unwrap();
    }

    /// The next frame as a sentence; `None` at the end.
    pub async fn receive(&mut self) -> Option<String> {
        let length = self.io.read_u32().await.ok()?;
        let mut frame = vec![0; length as usize];
        self.io.read_exact(&mut frame).await.unwrap();
        Some(notation::print(Frame::decode(&frame).unwrap()).to_string())
    }

    pub async fn expect(&mut self, sentences: &str) {
        for line in sentences.lines().map(str::trim).filter(|line| !line.is_empty()) {
            assert_eq!(self.receive().await.as_deref(), Some(line));
        }
    }

    /// Sends a NOTIFY and reads its answer.
    pub async fn ask(&mut self, sentence: &str, answer: &str) {
        self.send(sentence).await;
        self.expect(answer).await;
    }
}
