//! The bytes of a segment: its header, its frames and its footer.
//!
//! ```text
//! header (128)  magic, version, ledger id, segment number, first sequence,
//!               chain hash before the segment, time made, CRC32C
//! frame         head (40): magic, payload length, first sequence, count, payload version, flags,
//!               last sequence that was fdatasynced before it, CRC32C of the payload and of the head
//!               payload
//!               chain hash (32): BLAKE3(previous chain hash || head || payload)
//! footer (160)  only in a sealed segment, where the next frame would be: ranges of sequence, id
//!               and time, the final chain hash, CRC32C
//! ```
//! All integers are little-endian, ids and hashes are raw bytes.
//!
//! Invariants
//! - Every byte of header, frame and footer is covered by a checksum.
//! - The first ten bytes of a header and its last four (CRC32C) stay what they are in every version,
//!   so that an older program can tell *newer* from *damaged*.
//!
//! Not here: order and meaning of frames (`journal`), what a payload holds (`codec`).

use bursar_domain::{LedgerId, Timestamp};

/// Version of the segment layout. A newer one is refused.
pub(crate) const FORMAT_VERSION: u16 = 1;
/// Bytes of a segment header.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 128;
/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEAD_BYTES: u64 = 40;
/// Bytes of a chain hash.
pub(crate) const HASH_BYTES: u64 = 32;
/// Bytes of a segment footer.
pub(crate) const FOOTER_BYTES: u64 = 160;
/// Longest payload that is read; the writer stays far below.
pub(crate) const PAYLOAD_BYTES_MAX: u32 = 64 << 20;
/// The first bytes of every frame.
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"BfR\x9d";

const SEGMENT_MAGIC: [u8; 8] = *b"BURSARJ\x0a";
const FOOTER_MAGIC: [u8; 8] = *b"BURSARS\x0a";

/// A link of the chain.
pub(crate) type Hash = [u8; 32];
/// The chain before the first frame of a ledger.
pub(crate) const GENESIS: Hash = [0; 32];

/// What a segment says about itself at its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) ledger: LedgerId,
    pub(crate) number: u64,
    pub(crate) first_sequence: u64,
    pub(crate) previous_hash: Hash,
    pub(crate) made_at: Timestamp,
}

/// Why a header is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Damaged,
    Newer(u16),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&self.ledger.bits().to_be_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.first_sequence.to_le_bytes());
        out.extend_from_slice(&self.previous_hash);
        out.extend_from_slice(&self.made_at.micros().to_le_bytes());
        seal_with_crc(out, 128)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut take = checked(bytes, 128).ok_or(HeaderError::Damaged)?;
        let header = (|| {
            if take.array::<8>()? != SEGMENT_MAGIC {
                return None;
            }
            let version = take.u16()?;
            if version != FORMAT_VERSION {
                return Some(Err(HeaderError::Newer(version)));
            }
            take.array::<6>()?;
            Some(Ok(Self {
                ledger: LedgerId::from_bits(u128::from_be_bytes(take.array()?)),
                number: take.u64()?,
                first_sequence: take.u64()?,
                previous_hash: take.array()?,
                made_at: Timestamp::from_micros(i64::from_le_bytes(take.array()?)),
            }))
        })();
        header.ok_or(HeaderError::Damaged)?
    }
}

/// What is known of the records in a segment or a frame without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ranges {
    pub(crate) id_min: u128,
    pub(crate) id_max: u128,
    pub(crate) started_min: i64,
    pub(crate) started_max: i64,
}

impl Ranges {
    /// No record.
    pub(crate) const EMPTY: Self =
        Self { id_min: u128::MAX, id_max: 0, started_min: i64::MAX, started_max: i64::MIN };

    pub(crate) fn add(&mut self, id: u128, started_micros: i64) {
        self.id_min = self.id_min.min(id);
        self.id_max = self.id_max.max(id);
        self.started_min = self.started_min.min(started_micros);
        self.started_max = self.started_max.max(started_micros);
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.id_min = self.id_min.min(other.id_min);
        self.id_max = self.id_max.max(other.id_max);
        self.started_min = self.started_min.min(other.started_min);
        self.started_max = self.started_max.max(other.started_max);
    }
}

/// What a sealed segment says about itself at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) data_end: u64,
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    pub(crate) ranges: Ranges,
    pub(crate) hash: Hash,
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(&FOOTER_MAGIC);
        out.extend_from_slice(&self.data_end.to_le_bytes());
        out.extend_from_slice(&self.first_sequence.to_le_bytes());
        out.extend_from_slice(&self.last_sequence.to_le_bytes());
        out.extend_from_slice(&self.ranges.id_min.to_le_bytes());
        out.extend_from_slice(&self.ranges.id_max.to_le_bytes());
        out.extend_from_slice(&self.ranges.started_min.to_le_bytes());
        out.extend_from_slice(&self.ranges.started_max.to_le_bytes());
        out.extend_from_slice(&self.hash);
        seal_with_crc(out, 160)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = checked(bytes, 160)?;
        if take.array::<8>()? != FOOTER_MAGIC {
            return None;
        }
        Some(Self {
            data_end: take.u64()?,
            first_sequence: take.u64()?,
            last_sequence: take.u64()?,
            ranges: Ranges {
                id_min: u128::from_le_bytes(take.array()?),
                id_max: u128::from_le_bytes(take.array()?),
                started_min: i64::from_le_bytes(take.array()?),
                started_max: i64::from_le_bytes(take.array()?),
            },
            hash: take.array()?,
        })
    }
}

/// What stands before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) payload_bytes: u32,
    pub(crate) first_sequence: u64,
    pub(crate) count: u32,
    pub(crate) payload_version: u16,
    /// The last sequence that was fdatasynced when this frame was written. A bad frame with a later
    /// frame that vouches for it is damage; without one it is a torn tail.
    pub(crate) synced_sequence: u64,
    pub(crate) payload_crc: u32,
}

impl FrameHead {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        out.extend_from_slice(&FRAME_MAGIC);
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&self.first_sequence.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.payload_version.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.synced_sequence.to_le_bytes());
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        seal_with_crc(out, 40)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = checked(bytes, 40)?;
        if take.array::<4>()? != FRAME_MAGIC {
            return None;
        }
        let payload_bytes = take.u32()?;
        let first_sequence = take.u64()?;
        let count = take.u32()?;
        let payload_version = take.u16()?;
        take.u16()?;
        let synced_sequence = take.u64()?;
        let payload_crc = take.u32()?;
        let sane = payload_bytes <= PAYLOAD_BYTES_MAX && count > 0;
        sane.then_some(Self {
            payload_bytes,
            first_sequence,
            count,
            payload_version,
            synced_sequence,
            payload_crc,
        })
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEAD_BYTES + u64::from(self.payload_bytes) + HASH_BYTES
    }

    /// The sequence of the frame's last record.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.first_sequence.saturating_add(u64::from(self.count)).saturating_sub(1)
    }
}

/// The chain hash after a frame.
pub(crate) fn chain(previous: &Hash, head: &[u8], payload: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous).update(head).update(payload);
    *hasher.finalize().as_bytes()
}

/// Whether every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

/// Pads with zeros and ends with the CRC32C of everything before it.
pub(super) fn seal_with_crc(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.resize(len - 4, 0);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The bytes without their trailing CRC32C, if that is right and the length is `len`.
pub(super) fn checked(bytes: &[u8], len: usize) -> Option<Take<'_>> {
    if bytes.len() != len {
        return None;
    }
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then_some(Take(body))
}

/// Reads fixed-size values from the front of a slice.
pub(super) struct Take<'a>(&'a [u8]);

impl Take<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            ledger: LedgerId::from_bits(7),
            number: 3,
            first_sequence: 11,
            previous_hash: [5; 32],
            made_at: Timestamp::from_micros(1_000_001),
        }
    }

    #[test]
    fn headers_heads_and_footers_come_back_as_they_were() {
        assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
        let mut ranges = Ranges::EMPTY;
        ranges.add(9, -4);
        ranges.add(2, 8);
        let footer = Footer { data_end: 128, first_sequence: 1, last_sequence: 2, ranges, hash: [9; 32] };
        assert_eq!(Footer::decode(&footer.encode()), Some(footer));
        let head = FrameHead {
            payload_bytes: 77,
            first_sequence: 5,
            count: 3,
            payload_version: 1,
            synced_sequence: 4,
            payload_crc: 99,
        };
        assert_eq!(FrameHead::decode(&head.encode()), Some(head));
        assert_eq!(head.last_sequence(), 7);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = header().encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(SegmentHeader::decode(&bad), Err(HeaderError::Damaged), "byte {at}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        let body = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Newer(2)));
    }
}
