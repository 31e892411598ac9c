//! The ports and directories of a page, and those that stand for them.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::ports::{self, Port};

/// The ports that pages use.
const PORTS: &[u16] = &[8080, 8081, 8082, 8404, 12345, 12346, 12347];

/// The directories of the system that they use.
const DIRECTORIES: &[&str] = &["/run/iprep", "/var/lib/haproxy"];

/// The abstract socket that they use: its name is the whole system's.
const SOCKET: &str = "abns@spop-guide";

/// What stands for names of the system: free ports for those of a page, empty directories, and a socket of its own.
#[derive(Debug)]
pub(super) struct Places {
    /// The name on the page, and the real one.
    pairs: Vec<(String, String)>,
    /// No other page gets them.
    _ports: Vec<Port>,
}

impl Places {
    /// Chooses them, with the directories below this one.
    pub(super) fn choose(dir: &Path) -> Result<Self> {
        let (mut pairs, ports) = (Vec::new(), ports::free(PORTS.len())?);
        for (port, real) in PORTS.iter().zip(&ports) {
            let real = real.address().port();
            pairs.extend([":", "port "].map(|before| (format!("{before}{port}"), format!("{before}{real}"))));
        }
        for name in DIRECTORIES {
            let real = format!("{}{name}", dir.display());
            fs::create_dir_all(&real)?;
            pairs.push(((*name).to_owned(), real));
        }
        let number = ports.first().map_or(0, |port| port.address().port());
        pairs.push((SOCKET.to_owned(), format!("{SOCKET}-{number}")));
        Ok(Self { pairs, _ports: ports })
    }

    /// A text of the page, to be run.
    pub(super) fn map(&self, text: &str) -> String {
        self.pairs.iter().fold(text.to_owned(), |text, (page, real)| text.replace(page, real))
    }

    /// What was printed, as the page has it.
    pub(super) fn unmap(&self, text: &str) -> String {
        self.pairs.iter().fold(text.to_owned(), |text, (page, real)| text.replace(real, page))
    }
}
