//! The handler with a service.

mod caching;
mod decisions;
mod failures;
mod tracing;

use std::sync::Arc;

use clap::Parser as _;
use spop_tokio::{
    MessageList, Router,
    spop_core::wire::put_headers,
    testing::{self, Outcome, TestRequest},
};

use crate::{
    agent::{self, Agent},
    options::Options,
    service::Service,
};

fn router(service: &Service, args: &[&str]) -> Router<Agent> {
    router_to(&service.url, args)
}

fn router_to(url: &str, args: &[&str]) -> Router<Agent> {
    // On a busy machine too the time is over only where a test is about that.
    let patient: &[_] =
        if args.contains(&"--timeout") { &[] } else { &["--timeout", "20s", "--processing", "30s"] };
    let args = [&["forward-auth", "--upstream", url], args, patient].concat();
    agent::router(&Options::try_parse_from(args).unwrap(), &Arc::default()).unwrap()
}

/// A request of a client with this cookie.
fn message(cookie: &str) -> MessageList {
    message_with(cookie, "1")
}

/// With this header `x-other` too.
fn message_with(cookie: &str, other: &str) -> MessageList {
    let mut headers = Vec::new();
    put_headers(
        &mut headers,
        [("host", "example.org"), ("cookie", cookie), ("accept", "*/*"), ("x-other", other)],
    )
    .unwrap();
    let mut messages = MessageList::new();
    messages
        .message("check-request")
        .arg("method", "GET")
        .arg("uri", "/a")
        .arg("tls", false)
        .arg("src", std::net::Ipv4Addr::LOCALHOST)
        .arg("hdrs", headers.as_slice());
    messages
}

async fn ask(router: &Router<Agent>, cookie: &str) -> Outcome {
    testing::call(router, TestRequest::of(&message(cookie))).await
}
