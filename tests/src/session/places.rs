//! The ports and directories of a page, and those that stand for them.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::ports;

/// The ports that pages use.
const PORTS: &[u16] = &[8080, 8081, 8404, 12345, 12346, 12347];

/// The directories of the system that they use.
const DIRECTORIES: &[&str] = &["/run/iprep", "/var/lib/haproxy"];

/// What stands for names of the system: free ports for those of a page, and empty directories.
#[derive(Debug)]
pub(super) struct Places(Vec<(String, String)>);

impl Places {
    /// Chooses them, with the directories below this one.
    pub(super) fn choose(dir: &Path) -> Result<Self> {
        let mut pairs = Vec::new();
        for (port, real) in PORTS.iter().zip(ports::free(PORTS.len())?) {
            let real = real.port();
            pairs.extend([":", "port "].map(|before| (format!("{before}{port}"), format!("{before}{real}"))));
        }
        for name in DIRECTORIES {
            let real = format!("{}{name}", dir.display());
            fs::create_dir_all(&real)?;
            pairs.push(((*name).to_owned(), real));
        }
        Ok(Self(pairs))
    }

    /// A text of the page, to be run.
    pub(super) fn map(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (page, real)| text.replace(page, real))
    }

    /// What was printed, as the page has it.
    pub(super) fn unmap(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (page, real)| text.replace(real, page))
    }
}
