//! Framing of received bytes.

use super::{Link, Side, Verdict, Violation, judge};
use crate::{
    DecodeError,
    frame::{Flags, FrameType, Header, Ids},
    wire::{Malformed, Piece, Reader},
};

/// The length of the shortest frame: type, flags and two identifiers of one byte each.
const SHORTEST: u32 = 7;

/// A cursor over the bytes of one input.
#[derive(Debug)]
pub(crate) struct Input<'i> {
    bytes: &'i [u8],
    consumed: usize,
}

impl<'i> Input<'i> {
    #[inline]
    pub(crate) const fn new(bytes: &'i [u8]) -> Self {
        Self { bytes, consumed: 0 }
    }

    /// The unused rest.
    #[inline]
    pub(crate) const fn bytes(&self) -> &'i [u8] {
        self.bytes
    }

    /// How many bytes were used.
    #[inline]
    pub(crate) const fn consumed(&self) -> usize {
        self.consumed
    }

    fn advance(&mut self, n: usize) {
        self.bytes = self.bytes.get(n..).unwrap_or_default();
        self.consumed += n;
    }

    /// Discards the rest.
    pub(crate) fn clear(&mut self) {
        self.advance(self.bytes.len());
    }
}

/// The next frame of an input. The input has not advanced past it yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next<'i> {
    pub(crate) header: Header,
    pub(crate) verdict: Verdict,
    pub(crate) payload: &'i [u8],
    /// The length of the frame with its length prefix.
    pub(crate) len: usize,
}

impl Link {
    /// Parses the next frame without using it. `Ok(Err(n))` means that at least `n` bytes are missing. Skips frames of unknown
    /// type.
    #[inline]
    pub(crate) fn next<'i>(&mut self, input: &mut Input<'i>) -> Result<Result<Next<'i>, usize>, Violation> {
        loop {
            let Some((prefix, rest)) = input.bytes.split_first_chunk::<4>() else {
                return Ok(Err(4 - input.bytes.len()));
            };
            let len = u32::from_be_bytes(*prefix);
            if len > self.max_frame_size {
                return Err(Violation::FrameTooBig { len, max: self.max_frame_size });
            }
            // No frame is this short: refused without waiting for its payload.
            if len < SHORTEST {
                let error =
                    DecodeError { what: Malformed::Truncated(Piece::FrameHeader), offset: len as usize };
                return Err(Violation::BadHeader { len, error });
            }
            let Some(frame) = rest.get(..len as usize) else {
                return Ok(Err(len as usize - rest.len()));
            };
            let mut reader = Reader::new(frame);
            let header = Header::read(&mut reader)
                .map_err(|what| Violation::BadHeader { len, error: reader.error(frame, what) })?;
            let verdict = judge(self.phase, self.side.other(), header.frame_type, header.flags);
            let len = 4 + frame.len();
            match verdict {
                Verdict::Skip => {
                    self.skipped = self.skipped.saturating_add(1);
                    self.skip(input, len);
                }
                Verdict::Illegal(why) => return Err(Violation::Illegal { header, why }),
                _ => return Ok(Ok(Next { header, verdict, payload: reader.rest(), len })),
            }
        }
    }

    /// Fast path: the identifiers and payload of an unfragmented frame of this type, with the frame's length, if the input
    /// begins with one. In all other cases `None`, and [`next`](Self::next) is the slow path.
    #[inline]
    pub(crate) fn whole<'i>(
        &self,
        input: &'i [u8],
        sender: Side,
        frame_type: FrameType,
    ) -> Option<(Ids, &'i [u8], usize)> {
        let (&[l0, l1, l2, l3, first, f0, f1, f2, f3], _) = input.split_first_chunk()?;
        let flags = Flags(u32::from_be_bytes([f0, f1, f2, f3]));
        if first != frame_type.byte() || judge(self.phase, sender, frame_type, flags) != Verdict::Whole {
            return None;
        }
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        if len > self.max_frame_size {
            return None;
        }
        let end = 4_usize.checked_add(len as usize)?;
        let (ids, payload) = Ids::split_from(input.get(9..end)?)?;
        Some((ids, payload, end))
    }

    /// Advances the input past a frame of `len` bytes.
    pub(crate) fn skip(&mut self, input: &mut Input<'_>, len: usize) {
        input.advance(len);
        self.took_frame();
    }

    /// A frame was processed.
    #[inline]
    pub(crate) fn took_frame(&mut self) {
        self.partial = None;
        self.last_active = self.now;
    }

    /// The input holds no further complete frame; `left` bytes of it remain.
    pub(crate) fn rest(&mut self, left: usize) {
        self.paused = false;
        self.partial = match self.partial {
            _ if left == 0 => None,
            Some((since, _)) => Some((since, left)),
            None => Some((self.now, left)),
        };
    }

    /// Backpressure: `left` bytes of input stay unused until a limit no longer holds. Meanwhile no frame timeout runs.
    pub(crate) fn pause(&mut self, left: usize) {
        self.paused = left > 0;
        self.partial = None;
    }

    /// The peer has shut its write side. Deferred and held output can be sent.
    pub(crate) fn input_ended(&mut self) {
        self.eof = true;
        if self.out.deferred | self.out.held {
            (self.out.deferred, self.out.held) = (false, false);
            self.out.released(self.now);
        }
        self.advance();
    }
}
