//! An engine and agents that end their connections before they have answered anything, over real sockets.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::support::within;
use futures_util::future::join_all;
use spop_core::notation;
use spop_tokio::{
    Actions, CloseReason, Engine, EngineClient, EngineConfig, EngineError, MessageList, Request, Server,
    Status,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const HELLO: &str =
    "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining";
const BROKEN: &str = "AGENT-DISCONNECT fin 0 0 status-code=uint32:13 message=string:broken";

/// When each came.
type Connections = Arc<Mutex<Vec<Instant>>>;

/// An agent that sends the HELLO and this behind it to whoever connects, and closes. It counts its connections.
fn useless(listener: TcpListener, ending: Vec<u8>) -> (Connections, JoinHandle<()>) {
    let counted = Connections::default();
    let count = Arc::clone(&counted);
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.lock().unwrap().push(Instant::now());
            let mut bytes = notation::parse_bytes(HELLO).unwrap();
            bytes.extend_from_slice(&ending);
            tokio::spawn(async move {
                let _ = serve(&mut stream, &bytes).await;
            });
        }
    });
    (counted, task)
}

async fn serve(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut hello = vec![0; stream.read_u32().await? as usize];
    stream.read_exact(&mut hello).await?;
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    // Reads on, so that no RST overtakes what was sent.
    tokio::io::copy(stream, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Keeps so many callers asking for three seconds, and for longer if a busy machine let fewer than three connections come;
/// returns what their requests failed with.
async fn press(engine: &EngineClient, callers: usize, counted: &Connections) -> Vec<EngineError> {
    let start = Instant::now();
    let goes_on = || match start.elapsed().as_secs() {
        0..3 => true,
        3..9 => counted.lock().unwrap().len() < 3,
        _ => false,
    };
    let callers = (0..callers).map(|_| async {
        let mut errors = vec![];
        while goes_on() {
            errors.push(engine.notify(&question()).await.unwrap_err());
        }
        errors
    });
    join_all(callers).await.concat()
}

fn question() -> MessageList {
    let mut list = MessageList::new();
    list.message("ask");
    list
}

/// One caller waits for a pause at most, so its timeout is far above that.
fn config(callers: usize) -> EngineConfig {
    let mut config = EngineConfig::default();
    config.timeouts.message = Some(Duration::from_secs(if callers == 1 { 4 } else { 1 }));
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_answers_nothing_is_connected_to_at_a_bounded_rate() {
    within(async {
        let endings = [
            ("disconnects", notation::parse_bytes(BROKEN).unwrap(), Some(Status(13))),
            ("says HELLO twice", notation::parse_bytes(HELLO).unwrap(), Some(Status::INVALID)),
            ("sends garbage", vec![0, 0, 0, 1, 0xff], Some(Status::INVALID)),
            // What was sent before the close was noticed fails at once, with the status of an I/O error.
            ("closes", vec![], Some(Status::IO)),
        ];
        let tests = endings.into_iter().flat_map(|ending| [1, 50].map(|callers| (ending.clone(), callers)));
        let tests = tests.map(|((name, ending, status), callers)| async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (counted, task) = useless(listener, ending);
            let engine = Engine::new(config(callers)).agent(address).start().unwrap();
            let errors = press(&engine, callers, &counted).await;
            let counted = counted.lock().unwrap().clone();
            assert!((3..=20).contains(&counted.len()), "{name}, {callers} callers: {counted:?}");
            let shortest = counted.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
            // The pause is a second at most.
            assert!(shortest < Duration::from_secs(2), "{name}, {callers} callers: {shortest:?}");
            let expected = status.map(EngineError::Spop);
            let said = errors.iter().filter(|error| Some(**error) == expected).count();
            assert!(said >= errors.len() / 2, "{name}, {callers} callers: {errors:?}");
            if name == "disconnects" {
                let failure = engine.failure(0).unwrap();
                let CloseReason::PeerDisconnect { message, .. } = &failure.reason else { panic!() };
                assert_eq!(&message[..], b"broken");
            }
            // A good agent takes its place.
            task.abort();
            let _ = task.await;
            let server = Server::new(|_: Request| async { Actions::new() }).bind(address).await.unwrap();
            tokio::spawn(server.serve());
            let start = Instant::now();
            loop {
                match engine.notify(&question()).await {
                    Ok(_) => break,
                    Err(_) if start.elapsed() < Duration::from_secs(6) => tokio::task::yield_now().await,
                    Err(error) => panic!("{name}, {callers} callers: {error}"),
                }
            }
            let took = start.elapsed();
            // A second of it is the pause.
            assert!(took < Duration::from_secs(5), "{name}, {callers} callers: answered after {took:?}");
            assert_eq!(engine.failure(0), None);
        });
        join_all(tests).await;
    })
    .await;
}
