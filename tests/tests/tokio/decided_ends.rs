//! Sessions that end by a decision: what was decided is reported once, in the poll that decided it.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use crate::support::{Client, Running, log::Log, settle, until, within};
use spop_core::notation;
use spop_tokio::{Actions, AgentConfig, Capabilities, CloseReason, Peer, Reply, Request, Service, Status};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::Semaphore,
};

fn pipe() -> Peer {
    Peer::Other("a pipe".into())
}

/// Stream 1 disconnects, stream 2 fails, any other is acknowledged: all of them when the gate lets them pass.
fn gated(gate: &Arc<Semaphore>) -> impl Fn(Request) -> Pin<Box<dyn Future<Output = Reply> + Send>> + use<> {
    let gate = Arc::clone(gate);
    move |request: Request| {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            match request.stream_id() {
                1 => Reply::Disconnect { status: Status(42), message: "enough".into() },
                2 => Reply::failed("it fails"),
                _ => Reply::Ack(Actions::new()),
            }
        })
    }
}

/// Polls a connection beside what its peer does.
async fn beside<T>(connection: Pin<&mut impl Future>, peer: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = peer => done,
        _ = connection => panic!("the connection has ended"),
    }
}

/// A connection with these requests, whose gate was opened, and that was polled once since.
async fn decided(requests: &str) {
    let gate = Arc::new(Semaphore::new(0));
    let (near, far) = duplex(4_096);
    let service = Service::new(gated(&gate), AgentConfig::default()).unwrap();
    let mut connection = pin!(service.serve_connection(far, pipe()));
    let mut client = Client::new(near);
    beside(connection.as_mut(), client.greet()).await;
    client.send(requests).await;
    beside(connection.as_mut(), settle()).await;
    gate.add_permits(100);
    poll_fn(|cx| {
        assert!(connection.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn the_end_is_in_the_log_once_when_the_connection_is_dropped_right_after() {
    within(async {
        let log = Log::with("spop_server=debug");
        decided("NOTIFY fin 1 1 m").await;
        let lines = log.take();
        let ends: Vec<_> = lines.iter().filter(|line| line.contains("connection closed")).collect();
        assert!(matches!(ends[..], [end] if end.contains("42")), "{lines:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_stop_is_reported_once_whether_the_peer_reads_or_not() {
    within(async {
        for unread in [0, 20] {
            let log = Log::with("spop_server=debug");
            let (near, far) = duplex(100);
            let service = Service::new(async |_: Request| Actions::new(), AgentConfig::default()).unwrap();
            let mut connection = pin!(service.serve_connection(far, pipe()));
            let mut client = Client::new(near);
            beside(connection.as_mut(), client.greet()).await;
            for id in 0..unread {
                beside(connection.as_mut(), client.send(&format!("NOTIFY fin {id} 1 m"))).await;
            }
            service.handle().stop();
            let closed = connection.await.unwrap();
            assert_eq!(closed.reason, CloseReason::Disconnect(Status::NORMAL));
            if unread == 0 {
                let end = r#"AGENT-DISCONNECT fin 0 0 status-code=uint32:0 message=string:"the agent is shutting down""#;
                client.expect(end).await;
            }
            let lines = log.take();
            let ends = lines.iter().filter(|line| line.contains("connection closed")).count();
            assert_eq!(ends, 1, "{lines:#?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_ready_with_a_disconnect_goes_to_a_sibling() {
    within(async {
        let gate = Arc::new(Semaphore::new(0));
        let mut config = AgentConfig::default();
        config.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
        let server = Running::with(gated(&gate), config).await;
        let (mut home, mut sibling) = (server.session().await, server.session().await);
        home.send("NOTIFY fin 1 1 m\n NOTIFY fin 7 1 m").await;
        until("both wait", || server.handle.connections().iter().any(|home| home.in_flight == 2)).await;
        gate.add_permits(2);
        home.expect("AGENT-DISCONNECT fin 0 0 status-code=uint32:42 message=string:enough").await;
        sibling.expect("ACK fin 7 1").await;
    })
    .await;
}

/// Claims to have written one byte more than it was given.
struct Boastful(DuplexStream);

impl AsyncRead for Boastful {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Boastful {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes).map_ok(|n| n + 1)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_stream_that_reports_more_than_it_was_given_is_closed_and_named() {
    within(async {
        let log = Log::start();
        let (near, far) = duplex(4_096);
        let service = Service::new(async |_: Request| Actions::new(), AgentConfig::default()).unwrap();
        let mut client = Client::new(near);
        let (closed, ()) = tokio::join!(service.serve_connection(Boastful(far), pipe()), client.greet());
        assert_eq!(closed.unwrap().reason, CloseReason::Transport);
        let lines = log.take();
        assert!(matches!(&lines[..], [line] if line.contains("the stream is faulty")), "{lines:#?}");
    })
    .await;
}

/// What a peer sends, with how many reads each piece hides from: readiness that is reported late.
type Pieces = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

struct Late {
    pieces: Pieces,
    written: DuplexStream,
}

impl AsyncRead for Late {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pieces = self.pieces.lock().unwrap();
        match pieces.first_mut() {
            None => return Poll::Pending,
            Some((0, bytes)) => buffer.put_slice(bytes),
            Some((hidden, _)) => {
                *hidden -= 1;
                return Poll::Pending;
            }
        }
        pieces.remove(0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Late {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.written).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.written).poll_shutdown(cx)
    }
}

// Paused: no time passes between the drain and what is hidden from it.
#[tokio::test(start_paused = true)]
async fn a_drain_looks_again_before_it_disconnects() {
    within(async {
        let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async engine-id=string:e1";
        let pieces: Pieces = Arc::new(Mutex::new(vec![(0, notation::parse_bytes(hello).unwrap())]));
        let (near, written) = duplex(4_096);
        let service = Service::new(async |_: Request| Actions::new(), AgentConfig::default()).unwrap();
        let connection = service.serve_connection(Late { pieces: Arc::clone(&pieces), written }, pipe());
        let mut client = Client::new(near);
        let connection = tokio::spawn(connection);
        assert!(client.receive().await.unwrap().starts_with("AGENT-HELLO"));
        service.handle().drain();
        settle().await;
        // Hidden from the poll in which the moment of the disconnect comes: from its first read, and from the one after the timer.
        pieces.lock().unwrap().push((2, notation::parse_bytes("NOTIFY fin 5 1 m").unwrap()));
        client.expect("ACK fin 5 1").await;
        assert!(client.receive().await.unwrap().starts_with("AGENT-DISCONNECT"));
        connection.abort();
    })
    .await;
}

#[cfg(feature = "metrics")]
#[test]
fn the_end_is_counted_once_and_each_request_has_one_end() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The second would fail in the same poll, and no event would report it.
    let run = within(decided("NOTIFY fin 1 1 m\n NOTIFY fin 2 1 m"));
    ::metrics::with_local_recorder(&recorder, || runtime.block_on(run));
    let counted: Vec<_> = snapshotter.snapshot().into_vec();
    let number = |name: &str| {
        let mut values = counted.iter().filter(|(key, ..)| key.key().name() == name);
        values.next().map(|(.., value)| match value {
            DebugValue::Counter(number) => *number,
            other => panic!("{name} is {other:?}"),
        })
    };
    assert_eq!(number("spop_closed_total"), Some(1));
    assert_eq!(number("spop_cancelled_total"), Some(2));
    assert!(matches!(number("spop_failures_total"), None | Some(0)));
}
