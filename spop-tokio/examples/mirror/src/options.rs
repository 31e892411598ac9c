//! The command line.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Parser;
use http::{HeaderValue, Uri, uri::Scheme};
use program::{ServerOptions, positive_time};
use spop_tokio::ServerConfig;

/// Where the agent listens unless it is told, or systemd has opened sockets for it.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:12405";

/// Copies the requests of HAProxy's clients to another HTTP service, after HAProxy has its answer.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "Without --listen, and without sockets of systemd, it listens on 127.0.0.1:12405."
)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    /// The service that gets the copies: http:// or https://, without a path.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:12406", value_parser = url)]
    pub(crate) upstream: Uri,
    /// The certificates of the authorities that the service's must be of, if its URL begins with https://: a file in PEM. Default: those that
    /// the system trusts.
    #[arg(long, value_name = "FILE")]
    pub(crate) upstream_ca: Option<PathBuf>,
    /// The header `host` of copies. Default: that of the request.
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<HeaderValue>,
    /// How many of a hundred requests are copied, chosen at random.
    #[arg(long, value_name = "PERCENT", default_value = "100", value_parser = percent)]
    pub(crate) sample: f64,
    /// What becomes of a request whose body HAProxy had not received as a whole.
    #[arg(long, value_enum, default_value_t = Cut::Send)]
    pub(crate) cut: Cut,
    /// How long a copy may wait for a connection to the service, and then for the reply.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = positive_time)]
    pub(crate) timeout: Duration,
    /// What `timeout processing` is in spoe.conf.
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = positive_time)]
    pub(crate) processing: Duration,
    /// How long a connection to the service may take to be established.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = positive_time)]
    pub(crate) connect_timeout: Duration,
    /// The greatest number of connections to the service. Further copies wait for one.
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections: u16,
    /// The greatest number of copies under way, those that wait included. Further ones are not sent. It is no limit on requests of
    /// HAProxy, which are answered before.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) queue: u32,
    /// The memory for copies under way, in MiB (2^20 bytes). Further ones are not sent.
    #[arg(long, value_name = "MIB", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) memory: u32,
}

/// What becomes of a request with a part of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Cut {
    /// It is sent with what there is, and says so.
    Send,
    /// It is not sent.
    Skip,
}

impl Options {
    /// The limits of the server.
    pub(crate) fn server_config(&self) -> ServerConfig {
        let mut config = self.server.config(self.processing);
        config.max_background = self.queue as usize;
        config
    }
}

fn percent(text: &str) -> anyhow::Result<f64> {
    let percent = text.parse()?;
    ensure!((0.0..=100.0).contains(&percent), "it is not from 0 to 100");
    Ok(percent)
}

fn url(text: &str) -> anyhow::Result<Uri> {
    let url: Uri = text.parse()?;
    let schemes = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)];
    ensure!(schemes.contains(&url.scheme()), "it does not begin with http:// or https://");
    ensure!(["", "/"].contains(&url.path()) && url.query().is_none(), "it has a path: copies have their own");
    let authority = url.authority().context("it has no host")?;
    ensure!(!authority.as_str().contains('@'), "a user name in it would not be sent");
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (option, value, why) in [
            ("--upstream", "ftp://a", "it does not begin with http:// or https://"),
            ("--upstream", "a:80", "it does not begin with http:// or https://"),
            ("--upstream", "http://a/b", "it has a path: copies have their own"),
            ("--upstream", "http://a/?b", "it has a path: copies have their own"),
            ("--upstream", "http://me@a", "a user name in it would not be sent"),
            ("--sample", "100.1", "it is not from 0 to 100"),
            ("--sample", "-1", "unexpected argument"),
            ("--sample", "NaN", "it is not from 0 to 100"),
            ("--timeout", "0s", "it is zero"),
            ("--host", "a\n", "failed to parse header value"),
            ("--connections", "0", "0 is not in 1.."),
        ] {
            let error = Options::try_parse_from(["mirror", option, value]).unwrap_err().to_string();
            assert!(error.contains(why), "{option} {value}: {error}");
        }
        for upstream in ["http://[::1]:80/", "https://a"] {
            assert!(Options::try_parse_from(["mirror", "--upstream", upstream]).is_ok());
        }
    }
}
