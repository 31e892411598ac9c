//! The live view of `spop bench`, on a terminal.

use std::{
    fs::{File, OpenOptions},
    io::Read as _,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use vt100::Parser;

use crate::support::{Listen, command, finish};

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

/// A terminal: its screen's end, and the file of a program's end.
fn open() -> (File, File) {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap().into_string().unwrap();
    let program = OpenOptions::new().read(true).write(true).open(PathBuf::from(name)).unwrap();
    let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&program, size).unwrap();
    (screen.into(), program)
}

#[test]
fn the_live_view_has_rate_latencies_and_errors_and_disappears() {
    let agent = Listen::start(&["--on", "bye", "disconnect 5"]).without_output();
    let (mut screen, program) = open();
    let args = ["bench", &agent.address, "ok", "bye", "--rate", "200", "--time", "3s", "--timeout", "20s"];
    let child = command(args).env("TERM", "xterm-256color").stderr(Stdio::from(program)).spawn().unwrap();
    let mut parser = Parser::new(ROWS, COLUMNS, 0);
    let mut buffer = [0; 4096];
    let (mut views, begun) = (Vec::new(), Instant::now());
    // Reading fails when the program has closed its end.
    while let Ok(count @ 1..) = screen.read(&mut buffer) {
        parser.process(&buffer[..count]);
        let rows = parser.screen().rows(0, COLUMNS).map(|row| row.trim_end().to_owned());
        views.push(rows.collect::<Vec<_>>().join("\n").trim_end().to_owned());
        assert!(begun.elapsed() < Duration::from_secs(30), "{views:?}");
    }
    let run = finish(child);
    assert_eq!(run.code, Some(1), "{run:?}");
    let complete =
        |view: &&String| view.contains("261 (version value not found)") && view.contains("sessions ended");
    let view = views.iter().rfind(complete).unwrap_or_else(|| panic!("{views:#?}"));
    let lines: Vec<_> = view.lines().collect();
    let (first, begins) = (lines[0], ["  rate ", "  p99 ", "  all   p50 ", "  errors  ", "          "]);
    assert!(first.starts_with(&agent.address) && first.ends_with(" connections"), "{view}");
    assert!(first.contains(" s of 3.0 s, "), "{view}");
    assert_eq!(lines.len(), 1 + begins.len(), "{view}");
    for (line, begin) in lines[1..].iter().zip(begins) {
        assert!(line.starts_with(begin), "{line:?}: {view}");
    }
    assert!(
        lines[1].contains("/s  ") && lines[1].ends_with(|bar: char| ('▁'..='█').contains(&bar)),
        "{view}"
    );
    // The result is on standard output, and nothing remains above it.
    assert_eq!(views.last().unwrap(), "");
    assert!(run.out.contains("Latency, from when a request was due"), "{run:?}");
}
