//! What the agent sends, and what it must be.

use std::time::Instant;

use futures_util::future::select_all;
use spop_core::frame::FrameType;

use super::{FRAMES, Player, Stop, fault};
use crate::{
    conform::{
        expected::{Alternative, Expected, alternatives, describe, is_any},
        log::within,
        pattern::Pattern,
    },
    conversation::Received,
    frames,
    hello::Hello,
    text,
};

impl Player<'_> {
    /// The next frame of the current connection, or of any. It is logged, and its length is checked.
    async fn receive(&mut self, deadline: Instant) -> Result<Received, Stop> {
        self.conversation().await?;
        let (current, any) = (self.current, self.any_connection);
        let open = self.connections.iter_mut().filter(|connection| any || connection.number == current);
        let receiving = open.filter_map(|connection| {
            let conversation = connection.conversation.as_mut()?;
            let (number, hello) = (connection.number, &mut connection.hello);
            Some(Box::pin(async move {
                let (before, begun) = (conversation.reads().len(), !conversation.rest().is_empty());
                let received = conversation.receive(deadline).await;
                let reads = conversation.reads().len() - before + usize::from(begun);
                (received, number, hello, reads)
            }))
        });
        let ((received, number, hello, reads), ..) = select_all(receiving).await;
        let Received::Frame(frame) = &received else {
            let event = match &received {
                Received::Nothing => return Ok(received),
                Received::Eof(0) => "(the agent closes the connection)".to_owned(),
                Received::Eof(bytes) => {
                    format!("(the agent closes the connection after {bytes} bytes of a frame)")
                }
                Received::Broken(error) => format!("({error})"),
                Received::TooLong(len) => format!("(a frame of {len} bytes begins)"),
                Received::Frame(_) => String::new(),
            };
            self.log.add(number, &event);
            return Ok(received);
        };
        self.log.frame(number, frame);
        (self.last, self.reads) = (frame.len() + 4, reads);
        if frames::header(frame).is_some_and(|header| header.frame_type == FrameType::AgentHello) {
            *hello = Hello::read(frame);
        }
        let agreed = hello.as_ref().and_then(|hello| hello.max_frame_size);
        match agreed {
            Some(agreed) if frame.len() as i128 > agreed => Err(fault(
                format!("no frame longer than the {agreed} bytes that were agreed on"),
                format!("one of {} bytes", frame.len()),
            )),
            _ => Ok(received),
        }
    }

    pub(super) async fn expect(&mut self, expected: &Expected) -> Result<(), Stop> {
        let mut left: Vec<&Pattern> = expected.frames.iter().collect();
        let mut deadline = Instant::now() + self.agent.timeout;
        for _ in 0..FRAMES.max(2 * left.len()) {
            if left.is_empty() {
                return Ok(());
            }
            let received = self.receive(deadline).await?;
            let wrong = |came: String| fault(describe(&left, &expected.or), came);
            let frame = match &received {
                Received::Frame(frame) => frame,
                other if is_any(&expected.or, other) => return Err(Stop::Done),
                other => return Err(wrong(self.what(other))),
            };
            if let Some(index) = left.iter().position(|pattern| pattern.matches(frame).is_ok()) {
                left.remove(index);
                deadline = Instant::now() + self.agent.timeout;
                continue;
            }
            if is_any(&expected.or, &received) {
                return Err(Stop::Done);
            }
            if self.is_allowed(frame) {
                continue;
            }
            // The reason is that of a frame of the same type, if there is one.
            let frame_type = frames::header(frame).map(|header| header.frame_type);
            let same = left.iter().find(|pattern| Some(pattern.frame_type()) == frame_type).or(left.first());
            let why = same.and_then(|pattern| pattern.matches(frame).err()).unwrap_or_default();
            return Err(wrong(format!("another frame: {why}")));
        }
        Err(fault(describe(&left, &expected.or), "many other frames"))
    }

    /// Whether a frame may come beside those that are expected.
    fn is_allowed(&self, frame: &[u8]) -> bool {
        let is_ack = || frames::header(frame).is_some_and(|header| header.frame_type == FrameType::Ack);
        self.disconnecting && is_ack() || self.allowed.iter().any(|pattern| pattern.matches(frame).is_ok())
    }

    pub(super) async fn quiet(&mut self) -> Result<(), Stop> {
        let deadline = Instant::now() + self.agent.quiet;
        for _ in 0..FRAMES {
            match self.receive(deadline).await? {
                Received::Frame(frame) if self.is_allowed(&frame) => {}
                Received::Frame(frame) => {
                    let frame = frames::text(&frame);
                    return Err(fault("nothing", format!("< {}", text::cut(&frame, 80))));
                }
                Received::TooLong(_) => return Err(fault("nothing", "bytes that are no frame")),
                Received::Eof(0) | Received::Broken(_) | Received::Nothing => return Ok(()),
                Received::Eof(_) => return Err(fault("nothing", "part of a frame")),
            }
        }
        Err(fault("nothing", "many frames"))
    }

    pub(super) async fn end(&mut self, or: &[Alternative]) -> Result<(), Stop> {
        let wrong =
            |came: String| fault(format!("the agent closes the connection{}", alternatives(or)), came);
        let deadline = Instant::now() + self.agent.timeout;
        for _ in 0..FRAMES {
            let received = self.receive(deadline).await?;
            match &received {
                Received::Eof(0) | Received::Broken(_) => return Ok(()),
                other if is_any(or, other) => return Err(Stop::Done),
                Received::Frame(frame) if self.is_allowed(frame) => {}
                other => return Err(wrong(self.what(other))),
            }
        }
        Err(wrong("many frames".into()))
    }

    /// Reads what answers hostile input, whatever it is.
    pub(super) async fn settle(&mut self) {
        let deadline = Instant::now() + self.agent.quiet;
        for _ in 0..FRAMES {
            if !matches!(self.receive(deadline).await, Ok(Received::Frame(_))) {
                return;
            }
        }
    }

    fn what(&self, received: &Received) -> String {
        match received {
            Received::Frame(_) => "a frame".into(),
            Received::Eof(0) => "the agent closes the connection".into(),
            Received::Eof(bytes) => format!("the agent closes the connection after {bytes} bytes of a frame"),
            Received::Nothing => within(self.agent.timeout, self.rest()),
            Received::TooLong(len) => match frames::byte_order(*len) {
                Some(why) => format!("a frame of {len} bytes: {why}"),
                None => format!("bytes that are no frame: its length would be {len}"),
            },
            Received::Broken(error) => error.clone(),
        }
    }
}
