//! How a command ends: its exit status, and the line that says why.

use std::{
    fmt,
    io::{self, Write as _},
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime,
    signal::{
        ctrl_c,
        unix::{Signal, SignalKind, signal},
    },
};

/// How long after ^C a command may wait for its output.
const STUCK: Duration = Duration::from_secs(1);

/// How long the last line may wait for standard error.
const LAST_LINE: Duration = Duration::from_millis(100);

/// The exit status, as the help texts show it.
pub(crate) const HELP: &str = "\
Exit status:
  0    fine
  1    the peer or the input is wrong: a problem was found, a request failed
  2    the command line is wrong
  3    no connection, or an I/O error
  130  interrupted";

/// The exit status of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Fine = 0,
    /// The peer or the input is wrong.
    Wrong = 1,
    Usage = 2,
    /// No connection, or an I/O error.
    Io = 3,
    Interrupted = 130,
}

impl Exit {
    /// `Fine` if nothing is wrong.
    pub(crate) const fn unless(wrong: bool) -> Self {
        if wrong { Self::Wrong } else { Self::Fine }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What ends a command early. It is shown as one line.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    text: String,
}

impl Failure {
    /// The peer or the input is wrong.
    pub(crate) fn wrong(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Wrong, text: text.to_string() }
    }

    /// The command line is wrong.
    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, text: text.to_string() }
    }

    /// An I/O error.
    pub(crate) fn io(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Io, text: text.to_string() }
    }

    /// An I/O error of the thing with this name.
    pub(crate) fn io_of(name: impl fmt::Display, error: &io::Error) -> Self {
        Self::io(format_args!("{name}: {}", reason(error)))
    }

    /// The user has pressed ^C.
    pub(crate) fn interrupted() -> Self {
        Self { exit: Exit::Interrupted, text: "interrupted".into() }
    }

    /// Shows it on standard error.
    pub(crate) fn show(&self) {
        if !self.text.is_empty() {
            // Nothing is left to do where standard error is closed.
            let _ = writeln!(io::stderr(), "spop: {self}");
        }
    }

    /// The reader of the output has gone, as `head` does: nothing is wrong, and nothing is left to do.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Fine, text: String::new() },
            _ => Self::io_of("standard output", error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.text))
    }
}

/// A text of the system, of another crate or of a peer as one line, in which no control character reaches a terminal.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for (index, part) in text.lines().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        for char in part.trim().chars() {
            if char.is_control() {
                line.extend(char.escape_default());
            } else {
                line.push(char);
            }
        }
    }
    line
}

/// The message of an I/O error as one line, without the number that std appends.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = one_line(&error.to_string());
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        // "Connection refused", but not "TLS …".
        Some(first) if chars.as_str().starts_with(|ch: char| ch.is_lowercase()) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// ^C, also one that was pressed since the last that was waited for.
pub(crate) struct Interrupt(Signal);

impl Interrupt {
    /// From now on ^C does not end the process.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Self::of(SignalKind::interrupt())
    }

    fn of(kind: SignalKind) -> Result<Self, Failure> {
        signal(kind).map(Self).map_err(|error| Failure::io_of("signals", &error))
    }

    /// Waits until it is pressed.
    pub(crate) async fn pressed(&mut self) {
        // Without a runtime there are no more signals, and nothing runs.
        let _ = self.0.recv().await;
    }
}

/// Runs a command until it ends, or the user presses ^C.
pub(crate) async fn interruptible<T>(
    command: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    interruptible_by(&mut Interrupt::listen()?, command).await
}

/// As [`interruptible`], for one of several parts of a command.
pub(crate) async fn interruptible_by<T>(
    interrupt: &mut Interrupt,
    command: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    exit_when_stuck(Arc::clone(&ended));
    let result = tokio::select! {
        result = command => result,
        () = interrupt.pressed() => Err(Failure::interrupted()),
    };
    ended.store(true, Ordering::Relaxed);
    result
}

/// Ends the process after ^C if the command has not ended: it does not notice it while its output is a pipe that is not read.
fn exit_when_stuck(ended: Arc<AtomicBool>) {
    thread::spawn(move || {
        let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else { return };
        if runtime.block_on(ctrl_c()).is_err() || ended.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(STUCK);
        if !ended.load(Ordering::Relaxed) {
            // Standard error may be the same pipe.
            thread::spawn(|| Failure::interrupted().show());
            thread::sleep(LAST_LINE);
            process::exit(Exit::Interrupted as i32);
        }
    });
}

/// Shows a line on standard error that is no part of the output.
pub(crate) fn warn(text: fmt::Arguments<'_>) {
    Failure::wrong(text).show();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_of_a_text_reaches_a_terminal() {
        let text = "no\u{1b}]0;x\u{7} \u{9b}2J\u{7f}\r\0\n  second é\r\n\tthird\t";
        let expected = "no\\u{1b}]0;x\\u{7} \\u{9b}2J\\u{7f}\\r\\u{0} second é third";
        assert_eq!(Failure::wrong(text).to_string(), expected);
        let error = io::Error::other(text);
        assert_eq!(reason(&error), expected);
        assert_eq!(Failure::io_of("x", &error).to_string(), format!("x: {expected}"));
    }

    #[tokio::test]
    async fn an_interrupt_between_two_parts_ends_the_second() {
        // Another signal: ^C is the whole process's.
        let mut interrupt = Interrupt::of(SignalKind::user_defined1()).unwrap();
        interruptible_by(&mut interrupt, async { Ok(()) }).await.unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1).unwrap();
        let second = interruptible_by(&mut interrupt, std::future::pending::<Result<(), _>>());
        let ended = tokio::time::timeout(Duration::from_secs(10), second).await.unwrap();
        assert_eq!(ended.unwrap_err().exit, Exit::Interrupted);
    }
}
