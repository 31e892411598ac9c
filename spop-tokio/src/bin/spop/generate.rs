//! Completions for shells, and manual pages.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{
    Cli,
    exit::{Exit, Failure},
};

/// Prints completions for a shell
#[derive(Args, Debug)]
#[command(after_help = "Example: spop completions bash > /etc/bash_completion.d/spop")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

/// Prints the manual page, or writes those of all commands to a directory
#[derive(Args, Debug)]
#[command(after_help = "Example: spop man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The directory; it is created if it does not exist
    dir: Option<PathBuf>,
}

pub(crate) fn completions(options: &Completions) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "spop", &mut script);
    print(&script)
}

pub(crate) fn man(options: &Man) -> Result<Exit, Failure> {
    let Some(dir) = &options.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Failure::io)?;
        return print(&page);
    };
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|error| Failure::io_of(dir.display(), &error))?;
    Ok(Exit::Fine)
}

fn print(bytes: &[u8]) -> Result<Exit, Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| Failure::output(&error))?;
    Ok(Exit::Fine)
}
