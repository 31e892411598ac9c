//! An agent of the `spop` crate on tokio, as its published examples have it.

use std::{hint::black_box, net::TcpListener};

use anyhow::{Context as _, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use spop::{
    MAX_FRAME_SIZE_LIMIT, SpopCodec,
    actions::VarScope,
    frame::{FramePayload, FrameType},
    frames::{Ack, AgentHello, FrameCapabilities, HaproxyHello},
};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use super::question::{SCORE, VARIABLE};

pub async fn serve(listener: TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // Its examples leave this out; without it, answers would wait for each other.
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream));
    }
}

async fn connection(stream: TcpStream) -> Result<()> {
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
            }
            FrameType::Notify => {
                let FramePayload::ListOfMessages(messages) = &frame.payload() else { continue };
                for message in *messages {
                    black_box(&message.name);
                    for argument in &message.args {
                        black_box(argument);
                    }
                }
                let ids = frame.metadata();
                let ack = Ack::new(ids.stream_id, ids.frame_id);
                socket.send(Box::new(ack.set_var(VarScope::Session, VARIABLE, black_box(SCORE)))).await?;
            }
            _ => {}
        }
    }
    Ok(())
}
