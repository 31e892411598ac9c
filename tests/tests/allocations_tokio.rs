//! What a server of spop-tokio allocates for a request that is answered at once: nothing, also behind a router.

#![allow(clippy::unwrap_used)] // It is a test.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
};

use allocation_counter::measure;
use spop_core::notation;
use spop_tokio::{Actions, AgentConfig, ArgError, Handler, Peer, Request, Router, Routes, Scope, Service};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Builder,
};

/// A peer that sends a HELLO and then the same request, many to a read as HAProxy does, and takes whatever comes.
struct Script {
    hello: Vec<u8>,
    requests: Vec<u8>,
    reads: usize,
}

/// Requests in one read.
const BATCH: usize = 20;

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(left) = self.reads.checked_sub(1) {
            buffer.put_slice(if self.hello.is_empty() { &self.requests } else { &self.hello });
            self.hello.clear();
            self.reads = left;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How many allocations a connection takes on which so many requests come.
fn allocations(handler: impl Handler, requests: usize) -> u64 {
    let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                 capabilities=string:pipelining,async engine-id=string:e1";
    let notify = notation::parse_bytes("NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7").unwrap();
    let script = Script {
        hello: notation::parse_bytes(hello).unwrap(),
        requests: notify.repeat(BATCH),
        reads: 1 + requests / BATCH,
    };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let service = Service::new(handler, AgentConfig::default()).unwrap();
    let serving = service.serve_connection(script, Peer::unnamed());
    let taken = measure(|| drop(runtime.block_on(serving).unwrap()));
    taken.count_total
}

fn score(ip: IpAddr) -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Session, "ip_score", i32::from(ip.is_ipv4()));
    actions
}

async fn routed(request: Request) -> Result<Actions, ArgError> {
    Ok(score(request.arg("ip")?))
}

async fn unrouted(request: Request) -> Result<Actions, ArgError> {
    Ok(request
        .message("check-ip")
        .map(|message| message.arg("ip"))
        .transpose()?
        .map(score)
        .unwrap_or_default())
}

#[test]
fn a_request_that_is_answered_at_once_costs_no_allocation() {
    let function = |requests| allocations(unrouted, requests);
    let router = |requests| {
        let router = Router::new().on("check-ip", routed).on("log", async |_: Request| Actions::new());
        allocations(router, requests)
    };
    let routes = |requests| {
        let routes = Routes::new().on("check-ip", |message, actions| {
            actions.append(&score(message.arg("ip")?));
            Ok(())
        });
        allocations(routes, requests)
    };
    let each: [(&str, &dyn Fn(usize) -> u64); 3] =
        [("function", &function), ("router", &router), ("routes", &routes)];
    for (name, count) in each {
        let (some, many) = (count(1_000), count(5_000));
        println!("{name}: {some} allocations for 1000 requests, {many} for 5000");
        // Buffers may have their last growth in between.
        assert!(many <= some + 4, "{name}: {some} for 1000 requests, {many} for 5000");
    }
    // It would be seen.
    let boxes = |requests| {
        allocations(
            async |request: Request| {
                let ids = Box::new(request.stream_id());
                Box::pin(std::future::ready(*std::hint::black_box(ids))).await;
                Actions::new()
            },
            requests,
        )
    };
    assert!(boxes(5_000) >= boxes(1_000) + 4_000);
}
