//! As much HTTP/1.1 as the tests need: a request on a connection of its own, many on one, and a server that always says
//! 200.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

/// A request that has no answer after this time hangs. Above every timeout in the configurations of HAProxy.
pub const HANG: Duration = Duration::from_secs(20);

/// An HTTP request under construction.
#[derive(Clone, Debug)]
pub struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
    source: Option<IpAddr>,
}

impl Request {
    /// A GET request for `path`.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A POST request that carries `body`.
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        Self { body, ..Self::new("POST", path).header("content-length", length) }
    }

    /// An OPTIONS request for `path`, or for `*`.
    pub fn options(path: &str) -> Self {
        Self::new("OPTIONS", path)
    }

    fn new(method: &str, path: &str) -> Self {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n").into_bytes();
        Self { head, body: Vec::new(), source: None }
    }

    /// What follows the headers, whatever they say of its length.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// For this host, and not for `test`.
    #[must_use]
    pub fn host(mut self, name: &str) -> Self {
        let old = b"host: test\r\n";
        if let Some(start) = self.head.windows(old.len()).position(|part| part == old) {
            self.head.splice(start..start + old.len(), format!("host: {name}\r\n").into_bytes());
        }
        self
    }

    /// Adds a header; its value need not be UTF-8.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.head.extend_from_slice(name.as_bytes());
        self.head.extend_from_slice(b": ");
        self.head.extend_from_slice(value.as_ref());
        self.head.extend_from_slice(b"\r\n");
        self
    }

    /// The local address to connect from, such as 127.0.0.2.
    #[must_use]
    pub fn source(mut self, address: impl Into<IpAddr>) -> Self {
        self.source = Some(address.into());
        self
    }

    /// Sends the request on a connection of its own and waits for the whole reply.
    ///
    /// # Errors
    /// No connection, no reply within [`HANG`], or a reply that is not HTTP.
    pub fn send(&self, to: SocketAddr) -> Result<Reply> {
        let start = Instant::now();
        let mut stream = match self.source {
            None => TcpStream::connect(to).context("cannot connect")?,
            Some(source) => {
                connect_from(source, to).with_context(|| format!("cannot connect from {source}"))?
            }
        };
        stream.set_read_timeout(Some(HANG))?;
        stream.write_all(&self.message("connection: close\r\n")).context("cannot send the request")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(incomplete)?;
        Reply::parse(&answer, start.elapsed())
    }

    fn message(&self, more: &str) -> Vec<u8> {
        [&*self.head, more.as_bytes(), b"\r\n", &self.body].concat()
    }
}

fn incomplete(error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::WouldBlock => anyhow!("the request hangs: no reply within {HANG:?}"),
        _ => anyhow!(error).context("the connection broke before the reply was complete"),
    }
}

/// A connection for one request after another.
#[derive(Debug)]
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).context("cannot connect")?;
        stream.set_read_timeout(Some(HANG))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and waits for the whole reply. After an error the connection is of no use.
    ///
    /// # Errors
    /// No reply within [`HANG`], or one that is not HTTP.
    pub fn send(&mut self, request: &Request) -> Result<Reply> {
        let start = Instant::now();
        self.0.get_mut().write_all(&request.message("")).context("cannot send the request")?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = self.0.read_until(b'\n', &mut head).map_err(incomplete)?;
            ensure!(read > 0, "the connection closed before a reply was complete");
        }
        let reply = Reply::parse(&head, start.elapsed())?;
        let length = reply.header("content-length").context("a reply without a length")?.parse()?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).map_err(incomplete)?;
        Ok(reply)
    }
}

pub(crate) fn connect_from(source: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // No agent that is started meanwhile shall have it too.
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    connect(&socket, &to)?;
    Ok(socket.into())
}

/// A complete HTTP reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// From before the connection was made until the reply was complete.
    pub took: Duration,
    /// The body; without it of a [`Client`].
    pub body: String,
    headers: Vec<(String, String)>,
}

impl Reply {
    fn parse(answer: &[u8], took: Duration) -> Result<Self> {
        let text = String::from_utf8_lossy(answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            bail!("the connection closed before a reply was complete; it said {text:?}");
        };
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Self { status: status.context("not an HTTP reply")?, took, headers, body: body.to_owned() })
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The values of a header that may come several times, in order.
    pub fn header_all(&self, name: &str) -> impl Iterator<Item = &str> {
        let headers = self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name));
        headers.map(|(_, value)| value.as_str())
    }

    /// A variable that the configuration shows ([`Config::show`](crate::haproxy::Config::show)); `None` if not set.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.header(&format!("x-{name}"))
    }

    /// The error that HAProxy met on the way to the agent: SPOE's `option set-on-error`.
    pub fn error(&self) -> Option<&str> {
        self.var("error")
    }

    /// Checks that nothing went wrong and that these variables have these values.
    ///
    /// # Errors
    /// The first thing that is not so.
    pub fn expect(&self, vars: &[(&str, &str)]) -> Result<()> {
        ensure!(self.status == 200, "HTTP status {}", self.status);
        ensure!(self.error().is_none(), "SPOE error {:?} after {:?}", self.error(), self.took);
        for &(name, value) in vars {
            ensure!(self.var(name) == Some(value), "{name} is {:?}, not {value:?}", self.var(name));
        }
        Ok(())
    }

    /// Checks that these variables were not set, although nothing went wrong.
    ///
    /// # Errors
    /// The first thing that is not so.
    pub fn expect_unset(&self, names: &[&str]) -> Result<()> {
        self.expect(&[])?;
        for name in names {
            ensure!(self.var(name).is_none(), "{name} is {:?}, and should not be set", self.var(name));
        }
        Ok(())
    }

    /// Checks that HAProxy reports this error.
    ///
    /// # Errors
    /// It does not.
    pub fn expect_error(&self, code: u64) -> Result<()> {
        ensure!(self.error() == Some(&code.to_string()), "the SPOE error is {:?}, not {code}", self.error());
        Ok(())
    }

    /// Checks that the reply came within `limit`: nobody waited for a timeout.
    ///
    /// # Errors
    /// It came later.
    pub fn expect_within(&self, limit: Duration) -> Result<()> {
        ensure!(self.took <= limit, "the reply took {:?}, over {limit:?}", self.took);
        Ok(())
    }
}

/// A web server for HAProxy to stand in front of. Lives until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct WebServer {
    /// Where it listens.
    pub address: SocketAddr,
}

impl WebServer {
    /// Starts the server on a free port.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // HAProxy judges what becomes of a broken connection.
                thread::spawn(move || answer(stream));
            }
        });
        Ok(Self { address })
    }
}

/// A web server that replies with this to each request, one on a connection, and hands out what it got: head, body and trailers.
///
/// # Errors
/// It cannot listen.
pub fn record(reply: impl Into<Vec<u8>>) -> Result<(SocketAddr, Receiver<String>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (address, reply) = (listener.local_addr()?, reply.into());
    let (told, heard) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (told, reply) = (told.clone(), reply.clone());
            thread::spawn(move || -> Result<()> {
                let mut stream = stream;
                stream.set_read_timeout(Some(HANG))?;
                let mut message = Vec::new();
                while !is_whole(&message) {
                    let mut byte = [0];
                    stream.read_exact(&mut byte)?;
                    message.extend_from_slice(&byte);
                }
                // The test may have what it wants.
                let _ = told.send(String::from_utf8_lossy(&message).into_owned());
                Ok(stream.write_all(&reply)?)
            });
        }
    });
    Ok((address, heard))
}

fn is_whole(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    match header("content-length").and_then(|length| length.parse().ok()) {
        Some(length) => body.len() >= length,
        None if header("transfer-encoding").is_some() => {
            // The last chunk, and trailers if there are any.
            (body.starts_with("0\r\n") || body.contains("\r\n0\r\n")) && body.ends_with("\r\n\r\n")
        }
        None => true,
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(HANG))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n")?;
    Ok(())
}
