//! What a server of spop-tokio allocates for a request that is answered at once: nothing, also behind a router and with
//! async. And what it keeps for one that waits.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // It is a test.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use allocation_counter::measure;
use spop_core::{agent, notation};
use spop_tokio::{
    Actions, AgentConfig, ArgError, Capabilities, Handler, Peer, Request, Router, Scope, Service,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Builder,
};

/// A peer that sends this, each in a read if it fits, and takes whatever comes.
struct Script {
    reads: VecDeque<Arc<[u8]>>,
    /// How much of the first has been read.
    read: usize,
    then: Then,
}

/// What comes after the last read.
#[derive(PartialEq)]
enum Then {
    End,
    Silence,
}

/// Requests in one read.
const BATCH: usize = 20;

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Script { reads, read, then } = &mut *self;
        let Some(bytes) = reads.front() else {
            return if *then == Then::End { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        let rest = &bytes[*read..];
        let fits = &rest[..rest.len().min(buffer.remaining())];
        buffer.put_slice(fits);
        *read += fits.len();
        if *read == bytes.len() {
            reads.pop_front();
            *read = 0;
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

/// How many allocations a connection takes on which so many requests come, many to a read as HAProxy sends them.
fn allocations(handler: impl Handler, requests: usize) -> u64 {
    allocations_with(AgentConfig::default(), handler, requests)
}

const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async engine-id=string:e1";

fn asynchronous() -> AgentConfig {
    let mut config = AgentConfig::default();
    config.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
    config
}

fn allocations_with(config: AgentConfig, handler: impl Handler, requests: usize) -> u64 {
    let batch = (0..BATCH).map(|id| format!("NOTIFY fin {id} 1 check-ip ip=ipv4:203.0.113.7"));
    let batch: Vec<u8> = batch.flat_map(|line| notation::parse_bytes(&line).unwrap()).collect();
    let mut reads = VecDeque::from([notation::parse_bytes(HELLO).unwrap().into()]);
    reads.extend(std::iter::repeat_n(Arc::<[u8]>::from(batch), requests / BATCH));
    let script = Script { reads, read: 0, then: Then::End };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let service = Service::new(handler, config).unwrap();
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

#[allow(clippy::needless_pass_by_value)] // A route takes it so.
fn routed_at_once(request: Request) -> Result<Actions, ArgError> {
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
        let router =
            Router::new().on("check-ip", routed_at_once).on("log", async |_: Request| Actions::new());
        allocations(router, requests)
    };
    let async_router = |requests| {
        let router = Router::new().on("check-ip", routed).on("log", async |_: Request| Actions::new());
        allocations(router, requests)
    };
    let sync_router = |requests| {
        let router = agent::Router::new().on("check-ip", |message| Ok(score(message.arg("ip")?)));
        allocations(router, requests)
    };
    let with_async = |requests| allocations_with(asynchronous(), unrouted, requests);
    let each: [(&str, &dyn Fn(usize) -> u64); 5] = [
        ("function", &function),
        ("router", &router),
        ("async router", &async_router),
        ("sync router", &sync_router),
        ("async", &with_async),
    ];
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

#[test]
fn a_request_that_waits_costs_less_than_two_allocations() {
    let waits = async |_: Request| {
        tokio::task::yield_now().await;
        Actions::new()
    };
    let each = |config: AgentConfig| {
        allocations_with(config.clone(), waits, 5_000) - allocations_with(config, waits, 1_000)
    };
    let (without, with) = (each(AgentConfig::default()), each(asynchronous()));
    let router = |requests| allocations(Router::new().on("check-ip", waits), requests);
    let routed = router(5_000) - router(1_000);
    println!("{without} allocations for 4000 requests without async, {with} with it, {routed} with a router");
    // Its call is one. The maps of the requests in flight, of the connection and with async of its engine, come and go.
    assert!(without.max(with) < 7_000, "{without} without async, {with} with it");
    // Behind a router it is less than three: calls that wait at the same time have memory of their own, in two parts.
    assert!(routed < 12_000, "{routed} with a router");
}

#[test]
fn a_request_that_waits_keeps_no_more_than_itself() {
    const WAITING: u32 = 30;
    let waits = async |request: Request| {
        if request.message("wait").is_some() {
            std::future::pending::<()>().await;
        }
        Actions::new()
    };
    let kept = |config: AgentConfig, waiting: u32| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let service = Service::new(waits, config).unwrap();
        // Each read has one request that waits, and many that do not.
        let lines = (0..1_000).map(|id| format!("NOTIFY fin {id} 1 m a=string:\"x\"*20"));
        let read: Vec<u8> = lines.flat_map(|line| notation::parse_bytes(&line).unwrap()).collect();
        let mut reads = VecDeque::from([notation::parse_bytes(HELLO).unwrap().into()]);
        reads.extend((0..waiting).map(|id| {
            let wait = notation::parse_bytes(&format!("NOTIFY fin {} 1 wait", 5_000 + id)).unwrap();
            Arc::<[u8]>::from([wait, read.clone()].concat())
        }));
        // They are not freed while it is measured.
        let _reads = reads.clone();
        let script = Script { reads, read: 0, then: Then::Silence };
        let mut serving = Box::pin(service.serve_connection(script, Peer::unnamed()));
        let taken = measure(|| {
            runtime.block_on(async {
                for _ in 0..10 * WAITING {
                    let ended =
                        std::future::poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx).is_ready())).await;
                    assert!(!ended);
                    tokio::task::yield_now().await;
                }
            });
        });
        drop(serving);
        taken.bytes_current
    };
    for mut config in [AgentConfig::default(), asynchronous()] {
        config.limits.max_in_flight = 2_000;
        let (none, some) = (kept(config.clone(), 0), kept(config, WAITING));
        let each = (some - none) / i64::from(WAITING);
        println!("{each} bytes for each request that waits");
        assert!(each < 4_096, "{each} bytes for each request that waits");
    }
}

#[test]
fn the_future_of_a_connection_is_small() {
    let service = Service::new(unrouted, AgentConfig::default()).unwrap();
    let script = Script { reads: VecDeque::new(), read: 0, then: Then::Silence };
    let size = size_of_val(&service.serve_connection(script, Peer::unnamed())) - size_of::<Script>();
    println!("{size} bytes");
    // 48 bytes are for the metrics, 16 for debug builds.
    assert!(size <= 616 + 48 + 16, "{size} bytes besides the stream");
}
