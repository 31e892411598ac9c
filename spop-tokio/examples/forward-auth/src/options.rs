//! The command line.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use http::{StatusCode, Uri, header, uri::Scheme};
use program::{ServerOptions, positive_time};

use crate::header_list::HeaderList;

/// Where the agent listens unless it is told, or systemd has opened sockets for it.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:12401";

/// Asks an HTTP service whether HAProxy shall let a request pass, as `auth_request` of nginx and `ForwardAuth` of Traefik do.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "Without --listen, and without sockets of systemd, it listens on 127.0.0.1:12401."
)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    /// The service, http:// or https://. It is asked with GET.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:12402/", value_parser = url)]
    pub(crate) upstream: Uri,
    /// The certificates of the authorities that the service's must be of, if its URL begins with https://: a file in PEM. Default: those that
    /// the system trusts.
    #[arg(long, value_name = "FILE")]
    pub(crate) upstream_ca: Option<PathBuf>,
    /// How long the whole question may take. Shorter than HAProxy's `timeout processing`: a later answer is of no use.
    #[arg(long, value_name = "TIME", default_value = "400ms", value_parser = positive_time)]
    pub(crate) timeout: Duration,
    /// How long a connection to the service may take to be established.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = positive_time)]
    pub(crate) connect_timeout: Duration,
    /// What `timeout processing` is in spoe.conf.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = positive_time)]
    pub(crate) processing: Duration,
    /// The decision when the service does not decide: it is down, late, overloaded, or answers 5xx.
    #[arg(long, value_enum, default_value_t = OnFailure::Deny)]
    pub(crate) on_failure: OnFailure,
    /// The greatest number of requests that wait for a decision. Further ones fail at once.
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_in_flight: u32,
    /// The headers of the client that the service gets, or `*` for all but those of one connection, of a body and of proxies.
    #[arg(
        long,
        value_name = "LIST",
        default_value = "accept,authorization,cookie,user-agent,x-requested-with"
    )]
    pub(crate) forward_headers: HeaderList,
    /// The headers of a reply that allows, for the request that goes on.
    #[arg(long, value_name = "LIST", default_value = "remote-user,remote-groups,remote-email,remote-name")]
    pub(crate) request_headers: HeaderList,
    /// The headers of a reply for the client; `set-cookie` also of one that allows.
    #[arg(
        long,
        value_name = "LIST",
        default_value = "www-authenticate,location,set-cookie,cache-control,retry-after"
    )]
    pub(crate) reply_headers: HeaderList,
    /// How long replies of a status, or of a class of them, are used again: 2xx=10s,403=1m. Default: they are not.
    #[arg(long, value_name = "STATUS=TIME", value_delimiter = ',', value_parser = lifetime)]
    pub(crate) cache: Vec<(StatusRange, Duration)>,
    /// The headers of a question on which its reply depends, those that the agent adds included: cookie,x-forwarded-uri. Replies
    /// are used again for questions that are equal in these; `*` for all. `cookie` and `authorization` must be among them if they are
    /// forwarded.
    #[arg(long, value_name = "LIST", default_value = "*")]
    pub(crate) cache_key: HeaderList,
    /// The memory for these replies, in MiB (2^20 bytes).
    #[arg(long, value_name = "MIB", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) cache_size: u32,
}

/// What is decided without the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailure {
    /// Fails closed.
    Deny,
    /// Fails open.
    Allow,
}

impl OnFailure {
    /// As the option has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

impl Options {
    /// Checks what options mean together.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let [timeout, processing] = [self.timeout, self.processing].map(humantime::format_duration);
        ensure!(
            self.timeout < self.processing,
            "--timeout {timeout} is not less than --processing {processing}: HAProxy would not wait for the answer"
        );
        for (option, list) in
            [("--request-headers", &self.request_headers), ("--reply-headers", &self.reply_headers)]
        {
            list.check_variables().with_context(|| format!("{option} {list}"))?;
        }
        for name in [header::COOKIE, header::AUTHORIZATION] {
            ensure!(
                self.cache.is_empty()
                    || self.cache_key.contains(&name)
                    || !self.forward_headers.contains(&name),
                "--cache-key {} has no {name}, which --forward-headers sends: a client could get the decision on another",
                self.cache_key
            );
        }
        Ok(())
    }
}

/// A status, or the hundred of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusRange {
    /// 404
    One(StatusCode),
    /// 4xx
    Class(u16),
}

fn url(text: &str) -> anyhow::Result<Uri> {
    let url: Uri = text.parse()?;
    let schemes = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)];
    ensure!(schemes.contains(&url.scheme()), "it does not begin with http:// or https://");
    let authority = url.authority().context("it has no host")?;
    ensure!(!authority.as_str().contains('@'), "a user name in it would not be sent");
    Ok(url)
}

fn lifetime(text: &str) -> anyhow::Result<(StatusRange, Duration)> {
    let (status, lifetime) = text.split_once('=').context("expected STATUS=TIME")?;
    let range = match status.strip_suffix("xx") {
        Some(class) => StatusRange::Class(class.parse()?),
        None => StatusRange::One(status.parse()?),
    };
    let class = match range {
        StatusRange::One(status) => status.as_u16() / 100,
        StatusRange::Class(class) => class,
    };
    ensure!((2..=4).contains(&class), "{status} is a failure or no decision, which is never used again");
    Ok((range, positive_time(lifetime).map_err(anyhow::Error::msg)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        let options =
            Options::try_parse_from([&["forward-auth"], args].concat()).map_err(|error| error.to_string())?;
        options.check().map_err(|error| format!("{error:#}"))?;
        Ok(options)
    }

    #[test]
    fn defaults_work() {
        let options = parse(&[]).unwrap();
        assert!(options.server.listen.is_empty() && options.cache.is_empty());
        assert_eq!(options.on_failure, OnFailure::Deny);
        let options = parse(&["--cache", "2xx=10s,403=1m"]).unwrap();
        let expected = [
            (StatusRange::Class(2), Duration::from_secs(10)),
            (StatusRange::One(StatusCode::FORBIDDEN), Duration::from_secs(60)),
        ];
        assert_eq!(options.cache, expected);
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        for (args, reason) in [
            (["--timeout", "500ms"], "--timeout 500ms is not less than --processing 500ms"),
            (["--timeout", "0s"], "it is zero"),
            (["--upstream", "ftp://a/"], "it does not begin with http:// or https://"),
            (["--upstream", "/verify"], "it does not begin with http://"),
            (["--upstream", "http://user@a/"], "a user name in it would not be sent"),
            (["--cache", "502=1s"], "502 is a failure or no decision"),
            (["--cache", "5xx=1s"], "5xx is a failure or no decision"),
            (["--cache", "200"], "expected STATUS=TIME"),
            (["--cache", "200=0s"], "it is zero"),
            (["--forward-headers", "a b"], "\"a b\" is no name of a header"),
            (["--request-headers", "*"], "--request-headers *: HAProxy needs their names"),
            (["--reply-headers", "x!y"], "no variable of HAProxy can have the name of x!y"),
            (["--max-in-flight", "0"], "0 is not in 1.."),
        ] {
            let error = parse(&args).unwrap_err();
            assert!(error.contains(reason), "{args:?}: {error}");
        }
    }

    #[test]
    fn a_key_without_what_tells_clients_apart_is_refused() {
        let with =
            |key, forward| parse(&["--cache", "2xx=1m", "--cache-key", key, "--forward-headers", forward]);
        for (key, forward, reason) in [
            ("authorization,x-forwarded-host", "authorization,cookie", "has no cookie"),
            ("cookie", "authorization,cookie", "has no authorization"),
            ("x-forwarded-uri", "*", "has no cookie"),
        ] {
            let error = with(key, forward).unwrap_err();
            assert!(error.contains(reason), "{key}: {error}");
        }
        for (key, forward) in
            [("*", "*"), ("cookie", "cookie"), ("authorization,cookie", "*"), ("x-a", "x-a")]
        {
            with(key, forward).unwrap();
        }
        parse(&["--cache-key", "x-a"]).unwrap();
    }
}
