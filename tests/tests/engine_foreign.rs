//! The engine asks an agent that others made: the `spop` crate, used the way its published examples do.

#![allow(clippy::unwrap_used)] // It is a test.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use spop::{
    MAX_FRAME_SIZE_LIMIT, SpopCodec, TypedData,
    actions::VarScope,
    frame::{FramePayload, FrameType},
    frames::{Ack, AgentDisconnect, AgentHello, FrameCapabilities, HaproxyHello},
};
use spop_tokio::{Engine, EngineConfig, EngineError, MessageList, PoolConfig, Scope, Status, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;

/// Serves a connection: sets what it is asked, and disconnects with 99 when it is told to.
async fn serve(stream: TcpStream) -> anyhow::Result<()> {
    let mut socket = Framed::new(stream, SpopCodec::default());
    while let Some(frame) = socket.next().await {
        let frame = frame?;
        match frame.frame_type() {
            FrameType::HaproxyHello => {
                let hello = HaproxyHello::try_from(frame.payload()).ok().context("no HELLO")?;
                let version = hello.negotiate_version().context("no version")?;
                let size = hello.negotiate_max_frame_size(MAX_FRAME_SIZE_LIMIT).ok().context("no size")?;
                socket.codec_mut().set_max_frame_size(size);
                let capabilities = vec![FrameCapabilities::Pipelining];
                socket.send(Box::new(AgentHello { version, max_frame_size: size, capabilities })).await?;
                if hello.healthcheck.unwrap_or(false) {
                    return Ok(());
                }
            }
            FrameType::HaproxyDisconnect => {
                let bye = AgentDisconnect { status_code: 0, message: "normal".into() };
                socket.send(Box::new(bye)).await?;
                return Ok(socket.close().await?);
            }
            FrameType::Notify => {
                let FramePayload::ListOfMessages(messages) = &frame.payload() else { continue };
                let mut ack = Ack::new(frame.metadata().stream_id, frame.metadata().frame_id);
                for message in *messages {
                    if message.name == "leave" {
                        let bye = AgentDisconnect { status_code: 99, message: "as you wish".into() };
                        socket.send(Box::new(bye)).await?;
                        return Ok(socket.close().await?);
                    }
                    for (name, value) in &message.args {
                        ack = ack.set_var(VarScope::Session, name, value.clone());
                        if let TypedData::UInt32(number) = value {
                            ack = ack.set_var(VarScope::Transaction, "next", number + 1);
                        }
                    }
                }
                socket.send(Box::new(ack)).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_others_answers() {
    for mut config in [EngineConfig::default(), EngineConfig::haproxy_2_6(), EngineConfig::haproxy_3_1()] {
        config.timeouts.message = Some(Duration::from_secs(10));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        let mut pool = PoolConfig::new(config, 0);
        pool.check_every = Some(Duration::from_millis(20));
        let engine = Engine::with_pool(pool).agent(address).start().unwrap();

        let ask = |number: u32| {
            let engine = engine.clone();
            async move {
                let mut list = MessageList::new();
                let mut message = list.message("echo");
                message.arg("number", number).arg("text", "t\u{e9}xt").arg("bytes", Value::Binary(&[0, 255]));
                message
                    .arg("flag", true)
                    .arg("ip", Ipv4Addr::LOCALHOST)
                    .arg("minus", i64::MIN)
                    .arg("null", Value::Null);
                let answer = engine.notify(&list).await.unwrap();
                let var = |name| answer.var(Scope::Session, name);
                assert_eq!(answer.var(Scope::Transaction, "next"), Some(Value::Uint32(number + 1)));
                assert_eq!(var("number"), Some(Value::Uint32(number)));
                assert_eq!(var("text"), Some(Value::String("t\u{e9}xt".as_bytes())));
                assert_eq!(var("bytes"), Some(Value::Binary(&[0, 255])));
                assert_eq!(var("flag"), Some(Value::Bool(true)));
                assert_eq!(var("ip"), Some(Value::Ipv4(Ipv4Addr::LOCALHOST)));
                assert_eq!(var("minus"), Some(Value::Int64(i64::MIN)));
                assert_eq!(var("null"), None);
                assert_eq!(answer.actions().iter().count(), 8);
            }
        };
        join_all((0..200).map(ask)).await;

        let mut leave = MessageList::new();
        leave.message("leave");
        assert_eq!(engine.notify(&leave).await.unwrap_err(), EngineError::Spop(Status(99)));
        ask(7).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(engine.is_up(0));
        engine.drain().await;
        assert_eq!(engine.stats().connections, 0);
    }
}
