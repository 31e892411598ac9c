//! The bytes of a file or of standard input.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read},
    path::{Path, PathBuf},
    thread,
};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::{self, Receiver};

use crate::exit::Failure;

/// Bytes that are read at once.
const READ: usize = 64 << 10;

/// Reads ahead.
const AHEAD: usize = 4;

/// A file, or standard input.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) reads: Receiver<io::Result<Bytes>>,
}

impl Source {
    /// Without a file, or if its name is `-`, standard input is read.
    ///
    /// A thread of its own reads, so that ^C ends the command while it waits for bytes.
    pub(super) fn open(file: Option<&PathBuf>) -> Result<Self, Failure> {
        let file = file.filter(|file| file.as_path() != Path::new("-"));
        let (name, reader): (_, Box<dyn Read + Send>) = match file {
            Some(file) => {
                let name = file.display().to_string();
                let opened = File::open(file).map_err(|error| Failure::io_of(&name, &error))?;
                (name, Box::new(opened))
            }
            None if io::stdin().is_terminal() => {
                return Err(Failure::usage("a FILE is expected: standard input is a terminal"));
            }
            None => ("standard input".to_owned(), Box::new(io::stdin())),
        };
        let (sender, reads) = mpsc::channel(AHEAD);
        thread::spawn(move || {
            read(reader, |read| sender.blocking_send(read).is_ok());
        });
        Ok(Self { name, reads })
    }
}

/// Passes on what is read until the end, an error, or `each` is false.
fn read(mut reader: impl Read, mut each: impl FnMut(io::Result<Bytes>) -> bool) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.resize(READ, 0);
        let read = match reader.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => Ok(buffer.split_to(len).freeze()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if !each(read) || failed {
            return;
        }
    }
}
