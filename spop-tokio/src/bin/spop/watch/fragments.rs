//! Payloads that are sent in fragments.

use spop_core::frame::{Header, Ids};

/// Payloads at once in a direction, and their bytes together.
const SETS: usize = 64;
const BYTES: usize = 16 << 20;

/// The unfinished payloads of a direction.
#[derive(Debug)]
pub(super) struct Fragments {
    sets: Vec<Set>,
    bytes: usize,
}

#[derive(Debug)]
struct Set {
    header: Header,
    payload: Vec<u8>,
    fragments: u32,
}

/// A further fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// More follow.
    Kept,
    /// The payload, the header of its first frame, and the number of fragments.
    Whole(Header, Vec<u8>, u32),
    /// No such payload has begun.
    Unknown,
    /// The payload was given up: it is too long.
    TooLong,
}

impl Fragments {
    pub(super) const fn new() -> Self {
        Self { sets: Vec::new(), bytes: 0 }
    }

    /// Bytes that are held.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first fragment. False if an older payload was given up for it.
    pub(super) fn begin(&mut self, header: Header, fragment: &[u8]) -> bool {
        self.drop(header.ids);
        let full = self.sets.len() >= SETS;
        if full && let Some(oldest) = self.sets.first() {
            self.drop(oldest.header.ids);
        }
        self.bytes += fragment.len();
        self.sets.push(Set { header, payload: fragment.to_vec(), fragments: 1 });
        !full
    }

    /// A further fragment.
    pub(super) fn join(&mut self, ids: Ids, fragment: &[u8], last: bool) -> Joined {
        let Some(set) = self.sets.iter_mut().find(|set| set.header.ids == ids) else {
            return Joined::Unknown;
        };
        if self.bytes + fragment.len() > BYTES {
            self.drop(ids);
            return Joined::TooLong;
        }
        self.bytes += fragment.len();
        set.payload.extend_from_slice(fragment);
        set.fragments += 1;
        if !last {
            return Joined::Kept;
        }
        let (header, fragments) = (set.header, set.fragments);
        let payload = std::mem::take(&mut set.payload);
        self.bytes -= payload.len();
        self.drop(ids);
        Joined::Whole(header, payload, fragments)
    }

    /// Drops a payload. False if there is none.
    pub(super) fn drop(&mut self, ids: Ids) -> bool {
        let Some(index) = self.sets.iter().position(|set| set.header.ids == ids) else { return false };
        self.bytes -= self.sets.remove(index).payload.len();
        true
    }

    /// Drops all.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use spop_core::frame::{Flags, FrameType};

    use super::*;

    fn header(stream: u64) -> Header {
        Header { frame_type: FrameType::Notify, flags: Flags::NONE, ids: Ids::new(stream, 1) }
    }

    #[test]
    fn fragments_of_two_payloads_are_kept_apart() {
        let mut fragments = Fragments::new();
        assert!(fragments.begin(header(1), b"a") && fragments.begin(header(2), b"b"));
        assert_eq!(fragments.join(header(1).ids, b"c", false), Joined::Kept);
        assert_eq!(fragments.join(header(2).ids, b"d", true), Joined::Whole(header(2), b"bd".into(), 2));
        assert_eq!(fragments.join(header(1).ids, b"e", true), Joined::Whole(header(1), b"ace".into(), 3));
        assert_eq!((fragments.join(header(1).ids, b"", true), fragments.bytes()), (Joined::Unknown, 0));
    }

    #[test]
    fn payloads_are_limited() {
        let mut fragments = Fragments::new();
        for stream in 0..1_000 {
            assert_eq!(fragments.begin(header(stream), &[0; 10]), stream < SETS as u64);
        }
        assert_eq!(fragments.bytes(), SETS * 10);
        let ids = header(999).ids;
        let block = vec![0; 1 << 20];
        let kept = (0..100).take_while(|_| fragments.join(ids, &block, false) == Joined::Kept).count();
        assert_eq!(kept, BYTES / block.len() - 1);
        assert_eq!(fragments.bytes(), (SETS - 1) * 10);
    }
}
