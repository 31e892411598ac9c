//! The header of a frame: type, flags and the two identifiers.

use core::fmt;

use crate::{
    DecodeError,
    wire::{
        Malformed, Piece, Reader, Sink, VARINT_MAX, put_varint, read_short_varint, short_varint, varint_len,
    },
};

/// The lowest `max-frame-size` that a side may announce, in bytes (section 3.2).
pub const MIN_FRAME_SIZE: u32 = 256;

/// The length of a prefix with identifiers of up to eight bytes together: see [`Header::prefix`].
const PREFIX_MAX: usize = 17;

/// The longest header, without the length prefix: type, flags and two varints.
pub const HEADER_MAX: usize = 1 + 4 + 2 * VARINT_MAX;

/// FRAME-TYPE: the type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameType {
    /// 0: a further fragment of the payload with the same identifiers.
    Unset,
    /// 1: HAProxy opens the session.
    HaproxyHello,
    /// 2: HAProxy ends the session.
    HaproxyDisconnect,
    /// 3: HAProxy sends a request.
    Notify,
    /// 101: the agent accepts the session.
    AgentHello,
    /// 102: the agent ends the session.
    AgentDisconnect,
    /// 103: the agent answers a request.
    Ack,
    /// A type that the specification does not define.
    Unknown(u8),
}

impl FrameType {
    /// The types that the specification defines.
    pub const KNOWN: [Self; 7] = [
        Self::Unset,
        Self::HaproxyHello,
        Self::HaproxyDisconnect,
        Self::Notify,
        Self::AgentHello,
        Self::AgentDisconnect,
        Self::Ack,
    ];

    /// The type with this number on the wire.
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Unset,
            1 => Self::HaproxyHello,
            2 => Self::HaproxyDisconnect,
            3 => Self::Notify,
            101 => Self::AgentHello,
            102 => Self::AgentDisconnect,
            103 => Self::Ack,
            other => Self::Unknown(other),
        }
    }

    /// The number on the wire.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Unset => 0,
            Self::HaproxyHello => 1,
            Self::HaproxyDisconnect => 2,
            Self::Notify => 3,
            Self::AgentHello => 101,
            Self::AgentDisconnect => 102,
            Self::Ack => 103,
            Self::Unknown(other) => other,
        }
    }
}

impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unset => "UNSET",
            Self::HaproxyHello => "HAPROXY-HELLO",
            Self::HaproxyDisconnect => "HAPROXY-DISCONNECT",
            Self::Notify => "NOTIFY",
            Self::AgentHello => "AGENT-HELLO",
            Self::AgentDisconnect => "AGENT-DISCONNECT",
            Self::Ack => "ACK",
            Self::Unknown(other) => return write!(f, "frame of unknown type {other}"),
        })
    }
}

/// The flags of a frame. Reserved bits are kept, and have no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u32);

impl Flags {
    /// No flag: further fragments follow.
    pub const NONE: Self = Self(0);
    /// FIN: this is the payload's last or only fragment.
    pub const FIN: Self = Self(1);
    /// ABORT with FIN: the payload is cancelled. ABORT is always sent with FIN.
    pub const ABORT: Self = Self(3);

    /// Whether the payload ends with this frame. ABORT without FIN, which the specification forbids, ends it too.
    pub const fn is_fin(self) -> bool {
        self.0 & 3 != 0
    }

    /// Whether ABORT is set.
    pub const fn is_abort(self) -> bool {
        self.0 & 2 != 0
    }
}

/// The identifiers of a frame: STREAM-ID, and FRAME-ID within that stream. They are 0/0 in HELLO and DISCONNECT; a NOTIFY may
/// use any numbers, and its ACK repeats them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ids {
    /// STREAM-ID.
    pub stream: u64,
    /// FRAME-ID.
    pub frame: u64,
}

impl Ids {
    /// The identifiers of HELLO and DISCONNECT frames.
    pub const ZERO: Self = Self::new(0, 0);

    /// The frame `frame` of the stream `stream`.
    pub const fn new(stream: u64, frame: u64) -> Self {
        Self { stream, frame }
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.frame)
    }
}

/// The header of a frame, without the length prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// FRAME-TYPE.
    pub frame_type: FrameType,
    /// FLAGS.
    pub flags: Flags,
    /// STREAM-ID and FRAME-ID.
    pub ids: Ids,
}

impl Header {
    /// Decodes a header from the front of a frame without its length prefix.
    ///
    /// # Errors
    /// [`Malformed`] if the header is truncated.
    #[inline]
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let [frame_type, flags @ ..] = reader.array::<5>(Piece::FrameHeader)?;
        let stream = reader.varint()?;
        let frame = reader.varint()?;
        Ok(Self {
            frame_type: FrameType::from_byte(frame_type),
            flags: Flags(u32::from_be_bytes(flags)),
            ids: Ids { stream, frame },
        })
    }
}

impl Header {
    /// The length of the header in bytes, without the length prefix.
    pub const fn encoded_len(&self) -> usize {
        5 + varint_len(self.ids.stream) + varint_len(self.ids.frame)
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.frame_type, self.ids)
    }
}

/// A frame: its header, and the bytes of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header.
    pub header: Header,
    /// The payload, not validated.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Splits a frame without its length prefix into header and payload. The payload is not validated.
    ///
    /// # Errors
    /// [`DecodeError`] if the header is truncated.
    pub fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        let header = Header::read(&mut reader).map_err(|what| reader.error(frame, what))?;
        Ok(Self { header, payload: reader.rest() })
    }

    /// Appends the frame with its length prefix.
    pub fn encode(&self, out: &mut (impl Sink + ?Sized)) {
        put_frame(out, self.header, self.payload);
    }
}

/// Appends a frame: length prefix, header and payload.
#[inline]
pub fn put_frame(out: &mut (impl Sink + ?Sized), header: Header, payload: &[u8]) {
    let [l0, l1, l2, l3] = ((header.encoded_len() + payload.len()) as u32).to_be_bytes();
    let [f0, f1, f2, f3] = header.flags.0.to_be_bytes();
    out.put(&[l0, l1, l2, l3, header.frame_type.byte(), f0, f1, f2, f3]);
    put_varint(out, header.ids.stream);
    put_varint(out, header.ids.frame);
    out.put(payload);
}

impl Ids {
    /// Decodes identifiers from the front of `bytes`, and returns them with the rest.
    #[inline]
    pub(crate) fn split_from(bytes: &[u8]) -> Option<(Self, &[u8])> {
        if let Some(front) = bytes.first_chunk() {
            let front = u64::from_le_bytes(*front);
            if let Some((stream, stream_len)) = read_short_varint(front)
                && let Some((frame, frame_len)) = read_short_varint(front >> (8 * stream_len))
                && stream_len + frame_len <= 8
            {
                return Some((Self { stream, frame }, bytes.get((stream_len + frame_len) as usize..)?));
            }
        }
        let mut reader = Reader::new(bytes);
        let (stream, frame) = (reader.varint().ok()?, reader.varint().ok()?);
        Some((Self { stream, frame }, reader.rest()))
    }
}

impl Header {
    /// The length prefix and the header for a payload of this length, and their length in the array; `None` if the identifiers
    /// are too long for it.
    #[inline]
    pub(crate) fn prefix(self, payload: usize) -> Option<([u8; PREFIX_MAX], usize)> {
        let (stream, stream_len) = short_varint(self.ids.stream)?;
        let (frame, frame_len) = short_varint(self.ids.frame)?;
        if stream_len + frame_len > 8 {
            return None;
        }
        let ids = (stream | frame << (8 * stream_len)).to_le_bytes();
        let ids_len = (stream_len + frame_len) as usize;
        let [l0, l1, l2, l3] = ((5 + ids_len + payload) as u32).to_be_bytes();
        let [f0, f1, f2, f3] = self.flags.0.to_be_bytes();
        let [i0, i1, i2, i3, i4, i5, i6, i7] = ids;
        let head = self.frame_type.byte();
        Some(([l0, l1, l2, l3, head, f0, f1, f2, f3, i0, i1, i2, i3, i4, i5, i6, i7], 9 + ids_len))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_frame_is_its_length_its_header_and_its_payload() {
        let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: Ids::new(240, 1) };
        let mut bytes = Vec::new();
        put_frame(&mut bytes, header, b"xyz");
        assert_eq!(bytes, [0, 0, 0, 11, 103, 0, 0, 0, 1, 0xf0, 0, 1, b'x', b'y', b'z']);
        assert_eq!(Frame::decode(&bytes[4..]).unwrap(), Frame { header, payload: b"xyz" });
        for cut in 4..bytes.len() - 3 {
            assert!(Frame::decode(&bytes[4..cut]).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn a_prefix_is_what_a_frame_begins_with(stream: u64, frame: u64, shifts: [u8; 2], flags: u32) {
            let ids = Ids::new(stream >> (shifts[0] % 64), frame >> (shifts[1] % 64));
            let header = Header { frame_type: FrameType::Ack, flags: Flags(flags), ids };
            let mut bytes = Vec::new();
            put_frame(&mut bytes, header, b"xyz");
            let lens = [varint_len(ids.stream), varint_len(ids.frame)];
            let prefix = header.prefix(3).map(|(prefix, len)| prefix[..len].to_vec());
            assert_eq!(prefix.is_some(), lens.iter().all(|len| *len <= 5) && lens[0] + lens[1] <= 8);
            assert!(prefix.is_none_or(|prefix| prefix == bytes[..bytes.len() - 3]));
        }

        #[test]
        fn identifiers_are_two_varints(stream: u64, frame: u64, shifts: [u8; 2], rest: [u8; 8], any: [u8; 24]) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, stream >> (shifts[0] % 64));
            put_varint(&mut bytes, frame >> (shifts[1] % 64));
            bytes.extend(rest);
            for bytes in [&bytes, &any[..]] {
                for cut in 0..=bytes.len() {
                    let bytes = &bytes[..cut];
                    let mut reader = Reader::new(bytes);
                    let read = reader.varint().and_then(|stream| Ok(Ids::new(stream, reader.varint()?)));
                    assert_eq!(Ids::split_from(bytes), read.ok().map(|ids| (ids, reader.rest())));
                }
            }
        }
    }

    #[test]
    fn a_prefix_changes_its_length_where_a_varint_does() {
        // The first values that take another byte, and those beside them.
        for longer in [240, 2_288, 264_432, 33_818_864, 4_328_786_160] {
            for id in [longer - 1, longer, longer + 1] {
                for ids in [Ids::new(id, 1), Ids::new(1, id), Ids::new(id, id)] {
                    let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids };
                    let mut bytes = Vec::new();
                    put_frame(&mut bytes, header, &[]);
                    let prefix = header.prefix(0).map(|(prefix, len)| prefix[..len].to_vec());
                    assert!(prefix.is_none_or(|prefix| prefix == bytes));
                    assert_eq!(Ids::split_from(&bytes[9..]), Some((ids, &[][..])));
                    assert_eq!(
                        alloc::format!("{header}"),
                        alloc::format!("ACK {}/{}", ids.stream, ids.frame)
                    );
                }
            }
        }
    }

    #[test]
    fn the_longest_header_fits() {
        let ids = Ids::new(u64::MAX, u64::MAX);
        let header = Header { frame_type: FrameType::Notify, flags: Flags(u32::MAX), ids };
        let mut bytes = Vec::new();
        put_frame(&mut bytes, header, &[]);
        assert_eq!(bytes.len(), 4 + HEADER_MAX);
        assert_eq!(Frame::decode(&bytes[4..]).unwrap().header, header);
    }

    #[test]
    fn each_type_is_its_byte() {
        for byte in 0..=255 {
            assert_eq!(FrameType::from_byte(byte).byte(), byte);
        }
        for known in FrameType::KNOWN {
            assert_eq!(FrameType::from_byte(known.byte()), known);
        }
    }

    #[test]
    fn abort_without_fin_counts_as_both() {
        assert!(Flags(2).is_fin() && Flags(2).is_abort());
        assert!(Flags(1).is_fin() && !Flags(1).is_abort());
        assert!(!Flags(4).is_fin() && !Flags(4).is_abort());
    }
}
