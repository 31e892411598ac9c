//! A real HAProxy: which ones there are, its configuration, its life.

mod binary;
mod config;
mod process;

pub use binary::{Binary, Engine, VERSIONS};
pub use config::Config;
pub use process::Haproxy;
