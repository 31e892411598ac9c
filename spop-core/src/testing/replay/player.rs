//! HAProxy's side of a transcript, without I/O.

use alloc::{
    borrow::ToOwned,
    collections::VecDeque,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{mem, time::Duration};

use super::{
    Failures, ReplayError, Way,
    script::{Scenario, Step},
};
use crate::{frame::Frame, notation, testing::transcript::random::Random};

/// Plays a scenario, without I/O. Private: for the adapters.
#[derive(Debug)]
pub struct Player<'s> {
    scenario: &'s Scenario,
    way: Way,
    random: Random,
    /// The steps that are done.
    done: usize,
    /// Bytes to send.
    out: Vec<u8>,
    /// How much of the next frame was sent early.
    early: Option<usize>,
    /// Received bytes without a whole frame.
    partial: Vec<u8>,
    /// Received frames that were not compared yet.
    frames: VecDeque<Vec<u8>>,
    /// What came until now was settled.
    settled: bool,
    /// Why handlers gave no answer.
    pub failures: Failures,
}

/// What comes next in a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Todo {
    /// The agent reads these bytes in one read.
    Send(Vec<u8>),
    /// An answer is awaited.
    Receive,
    /// What was answered until now arrives.
    Settle,
    /// This time passes.
    Wait(Duration),
    /// HAProxy shuts its side of the connection.
    Shut,
}

impl<'s> Player<'s> {
    /// Plays this scenario.
    pub fn new(scenario: &'s Scenario, way: Way) -> Self {
        let seed = if let Way::Random(seed) = way { seed } else { 0 };
        Self {
            scenario,
            way,
            random: Random::seeded(seed),
            done: 0,
            out: Vec::new(),
            early: None,
            partial: Vec::new(),
            frames: VecDeque::new(),
            settled: false,
            failures: Failures::new(),
        }
    }

    /// Takes bytes of the agent.
    pub fn receive(&mut self, bytes: Vec<u8>) {
        self.partial.extend(bytes);
        while let Some((prefix, rest)) = self.partial.split_first_chunk::<4>()
            && let Some(frame) = rest.get(..u32::from_be_bytes(*prefix) as usize)
        {
            let frame = frame.to_vec();
            self.partial.drain(..4 + frame.len());
            self.frames.push_back(frame);
        }
    }

    /// What comes next; `None` at the end.
    ///
    /// # Errors
    /// What has arrived is not what is expected.
    pub fn next_todo(&mut self) -> Result<Option<Todo>, ReplayError> {
        loop {
            if !self.out.is_empty() {
                return Ok(Some(Todo::Send(self.piece())));
            }
            let Some((line, step)) = self.scenario.steps.get(self.done) else {
                if mem::replace(&mut self.settled, true) {
                    return self.nothing_left(self.scenario.end, "nothing more").map(|()| None);
                }
                return Ok(Some(Todo::Settle));
            };
            match step {
                Step::Send(_) => self.queue(),
                Step::Expect { frame, open } => match self.frames.pop_front() {
                    Some(found) => self.compare(*line, frame, *open, &found)?,
                    None if self.early.is_none() && self.send_early() => {}
                    None => return Ok(Some(Todo::Receive)),
                },
                Step::Wait(_) | Step::Shut if !mem::replace(&mut self.settled, true) => {
                    return Ok(Some(Todo::Settle));
                }
                Step::Wait(time) => {
                    self.nothing_left(*line, "nothing before this wait")?;
                    self.pass();
                    return Ok(Some(Todo::Wait(*time)));
                }
                Step::Shut => {
                    self.pass();
                    return Ok(Some(Todo::Shut));
                }
            }
        }
    }

    fn pass(&mut self) {
        self.done += 1;
        self.settled = false;
    }

    /// Queues the next frame, or all up to the next other step.
    fn queue(&mut self) {
        while let Some((_, Step::Send(bytes))) = self.scenario.steps.get(self.done) {
            let sent = self.early.take().unwrap_or_default();
            self.out.extend(bytes.get(sent..).unwrap_or_default());
            self.pass();
            if self.way == Way::Whole {
                break;
            }
        }
    }

    /// Queues a part of the next frame, before the answers that are awaited. False if there is none to send.
    fn send_early(&mut self) -> bool {
        self.early = Some(0);
        let steps = self.scenario.steps.get(self.done..).unwrap_or_default();
        let next = steps.iter().find(|(_, step)| !matches!(step, Step::Expect { .. }));
        let (Way::Random(_), Some((_, Step::Send(bytes)))) = (self.way, next) else { return false };
        let part = self.random.below(bytes.len());
        self.early = Some(part);
        self.out.extend(bytes.get(..part).unwrap_or_default());
        part > 0
    }

    /// The bytes of the next read.
    fn piece(&mut self) -> Vec<u8> {
        let most = match self.way {
            Way::Whole | Way::Joined => self.out.len(),
            Way::Bytes => 1,
            Way::Random(_) => self.random.piece(self.out.len()),
        };
        self.out.drain(..most.min(self.out.len())).collect()
    }

    fn compare(
        &mut self,
        line: usize,
        expected: &notation::OwnedFrame,
        open: bool,
        bytes: &[u8],
    ) -> Result<(), ReplayError> {
        self.pass();
        let same = Frame::decode(bytes).is_ok_and(|found| {
            found.header == expected.header
                && if open {
                    found.payload.starts_with(&expected.payload)
                } else {
                    found.payload == expected.payload
                }
        });
        if same {
            return Ok(());
        }
        Err(self.mismatch(line, format!("< {expected}{}", if open { " *" } else { "" }), bytes))
    }

    fn nothing_left(&self, line: usize, expected: &str) -> Result<(), ReplayError> {
        self.frames.front().map_or(Ok(()), |found| Err(self.mismatch(line, expected.to_owned(), found)))
    }

    fn mismatch(&self, line: usize, expected: String, found: &[u8]) -> ReplayError {
        let frame = Frame::decode(found);
        let ids = frame.as_ref().ok().map(|frame| frame.header.ids);
        let failure = self.failures.iter().rev().find(|(failed, _)| Some(*failed) == ids);
        ReplayError {
            line,
            way: Some(self.way),
            expected,
            found: frame
                .map_or_else(|error| error.to_string(), |frame| format!("< {}", notation::print(frame))),
            failure: failure.map(|(_, why)| why.text.clone()),
        }
    }

    /// The error for an answer that does not come.
    #[must_use]
    pub fn nothing_comes(&self) -> ReplayError {
        let step = self.scenario.steps.get(self.done);
        let expected = match step {
            Some((_, Step::Expect { frame, .. })) => format!("< {frame}"),
            _ => "an answer".to_owned(),
        };
        ReplayError {
            line: step.map_or(self.scenario.end, |(line, _)| *line),
            way: Some(self.way),
            expected,
            found: "nothing".to_owned(),
            failure: self.failures.last().map(|(ids, why)| format!("{} ({ids})", why.text)),
        }
    }
}
