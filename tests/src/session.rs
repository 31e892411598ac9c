//! Pages of documentation as tests: their configurations are written to files, their commands are run, and the output is compared.
//!
//! A page is a Markdown file. Its blocks, in their order, are one session in one directory that is empty at first:
//!
//! - A block `haproxy` is a configuration. Its first line, a comment, names the file.
//! - A block `console` has commands behind `$ `, each with its output. A line `…` stands for any lines. Times, process ids and
//!   what else differs from run to run is compared by its form only, see [`output`].
//! - A block `console NAME` is a terminal with a program that runs on. A later block with the same name and without a command is what
//!   it prints next. A line `^C` interrupts it; so does another command there, and the end of the page.
//! - `console 3.4` or `console NAME 3.4`: the output is that of this version of HAProxy, and compared with this version only.
//! - `numbers` behind it: no number and no column is compared.
//!
//! Ports and directories of the system are replaced by others, so that a page can be run anywhere and beside itself.

pub mod output;
mod page;
mod places;
mod run;
mod terminal;

pub use page::{Block, Kind, Page};
pub use run::{Done, Mode, run};
