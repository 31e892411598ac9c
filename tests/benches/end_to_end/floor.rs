//! The floor: an epoll loop that walks over the arguments, patches identifiers into a finished ACK, and writes once for
//! each read. It has no limits, no timers and no answer to anything but a HELLO and NOTIFYs.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result};
use rustix::event::epoll::{self, EventData, EventFlags};
use spop_core::notation;

use super::{question::actions, walk};

const LISTENER: u64 = u64::MAX;
/// What one read takes at most.
const READ: usize = 64 * 1024;

struct Conn {
    stream: TcpStream,
    /// A frame that is not whole.
    rest: Vec<u8>,
}

struct Floor {
    listener: TcpListener,
    epoll: OwnedFd,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    hello: Vec<u8>,
    acks: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

pub fn serve(listener: TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let hello =
        "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining";
    let mut floor = Floor {
        listener,
        epoll,
        conns: Vec::new(),
        free: Vec::new(),
        hello: notation::parse_bytes(hello)?,
        acks: walk::canned(actions().as_bytes()),
        buffer: vec![0; READ],
        out: Vec::new(),
    };
    let mut events = Vec::with_capacity(1024);
    loop {
        events.clear();
        epoll::wait(&floor.epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            match event.data.u64() {
                LISTENER => floor.accept()?,
                key => {
                    if floor.turn(key as usize).is_none() {
                        floor.remove(key as usize);
                    }
                }
            }
        }
    }
}

impl Floor {
    fn accept(&mut self) -> Result<()> {
        loop {
            let (stream, _) = match self.listener.accept() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                accepted => accepted.context("accept")?,
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let key = self.free.pop().unwrap_or_else(|| {
                self.conns.push(None);
                self.conns.len() - 1
            });
            epoll::add(&self.epoll, &stream, EventData::new_u64(key as u64), EventFlags::IN)?;
            self.conns[key] = Some(Conn { stream, rest: Vec::new() });
        }
    }

    /// One read, one write; `None` ends the connection.
    fn turn(&mut self, key: usize) -> Option<()> {
        let conn = self.conns.get_mut(key)?.as_mut()?;
        let kept = conn.rest.len();
        self.buffer.get_mut(..kept)?.copy_from_slice(&conn.rest);
        let n = match conn.stream.read(self.buffer.get_mut(kept..)?) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
            read => read.ok().filter(|n| *n > 0)?,
        };
        let mut bytes = self.buffer.get(..kept + n)?;
        self.out.clear();
        while let Some(prefix) = bytes.first_chunk::<4>() {
            if bytes.len() < 4 + u32::from_be_bytes(*prefix) as usize {
                break;
            }
            let len = if bytes.get(4)? == &1 {
                self.out.extend_from_slice(&self.hello);
                4 + u32::from_be_bytes(*prefix) as usize
            } else {
                walk::answer(bytes, &self.acks, &mut self.out)?
            };
            bytes = bytes.get(len..)?;
        }
        conn.rest.clear();
        conn.rest.extend_from_slice(bytes);
        // It is never so much that it does not fit.
        conn.stream.write_all(&self.out).ok()
    }

    fn remove(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key)
            && conn.take().is_some()
        {
            self.free.push(key);
        }
    }
}
