//! A peer that speaks in the notation of `spop_core`.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use spop_core::{frame::Frame, notation};

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
}

pub(crate) fn bytes(line: &str) -> Vec<u8> {
    notation::parse_bytes(line).unwrap()
}

impl Peer {
    pub(crate) fn connect(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// A session with pipelining and fragments; with async if there is an engine-id.
    pub(crate) fn session(address: &str, engine: &str) -> Self {
        let mut peer = Self::connect(address).unwrap();
        let (capabilities, engine) = match engine {
            "" => ("pipelining,fragmentation", String::new()),
            engine => ("pipelining,async", format!(" engine-id=string:{engine}")),
        };
        peer.send([format!(
            r#"HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:"{capabilities}"{engine}"#
        )]);
        let hello = peer.receive();
        assert!(hello.starts_with("AGENT-HELLO"), "{hello}");
        peer
    }

    /// Sends frames together.
    pub(crate) fn send<T: AsRef<str>>(&mut self, lines: impl IntoIterator<Item = T>) {
        let all: Vec<u8> = lines.into_iter().flat_map(|line| bytes(line.as_ref())).collect();
        self.stream.write_all(&all).unwrap();
    }

    pub(crate) fn receive(&mut self) -> String {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        notation::print(Frame::decode(&frame).unwrap()).to_string()
    }

    pub(crate) fn expect(&mut self, line: &str) {
        assert_eq!(self.receive(), line);
    }

    pub(crate) fn ask(&mut self) {
        self.send(["NOTIFY fin 77 1 m a=int32:7"]);
        self.expect("ACK fin 77 1 set txn m.a=int32:7");
    }

    pub(crate) fn expect_disconnect(&mut self) {
        let frame = self.receive();
        assert!(frame.starts_with("AGENT-DISCONNECT"), "{frame}");
    }

    /// Ends the session.
    pub(crate) fn disconnect(&mut self) {
        self.send(["HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye"]);
        self.expect_disconnect();
    }

    pub(crate) fn shut(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    pub(crate) fn expect_eof(&mut self) {
        assert_eq!(self.stream.read(&mut [0]).unwrap(), 0);
    }

    /// It ends, in whatever way.
    pub(crate) fn expect_some_end(&mut self) {
        match self.stream.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => {}
        }
    }
}
