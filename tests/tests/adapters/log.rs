//! The warnings of servers, for scenarios that read them.

use std::fmt;
use std::io;
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Result, ensure};
use spop_tests::peer::Peer;
use spop_tests::wait::{PATIENCE, until_true};
use tracing::{Event, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format::Writer};
use tracing_subscriber::registry::LookupSpan;

/// What all servers of this process have logged, in lines. Threads of a server inherit no subscriber, so there is one for all.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The warnings since it was started. Other scenarios log at the same time: a line is known by its event's name and by what it
/// says, such as the address of a peer.
pub(crate) struct Log {
    begin: usize,
}

impl Log {
    pub(crate) fn start() -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            tracing_subscriber::fmt()
                .with_max_level(LevelFilter::WARN)
                .with_ansi(false)
                .event_format(Line)
                .with_writer(|| Append)
                .init();
        });
        Self { begin: lines(|lines| lines.len()) }
    }

    /// The lines of an event about any of these: addresses of peers, or other words.
    pub(crate) fn lines(&self, event: &str, about: &[String]) -> Vec<String> {
        lines(|lines| {
            let lines = lines.iter().skip(self.begin);
            let lines = lines.filter(|line| line.split(' ').next() == Some(event));
            lines.filter(|line| about.iter().any(|word| line.contains(word))).cloned().collect()
        })
    }

    /// Expects exactly one line of an event, when the peers may have their answers a moment before it.
    pub(crate) fn expect_one(&self, event: &str, about: &[String]) -> Result<String> {
        until_true(&format!("{event} is logged"), PATIENCE, || Ok(!self.lines(event, about).is_empty()))?;
        let mut lines = self.lines(event, about);
        ensure!(lines.len() == 1, "{event} is logged more than once: {lines:#?}");
        Ok(lines.remove(0))
    }

    /// Expects no line of an event, after the end of the server.
    pub(crate) fn expect_none(&self, event: &str, about: &[String]) -> Result<()> {
        let lines = self.lines(event, about);
        ensure!(lines.is_empty(), "{event} is logged: {lines:#?}");
        Ok(())
    }
}

/// How a peer is named in a line.
pub(crate) fn name(peer: &Peer) -> Result<String> {
    // A space behind it: one port may begin with the digits of another.
    Ok(format!("peer={} ", peer.local()?))
}

fn lines<T>(look: impl FnOnce(&mut Vec<String>) -> T) -> T {
    look(&mut LINES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The name of the event and its fields: the format of the default has no names.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "{} ", event.metadata().name())?;
        context.format_fields(writer.by_ref(), event)?;
        writer.write_char(' ')
    }
}

/// Gets each event whole.
struct Append;

impl io::Write for Append {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lines(|lines| lines.push(String::from_utf8_lossy(bytes).into_owned()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
