//! A page that is run.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::geteuid;
use tempfile::TempDir;

use super::places::Places;
use super::terminal::Terminal;
use super::{Block, Kind, Page, output};
use crate::cli;
use crate::haproxy::{Binary, Engine};
use crate::wait::{PATIENCE, until, until_true};

/// What a page came to.
#[derive(Debug, Default)]
pub struct Done {
    /// The blocks whose output differs: the index of each, and what its lines should be.
    pub different: Vec<(usize, Vec<String>)>,
}

struct Session<'a> {
    binary: &'a Binary,
    dir: TempDir,
    path: String,
    places: Places,
    mode: Mode,
    terminals: HashMap<String, Terminal>,
}

/// Which `mode` a backend of agents has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// That of the page.
    AsWritten,
    /// What the page advises for the version of HAProxy.
    OfVersion,
}

/// How a page says which mode to use.
const ADVICE: &str = "mode tcp    # any version; since 3.1 \"mode spop\" means the same";

/// Runs a page with one version of HAProxy.
///
/// # Errors
/// It cannot be run: a program is missing, does not start, or does not end; HAProxy warns of a configuration.
pub fn run(page: &Page, binary: &Binary, mode: Mode) -> Result<Done> {
    let dir = tempfile::tempdir()?;
    let programs = dir.path().join(".programs");
    fs::create_dir(&programs)?;
    symlink(cli::program()?, programs.join("spop"))?;
    install(binary, &programs.join("haproxy"))?;
    let path = format!("{}:{}", programs.display(), std::env::var("PATH")?);
    let places = Places::choose(&programs)?;
    let mut session = Session { binary, dir, path, places, mode, terminals: HashMap::new() };
    let mut done = Done::default();
    for (index, block) in page.blocks.iter().enumerate() {
        let actual = session.block(block).with_context(|| format!("line {}", block.line))?;
        done.different.extend(actual.map(|actual| (index, actual)));
    }
    Ok(done)
}

/// HAProxy under its name. To change its root it must be root: where the tests are not, it is in a namespace of its own.
fn install(binary: &Binary, name: &Path) -> Result<()> {
    // Nothing runs as another user: tcpdump may capture without, see `tests/run`.
    script(&name.with_file_name("sudo"), "exec \"$@\"")?;
    if geteuid().is_root() {
        return Ok(symlink(binary.program(), name)?);
    }
    script(name, &format!("exec unshare --map-root-user '{}' \"$@\"", binary.program().display()))
}

fn script(name: &Path, command: &str) -> Result<()> {
    fs::write(name, format!("#!/bin/sh\n{command}\n"))?;
    Ok(fs::set_permissions(name, Permissions::from_mode(0o755))?)
}

impl Session<'_> {
    /// What the lines of a block should be, if they are not.
    fn block(&mut self, block: &Block) -> Result<Option<Vec<String>>> {
        match &block.kind {
            Kind::File(name) => {
                let mut text = block.lines.join("\n") + "\n";
                if self.mode == Mode::OfVersion && self.binary.engine() == Engine::Multiplexer {
                    text = text.replace(ADVICE, "mode spop");
                }
                fs::write(self.dir.path().join(name), self.places.map(&text))?;
                Ok(None)
            }
            Kind::Console { terminal, version, numbers } => {
                let compared =
                    version.as_ref().is_none_or(|version| self.binary.version().starts_with(version));
                let actual = match terminal {
                    Some(name) => self.terminal(name, block, *numbers, compared)?,
                    None => self.commands(block, *numbers)?,
                };
                Ok(actual.filter(|_| compared))
            }
        }
    }

    /// Commands that end.
    fn commands(&self, block: &Block, numbers: bool) -> Result<Option<Vec<String>>> {
        let (mut all, mut same) = (Vec::new(), true);
        let mut rest = block.lines.as_slice();
        while let [command, after @ ..] = rest {
            let count = after.iter().position(|line| line.starts_with("$ ")).unwrap_or(after.len());
            let (expected, later) = after.split_at(count);
            rest = later;
            let mut terminal = self.start(command)?;
            terminal.wait()?;
            let actual = self.unmap(&terminal.unread());
            same &= output::matches(expected, &actual, numbers) == Some(actual.len());
            all.push(command.clone());
            all.extend(actual);
        }
        Ok((!same).then_some(all))
    }

    /// A program that runs on.
    fn terminal(
        &mut self,
        name: &str,
        block: &Block,
        numbers: bool,
        compared: bool,
    ) -> Result<Option<Vec<String>>> {
        let (mut expected, mut head) = (block.lines.as_slice(), None);
        if let [command, after @ ..] = expected
            && command.starts_with("$ ")
        {
            (expected, head) = (after, Some(command.clone()));
            if let Some(mut earlier) = self.terminals.remove(name) {
                earlier.interrupt()?;
            }
            let mut terminal = self.start(command)?;
            self.wait_for_haproxy(command, &mut terminal)?;
            self.terminals.insert(name.to_owned(), terminal);
        }
        let mut terminal = self.terminals.remove(name).with_context(|| format!("{name} runs nothing"))?;
        let (before, interrupted) = match expected.iter().position(|line| line == "^C") {
            Some(at) => (expected.get(..at).unwrap_or_default(), expected.get(at + 1..)),
            None => (expected, None),
        };
        let mut all: Vec<_> = head.into_iter().collect();
        let mut same = true;
        let read = until("it prints what the page has", PATIENCE / 2, || {
            Ok(output::matches(before, &self.unmap(&terminal.unread()), numbers))
        });
        let read = read.unwrap_or_else(|_| {
            same = false;
            terminal.unread().len()
        });
        ensure!(same || compared || read > 0 || before.is_empty(), "{name} prints nothing");
        all.extend(self.unmap(terminal.unread().get(..read).unwrap_or_default()));
        terminal.read += read;
        if let Some(after) = interrupted {
            terminal.interrupt()?;
            let actual = self.unmap(&terminal.unread());
            same &= output::matches(after, &actual, numbers) == Some(actual.len());
            all.push("^C".to_owned());
            all.extend(actual);
        } else {
            self.terminals.insert(name.to_owned(), terminal);
        }
        Ok((!same).then_some(all))
    }

    fn start(&self, line: &str) -> Result<Terminal> {
        let command = self.places.map(line.strip_prefix("$ ").context("no command")?);
        Terminal::start(&command, self.dir.path(), &self.path)
            .with_context(|| format!("cannot run {command}"))
    }

    /// HAProxy says nothing when it serves.
    fn wait_for_haproxy(&self, line: &str, terminal: &mut Terminal) -> Result<()> {
        let Some(file) = line.strip_prefix("$ haproxy -f ") else { return Ok(()) };
        let path = self.dir.path().join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("no {file}"))?;
        self.check(file)?;
        let binds = text.lines().filter_map(|line| line.trim().strip_prefix("bind "));
        let addresses: Vec<_> = binds.filter_map(|bind| bind.split(' ').next()).collect();
        ensure!(!addresses.is_empty(), "{file} has no `bind`");
        for address in addresses {
            until_true("HAProxy serves", PATIENCE, || {
                if let Some(status) = terminal.ended()? {
                    bail!("HAProxy ended with {status}: {}", terminal.unread().join("\n"));
                }
                Ok(TcpStream::connect(address).is_ok())
            })?;
        }
        Ok(())
    }

    /// HAProxy warns of nothing.
    fn check(&self, file: &str) -> Result<()> {
        let mut check = self.start(&format!("$ haproxy -dW -c -f {file}"))?;
        check.wait()?;
        let said = check.unread().join("\n");
        let fine = check.ended()?.is_some_and(|status| status.success());
        ensure!(fine, "HAProxy does not accept {file}: {said}");
        Ok(())
    }

    fn unmap(&self, lines: &[String]) -> Vec<String> {
        let dir = format!("{}/", Path::display(self.dir.path()));
        lines.iter().map(|line| self.places.unmap(line).replace(&dir, "").trim_end().to_owned()).collect()
    }
}
