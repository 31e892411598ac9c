//! One direction of a TCP connection: its bytes in order, whatever order the segments have.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Bytes that wait for those before them, in one direction. A gap of which no acknowledgment was captured ends there.
pub(super) const WAITING_MAX: usize = 1 << 20;

/// Segments that wait, in one direction.
const SEGMENTS_MAX: usize = 4_096;

/// What a segment has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The next bytes of the stream.
    Data(Bytes),
    /// So many bytes are missing in the capture.
    Lost(u64),
    /// So many bytes, from this byte of the stream, were there before.
    Repeated { offset: u64, len: u64 },
    /// So many bytes, from this byte of the stream, precede those before them.
    Early { offset: u64, len: u64 },
    /// The direction has ended.
    End,
    /// Bytes behind the end.
    AfterEnd { offset: u64, len: u64 },
}

/// What a waiting segment takes beside its bytes.
const SEGMENT: usize = 64;

/// Reassembles a direction. Offsets count from its first byte.
#[derive(Debug)]
pub(super) struct Stream {
    /// The sequence number of the first byte.
    initial: u32,
    /// The offset of the next byte.
    next: u64,
    /// Segments that wait, by the offsets of their first bytes; they do not overlap.
    waiting: BTreeMap<u64, Bytes>,
    bytes: usize,
    /// The offset up to which bytes were sent, captured or not.
    sent: u64,
    /// The offset of the FIN.
    end: Option<u64>,
    ended: bool,
}

impl Stream {
    /// A direction whose first byte has this sequence number.
    pub(super) const fn new(initial: u32) -> Self {
        Self { initial, next: 0, waiting: BTreeMap::new(), bytes: 0, sent: 0, end: None, ended: false }
    }

    pub(super) const fn initial(&self) -> u32 {
        self.initial
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.waiting.len() * SEGMENT
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    /// The offset of a sequence number near the next byte; negative before the first.
    fn offset(&self, sequence: u32) -> i64 {
        let expected = self.initial.wrapping_add(self.next as u32);
        let distance = sequence.wrapping_sub(expected).cast_signed();
        self.next.cast_signed().saturating_add(distance.into())
    }

    /// A segment. Behind its data it had `cut` bytes that were not captured; `fin` says that its last byte is that of the stream.
    pub(super) fn push(
        &mut self,
        sequence: u32,
        mut data: &[u8],
        cut: u32,
        fin: bool,
        pieces: &mut Vec<Piece>,
    ) {
        let mut offset = self.offset(sequence);
        if offset < 0 {
            // What precedes the first byte is a keep-alive, or older than the capture.
            let before = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX).min(data.len());
            data = data.get(before..).unwrap_or_default();
            offset += before.cast_signed() as i64;
        }
        let Ok(offset) = u64::try_from(offset) else { return };
        let end = offset + data.len() as u64;
        let whole = end + u64::from(cut);
        if fin && self.end.is_none() && whole >= self.next {
            self.end = Some(whole);
        }
        self.sent = self.sent.max(whole);
        if let Some(last) = self.end
            && end > last
            && !data.is_empty()
        {
            let len = (end - last).min(data.len() as u64);
            pieces.push(Piece::AfterEnd { offset: end - len, len });
            data = data.get(..data.len() - len as usize).unwrap_or_default();
        }
        if !data.is_empty() {
            self.insert(offset, data, pieces);
        }
        self.deliver(pieces);
        if self.bytes > WAITING_MAX || self.waiting.len() > SEGMENTS_MAX {
            self.give_up(u64::MAX, pieces);
        }
    }

    /// The other side has acknowledged what precedes this sequence number: what is missing of it never comes.
    pub(super) fn acknowledged(&mut self, sequence: u32, pieces: &mut Vec<Piece>) {
        // The FIN counts as a byte.
        let sequence = if self.end.is_some() { sequence.wrapping_sub(1) } else { sequence };
        let Ok(offset) = u64::try_from(self.offset(sequence)) else { return };
        self.sent = self.sent.max(offset);
        if offset > self.next && !self.waiting.is_empty() {
            self.give_up(offset, pieces);
        }
    }

    /// The capture or the connection ends: what is missing never comes.
    pub(super) fn finish(&mut self, pieces: &mut Vec<Piece>) {
        self.give_up(u64::MAX, pieces);
        let end = self.end.unwrap_or(self.sent);
        if end > self.next {
            pieces.push(Piece::Lost(end - self.next));
            self.next = end;
            self.deliver(pieces);
        }
    }

    /// Skips what is missing before `offset`.
    fn give_up(&mut self, offset: u64, pieces: &mut Vec<Piece>) {
        while let Some((&first, _)) = self.waiting.first_key_value() {
            if self.next >= offset {
                break;
            }
            pieces.push(Piece::Lost(first - self.next));
            self.next = first;
            self.deliver(pieces);
        }
    }

    /// Adds what is new of these bytes. Of bytes that come twice the first are kept, as receivers do.
    fn insert(&mut self, mut offset: u64, mut data: &[u8], pieces: &mut Vec<Piece>) {
        let (start, len) = (offset, data.len() as u64);
        let mut repeated = 0;
        let skip = self.next.saturating_sub(offset).min(len);
        repeated += skip;
        data = data.get(skip as usize..).unwrap_or_default();
        offset += skip;
        // A segment that began before may reach into this one.
        if let Some((before, bytes)) = self.waiting.range(..=offset).next_back() {
            let skip = (before + bytes.len() as u64).saturating_sub(offset).min(data.len() as u64);
            repeated += skip;
            data = data.get(skip as usize..).unwrap_or_default();
            offset += skip;
        }
        let early = offset > self.next && !data.is_empty();
        if early {
            pieces.push(Piece::Early { offset, len: data.len() as u64 });
        }
        while !data.is_empty() {
            let following = self.waiting.range(offset..).next().map(|(at, bytes)| (*at, bytes.len()));
            let until = following.map_or(data.len(), |(at, _)| {
                usize::try_from(at - offset).unwrap_or(usize::MAX).min(data.len())
            });
            let (new, rest) = data.split_at(until);
            if !new.is_empty() {
                self.bytes += new.len();
                self.waiting.insert(offset, Bytes::copy_from_slice(new));
            }
            let skip = following.map_or(0, |(_, len)| len.min(rest.len()));
            repeated += skip as u64;
            data = rest.get(skip..).unwrap_or_default();
            offset += (until + skip) as u64;
        }
        if repeated > 0 {
            pieces.push(Piece::Repeated { offset: start, len: repeated });
        }
    }

    fn deliver(&mut self, pieces: &mut Vec<Piece>) {
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() == self.next
        {
            let data = entry.remove();
            self.bytes -= data.len();
            self.next += data.len() as u64;
            pieces.push(Piece::Data(data));
        }
        if self.end == Some(self.next) && !self.ended {
            self.ended = true;
            pieces.push(Piece::End);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[Piece]) -> Vec<u8> {
        let data = pieces.iter().filter_map(|piece| match piece {
            Piece::Data(data) => Some(&data[..]),
            _ => None,
        });
        data.collect::<Vec<_>>().concat()
    }

    #[test]
    fn any_order_and_overlap_gives_the_same_stream() {
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..3_000_u32 {
            let len = random.usize(1..200);
            let sent: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            // Sequence numbers wrap in some rounds.
            let initial = if round % 2 == 0 { random.u32(..) } else { u32::MAX - random.u32(..200) };
            let mut segments = Vec::new();
            let mut at = 0;
            while at < len {
                let end = random.usize(at + 1..=len);
                segments.push((at, end));
                at = end;
            }
            for _ in 0..random.usize(..6) {
                let at = random.usize(..len);
                segments.push((at, random.usize(at..=len)));
            }
            random.shuffle(&mut segments);
            let (mut stream, mut pieces) = (Stream::new(initial), Vec::new());
            for (at, end) in segments {
                let sequence = initial.wrapping_add(at as u32);
                stream.push(sequence, &sent[at..end], 0, end == len, &mut pieces);
                assert!(stream.bytes <= len);
            }
            assert_eq!(text(&pieces), sent);
            assert_eq!(pieces.iter().filter(|piece| **piece == Piece::End).count(), 1, "{pieces:?}");
            assert!(!pieces.iter().any(|piece| matches!(piece, Piece::Lost(_) | Piece::AfterEnd { .. })));
            assert_eq!((stream.bytes, stream.is_ended()), (0, true));
        }
    }

    #[test]
    fn every_byte_is_delivered_repeated_or_lost() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..3_000 {
            let sent: Vec<u8> = (0..200_u8).collect();
            let (mut stream, mut pieces) = (Stream::new(5), Vec::new());
            let mut seen = [false; 200];
            for _ in 0..random.usize(1..20) {
                let at = random.usize(..200);
                let end = random.usize(at + 1..=200.min(at + 40));
                stream.push(5 + at as u32, &sent[at..end], 0, false, &mut pieces);
                seen[at..end].fill(true);
            }
            stream.finish(&mut pieces);
            let mut next = 0;
            for piece in &pieces {
                match piece {
                    Piece::Data(data) => {
                        assert_eq!(data[..], sent[next..next + data.len()]);
                        assert!(seen[next..next + data.len()].iter().all(|seen| *seen));
                        next += data.len();
                    }
                    Piece::Lost(len) => {
                        assert!(seen[next..next + *len as usize].iter().all(|seen| !seen));
                        next += *len as usize;
                    }
                    _ => {}
                }
            }
            assert_eq!(seen.iter().rposition(|seen| *seen).map_or(0, |last| last + 1), next);
        }
    }

    #[test]
    fn what_was_acknowledged_and_never_captured_is_lost() {
        let (mut stream, mut pieces) = (Stream::new(100), Vec::new());
        stream.push(100, b"ab", 0, false, &mut pieces);
        stream.push(105, b"fg", 0, false, &mut pieces);
        stream.acknowledged(102, &mut pieces);
        assert_eq!(text(&pieces), b"ab");
        stream.acknowledged(107, &mut pieces);
        assert_eq!(text(&pieces), b"abfg");
        assert!(pieces.contains(&Piece::Lost(3)) && pieces.contains(&Piece::Early { offset: 5, len: 2 }));
    }

    #[test]
    fn what_was_cut_or_only_acknowledged_is_lost() {
        for (cut, fin, acknowledged, lost) in
            [(3, false, 0, Some(3)), (3, true, 0, Some(3)), (0, false, 6, Some(4)), (0, false, 2, None)]
        {
            let (mut stream, mut pieces) = (Stream::new(0), Vec::new());
            stream.push(0, b"ab", cut, fin, &mut pieces);
            stream.acknowledged(acknowledged, &mut pieces);
            stream.finish(&mut pieces);
            let found = pieces.iter().find(|piece| matches!(piece, Piece::Lost(_)));
            assert_eq!(found, lost.map(Piece::Lost).as_ref());
            assert_eq!(stream.is_ended(), fin);
        }
    }

    #[test]
    fn what_waits_is_limited() {
        let (mut stream, mut pieces) = (Stream::new(0), Vec::new());
        for index in 0..SEGMENTS_MAX as u32 * 3 {
            stream.push(1 + index * 2, b"x", 0, false, &mut pieces);
            assert!(stream.waiting.len() <= SEGMENTS_MAX + 1);
        }
        let block = vec![0; 60_000];
        let (mut stream, mut pieces) = (Stream::new(0), Vec::new());
        for index in 0..1_000 {
            stream.push(1 + index * 70_000, &block, 0, false, &mut pieces);
            assert!(stream.bytes <= WAITING_MAX + block.len());
        }
    }

    #[test]
    fn repetitions_and_bytes_behind_the_end_are_named() {
        let (mut stream, mut pieces) = (Stream::new(0), Vec::new());
        stream.push(0, b"abc", 0, false, &mut pieces);
        stream.push(1, b"bc", 0, false, &mut pieces);
        stream.push(u32::MAX, b"x", 0, false, &mut pieces);
        stream.push(3, b"", 0, true, &mut pieces);
        stream.push(4, b"", 0, false, &mut pieces);
        stream.push(3, b"de", 0, false, &mut pieces);
        assert_eq!(
            pieces,
            [
                Piece::Data(Bytes::from_static(b"abc")),
                Piece::Repeated { offset: 1, len: 2 },
                Piece::End,
                Piece::AfterEnd { offset: 3, len: 2 },
            ]
        );
    }
}
