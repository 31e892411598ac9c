//! `--record`: what passes, as a capture of packets.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use etherparse::{PacketBuilder, TcpHeader};
use nix::{fcntl::OFlag, unistd::geteuid};

use crate::{
    exit::{Failure, reason},
    watch::Segment,
};

/// The link type of packets that begin with their IP header.
const LINK_RAW: u32 = 101;

/// The longest packet that is announced.
const PACKET_MAX: u32 = 262_144;

/// A file in the format of libpcap. Each packet is written at once: what a killed relay leaves can be read.
#[derive(Debug)]
pub(super) struct Recorder {
    file: File,
    name: String,
    /// Bytes that may still be written.
    left: u64,
    limit: u64,
}

impl Recorder {
    pub(super) fn create(path: &Path, limit: u64) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let mut header = Vec::new();
        // The magic number, version 2.4, time zone, accuracy, the longest packet, the link type.
        for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, PACKET_MAX, LINK_RAW] {
            header.extend(u32::to_le_bytes(word));
        }
        let file = create(path).and_then(|mut file| file.write_all(&header).map(|()| file));
        let file = file.map_err(|error| Failure::io_of(&name, &error))?;
        Ok(Self { file, name, left: limit.saturating_sub(header.len() as u64), limit })
    }

    /// Adds a segment. Once it fails, nothing more may be added.
    ///
    /// # Errors
    /// Why the recording ends.
    pub(super) fn segment(&mut self, time: Duration, segment: &Segment<'_>) -> Result<(), Stopped> {
        let mut record = vec![0; 16];
        packet(segment, &mut record).map_err(|error| self.failed(&error))?;
        let len = (record.len() - 16) as u32;
        // pcap ends in 2106.
        let words = [time.as_secs() as u32, time.subsec_micros(), len, len];
        for (field, word) in record.chunks_exact_mut(4).zip(words) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        let Some(left) = self.left.checked_sub(record.len() as u64) else {
            let (name, limit) = (&self.name, self.limit);
            return Err(Stopped {
                text: format!(
                    "{name} has reached {limit} bytes (--record-max): what follows is not recorded"
                ),
                is_failure: false,
            });
        };
        self.file.write_all(&record).map_err(|error| {
            // No part of a packet stays at the end.
            let _ = self.file.set_len(self.limit - self.left);
            self.failed(&error)
        })?;
        self.left = left;
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Stopped {
        let text = format!("{}: {}: what follows is not recorded", self.name, reason(error));
        Stopped { text, is_failure: true }
    }
}

/// An empty file that only the user may read: it may have what was sent with TLS. Pipes and devices are used as they are.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    let (file, is_link) = match options.open(path) {
        // /dev/stdout is a link. A file is not created where one leads to.
        Err(_) if path.is_symlink() => (OpenOptions::new().write(true).open(path)?, true),
        file => (file?, false),
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(file);
    }
    let refused = |why| Err(io::Error::other(why));
    if is_link {
        return refused("a symbolic link to a file: name the file itself");
    }
    if found.uid() != geteuid().as_raw() {
        return refused("the file belongs to another user: remove it, or name another one");
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    Ok(file)
}

/// Why a recording has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stopped {
    pub(super) text: String,
    /// It was not its limit.
    pub(super) is_failure: bool,
}

/// Appends the segment with headers of TCP and IP, and their checksums.
fn packet(segment: &Segment<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    let (from, to) = (segment.from, segment.to);
    let mut tcp = TcpHeader::new(from.port(), to.port(), segment.sequence, u16::MAX);
    tcp.ack = segment.ack.is_some();
    tcp.acknowledgment_number = segment.ack.unwrap_or_default();
    (tcp.syn, tcp.fin, tcp.rst) = (segment.syn, segment.fin, segment.rst);
    tcp.psh = !segment.payload.is_empty();
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        _ => PacketBuilder::ipv6(v6(from), v6(to), 64),
    };
    builder.tcp_header(tcp).write(out, segment.payload).map_err(io::Error::other)
}

fn v6(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Parses a size in bytes: `1000`, `64k`, `100m`, `2g`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => Some(0),
        "k" => Some(10),
        "m" => Some(20),
        "g" => Some(30),
        _ => None,
    };
    let size =
        shift.zip(number.parse::<u64>().ok()).and_then(|(shift, number)| number.checked_mul(1 << shift));
    size.ok_or_else(|| "expected a number of bytes, or one with a unit: 64k, 100m, 2g".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_what_the_segment_has() {
        let payload = [7; 16_384];
        for (from, to) in [("10.0.0.1:5", "10.0.0.2:6"), ("[2001:db8::1]:5", "[2001:db8::2]:6")] {
            for (syn, fin, rst, ack, payload) in [
                (true, false, false, None, &[][..]),
                (false, true, false, Some(9), &[]),
                (false, false, true, Some(9), &[]),
                (false, false, false, Some(u32::MAX), &payload),
            ] {
                let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
                let segment = Segment { from, to, sequence: 3, ack, syn, fin, rst, payload, cut: 0 };
                let mut data = Vec::new();
                packet(&segment, &mut data).unwrap();
                assert_eq!(Segment::find(LINK_RAW.cast_signed(), &data), Ok(segment));
            }
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("1000", Some(1_000)),
            ("64k", Some(65_536)),
            ("2G", Some(2 << 30)),
            ("", None),
            ("k", None),
            ("1t", None),
            ("99999999999g", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }
}
