//! Lines of standard input.

use std::{
    io::{self, BufRead as _, Read as _},
    thread,
};

use tokio::sync::mpsc::{self, Receiver};

use crate::exit::Failure;

/// The longest line, in bytes: the limit of a line's repetitions in the notation.
const LINE_MAX: usize = 16 << 20;

/// Lines that are read ahead.
const AHEAD: usize = 16;

/// A line, and its number from 1.
pub(crate) type Line = (u64, Result<String, Failure>);

/// The lines of standard input, without those that are blank or begin with `#`. A line that is no text is an error of this line
/// only.
///
/// They are read by a thread of their own, so that ^C ends the command while it waits for one.
pub(crate) fn lines() -> Receiver<Line> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        for number in 1.. {
            let line = match read(&mut stdin, number) {
                Ok(None) => return,
                Ok(Some(line)) if line.is_empty() || line.starts_with('#') => continue,
                Ok(Some(line)) => Ok(line),
                Err(failure) => Err(failure),
            };
            if sender.blocking_send((number, line)).is_err() {
                return;
            }
        }
    });
    receiver
}

fn read(stdin: &mut io::StdinLock<'_>, number: u64) -> Result<Option<String>, Failure> {
    let mut line = Vec::new();
    let read = stdin.by_ref().take(LINE_MAX as u64).read_until(b'\n', &mut line);
    match read.map_err(|error| Failure::io_of("standard input", &error))? {
        0 => return Ok(None),
        LINE_MAX if line.last() != Some(&b'\n') => {
            stdin.skip_until(b'\n').map_err(|error| Failure::io_of("standard input", &error))?;
            return Err(Failure::wrong(format_args!("line {number}: longer than {LINE_MAX} bytes")));
        }
        _ => {}
    }
    match String::from_utf8(line) {
        Ok(line) => Ok(Some(line.trim().to_owned())),
        Err(error) => {
            let at = error.utf8_error().valid_up_to() + 1;
            Err(Failure::wrong(format_args!(
                "line {number}: byte {at} is not UTF-8: write \\x and two digits in a quoted text"
            )))
        }
    }
}
