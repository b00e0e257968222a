//! The roll of a segment: what stays of it when its records are given up. `00000001.roll` takes the place
//! of `00000001.seg`: it holds the hourly totals of the segment's records, and all else in it that later
//! records, reports or a rebuilt store still need.
//!
//! ```text
//! header (328)  magic, version, ledger id, segment number, first and last sequence, chain hash before and
//!               after the segment, times made and rolled, ranges of id and time, counts, length and BLAKE3
//!               of the body, CRC32C
//! sections      head (16): kind (u8), zeros (3), items, bytes, CRC32C of the payload; then the payload
//!               (postcard items): rollups, finance facts, ids that count once, owners of batches,
//!               exchanges opened here and not closed here, exchanges of earlier segments closed here,
//!               interrupted requests for which something was held
//! ```
//!
//! Invariants
//! - A roll stands for its whole segment: the sums of its rollups are those of the segment's records, and
//!   no finance fact, id that counts once, owner or open exchange of the segment is missing from it.
//! - The chain goes through it: it begins and ends with the chain hashes of the segment.
//! - Its digest is in the journal as a checkpoint before it takes the segment's place, so a roll cannot be
//!   exchanged for another.
//!
//! Not here: when segments are rolled up (`retention`), finding rolls (`journal::find`).

use super::format::{Hash, Ranges, checked, seal_with_crc};
use super::read::{Frames, InterruptedRequest, ReadError};
use super::segment::{Check, SegmentError, read_header};
use super::{Damage, Segment};
use crate::batch::{decode_identity, encode_identity};
use crate::codec::{self, Encoder, Fact, FrameDecoder, Mark};
use crate::journal::format::{FrameHead, HeaderError};
use crate::opening::Opening;
use crate::rollup::{Rollups, Totals, decode_totals, encode_totals};
use crate::settle::{self, Counting};
use bursar_domain::{
    Currency, Identity, LedgerId, Metering, Money, Outcome, RequestId, StoredFact, Timestamp,
};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"BURSARR\x0a";
const VERSION: u16 = 1;
/// Bytes of a roll's header.
pub(crate) const ROLL_HEADER_BYTES: usize = 328;
const SECTION_HEAD_BYTES: usize = 16;
/// A section is closed when it is this long: what is damaged later is as little as that.
const SECTION_BYTES: usize = 64 << 10;

const ROLLUPS: u8 = 1;
const FACTS: u8 = 2;
const COUNTED: u8 = 3;
const OWNERS: u8 = 4;
const OPENED: u8 = 5;
const CLOSED: u8 = 6;
const INTERRUPTED: u8 = 7;

/// What a roll says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RollHeader {
    pub(crate) ledger: LedgerId,
    pub(crate) number: u64,
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    pub(crate) previous_hash: Hash,
    /// The chain hash after the segment's last frame.
    pub(crate) hash: Hash,
    pub(crate) made_at: Timestamp,
    pub(crate) rolled_at: Timestamp,
    pub(crate) ranges: Ranges,
    pub(crate) records: u64,
    pub(crate) reservations: u64,
    pub(crate) facts: u64,
    pub(crate) opened: u32,
    pub(crate) closed: u32,
    pub(crate) interrupted: u32,
    pub(crate) body_bytes: u64,
    pub(crate) body_hash: Hash,
}

impl RollHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ROLL_HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&self.ledger.bits().to_be_bytes());
        for number in [self.number, self.first_sequence, self.last_sequence] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.previous_hash);
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.made_at.micros().to_le_bytes());
        out.extend_from_slice(&self.rolled_at.micros().to_le_bytes());
        out.extend_from_slice(&self.ranges.id_min.to_le_bytes());
        out.extend_from_slice(&self.ranges.id_max.to_le_bytes());
        out.extend_from_slice(&self.ranges.started_min.to_le_bytes());
        out.extend_from_slice(&self.ranges.started_max.to_le_bytes());
        for number in [self.records, self.reservations, self.facts] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.opened, self.closed, self.interrupted] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.body_bytes.to_le_bytes());
        out.extend_from_slice(&self.body_hash);
        seal_with_crc(out, ROLL_HEADER_BYTES)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut take = checked(bytes, ROLL_HEADER_BYTES).ok_or(HeaderError::Damaged)?;
        let header = (|| {
            if take.array::<8>()? != MAGIC {
                return None;
            }
            let version = take.u16()?;
            if version != VERSION {
                return Some(Err(HeaderError::Newer(version)));
            }
            take.array::<6>()?;
            Some(Ok(Self {
                ledger: LedgerId::from_bits(u128::from_be_bytes(take.array()?)),
                number: take.u64()?,
                first_sequence: take.u64()?,
                last_sequence: take.u64()?,
                previous_hash: take.array()?,
                hash: take.array()?,
                made_at: Timestamp::from_micros(i64::from_le_bytes(take.array()?)),
                rolled_at: Timestamp::from_micros(i64::from_le_bytes(take.array()?)),
                ranges: Ranges {
                    id_min: u128::from_le_bytes(take.array()?),
                    id_max: u128::from_le_bytes(take.array()?),
                    started_min: i64::from_le_bytes(take.array()?),
                    started_max: i64::from_le_bytes(take.array()?),
                },
                records: take.u64()?,
                reservations: take.u64()?,
                facts: take.u64()?,
                opened: take.u32()?,
                closed: take.u32()?,
                interrupted: take.u32()?,
                body_bytes: take.u64()?,
                body_hash: take.array()?,
            }))
        })();
        header.ok_or(HeaderError::Damaged)?
    }

    /// What the journal vouches for: the header, which holds the hash of the body.
    pub(crate) fn digest(&self) -> String {
        blake3::hash(&self.encode()).to_hex().to_string()
    }

    /// Bytes of the whole file.
    pub(crate) fn file_bytes(&self) -> u64 {
        (ROLL_HEADER_BYTES as u64).saturating_add(self.body_bytes)
    }
}

/// A segment of which only its roll is left.
#[derive(Clone, Debug)]
pub(crate) struct Rolled {
    pub(crate) header: RollHeader,
    pub(crate) path: Arc<Path>,
}

/// Everything a roll keeps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) rollups: Vec<(Box<[u8]>, Totals)>,
    pub(crate) facts: Vec<StoredFact>,
    pub(crate) counted: Vec<Box<[u8]>>,
    pub(crate) owners: Vec<(Box<[u8]>, Arc<Identity>)>,
    pub(crate) opened: Vec<Opening>,
    pub(crate) closed: Vec<RequestId>,
    pub(crate) interrupted: Vec<InterruptedRequest>,
}

impl Contents {
    /// What is remembered besides totals.
    pub(crate) fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        let counted = self.counted.iter().map(|key| Mark::Counted(key.clone()));
        let owners = self.owners.iter().map(|(key, owner)| Mark::Owner(key.clone(), Arc::clone(owner)));
        counted.chain(owners)
    }

    /// The sum of all rollups.
    pub(crate) fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        self.rollups.iter().for_each(|(_, totals)| sum.merge(totals));
        sum
    }

    fn sections(&self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        write(&mut body, ROLLUPS, &self.rollups, |(key, totals)| {
            postcard::to_stdvec(&(&**key, encode_totals(totals).as_slice())).ok()
        })?;
        write(&mut body, FACTS, &self.facts, |stored| {
            postcard::to_stdvec(&(stored.sequence, codec::to_row(&stored.fact).as_slice())).ok()
        })?;
        write(&mut body, COUNTED, &self.counted, |key| postcard::to_stdvec(&**key).ok())?;
        write(&mut body, OWNERS, &self.owners, |(key, owner)| {
            postcard::to_stdvec(&(&**key, encode_identity(owner).as_slice())).ok()
        })?;
        write(&mut body, OPENED, &self.opened, |opening| {
            postcard::to_stdvec(&*codec::encode_row(opening)).ok()
        })?;
        write(&mut body, CLOSED, &self.closed, |id| postcard::to_stdvec(&id.bits().to_be_bytes()).ok())?;
        write(&mut body, INTERRUPTED, &self.interrupted, encode_interrupted)?;
        Some(body)
    }
}

/// Writes items as sections of one kind.
fn write<T>(body: &mut Vec<u8>, kind: u8, items: &[T], encode: impl Fn(&T) -> Option<Vec<u8>>) -> Option<()> {
    let (mut payload, mut count) = (Vec::new(), 0_u32);
    for item in items {
        payload.extend_from_slice(&encode(item)?);
        count = count.saturating_add(1);
        if payload.len() >= SECTION_BYTES {
            close_section(body, kind, count, &payload)?;
            payload.clear();
            count = 0;
        }
    }
    if count > 0 { close_section(body, kind, count, &payload) } else { Some(()) }
}

fn close_section(body: &mut Vec<u8>, kind: u8, count: u32, payload: &[u8]) -> Option<()> {
    body.extend_from_slice(&[kind, 0, 0, 0]);
    body.extend_from_slice(&count.to_le_bytes());
    body.extend_from_slice(&u32::try_from(payload.len()).ok()?.to_le_bytes());
    body.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    body.extend_from_slice(payload);
    Some(())
}

type WireMoney = ([u8; 3], i128);

fn encode_interrupted(one: &InterruptedRequest) -> Option<Vec<u8>> {
    let mut encoder = Encoder::default();
    encoder.add_usage(&one.record, false).ok()?;
    let mut payload = Vec::new();
    encoder.finish(&mut payload).ok()?;
    let held: Option<WireMoney> = one.held_cost.map(|money| (codec::code(money.currency()), money.pico()));
    postcard::to_stdvec(&(payload.as_slice(), one.held_tokens, held)).ok()
}

fn decode_interrupted(bytes: &[u8]) -> Option<(InterruptedRequest, &[u8])> {
    type Wire<'a> = (&'a [u8], Option<u64>, Option<WireMoney>);
    let ((payload, held_tokens, held), rest): (Wire<'_>, _) = postcard::take_from_bytes(bytes).ok()?;
    let head = FrameHead {
        payload_bytes: u32::try_from(payload.len()).ok()?,
        first_sequence: 1,
        count: 1,
        payload_version: codec::PAYLOAD_VERSION,
        synced_sequence: 0,
        payload_crc: 0,
    };
    let record = FrameDecoder::new(&head, payload.to_vec()).ok()?.next()?.ok()?.record;
    let held_cost = match held {
        None => None,
        Some((code, pico)) => Some(Money::from_pico(currency(code)?, pico)),
    };
    Some((InterruptedRequest { record, held_tokens, held_cost }, rest))
}

fn currency(code: [u8; 3]) -> Option<Currency> {
    codec::currency(code).ok()
}

/// One section as it lies in a body.
struct Section<'a> {
    kind: u8,
    count: u32,
    payload: &'a [u8],
}

/// The section at the front of `bytes`, if its checksum is right, and what follows.
fn section(bytes: &[u8]) -> Option<(Section<'_>, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<SECTION_HEAD_BYTES>()?;
    let number = |at: usize| {
        head.get(at..).and_then(|bytes| bytes.first_chunk::<4>()).map(|bytes| u32::from_le_bytes(*bytes))
    };
    let (count, length, crc) = (number(4)?, number(8)?, number(12)?);
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let [kind, 0, 0, 0, ..] = *head else { return None };
    let known = (ROLLUPS..=INTERRUPTED).contains(&kind);
    (known && crc32c::crc32c(payload) == crc).then_some((Section { kind, count, payload }, rest))
}

/// Adds a section's items; `None` when they cannot be read.
fn take(contents: &mut Contents, section: &Section<'_>) -> Option<()> {
    let mut rest = section.payload;
    for _ in 0..section.count {
        rest = match section.kind {
            ROLLUPS => {
                let ((key, totals), rest): ((&[u8], &[u8]), _) = postcard::take_from_bytes(rest).ok()?;
                contents.rollups.push((key.into(), decode_totals(totals)?));
                rest
            }
            FACTS => {
                let ((sequence, row), rest): ((u64, &[u8]), _) = postcard::take_from_bytes(rest).ok()?;
                contents.facts.push(StoredFact { sequence, fact: codec::from_row(row)? });
                rest
            }
            COUNTED => {
                let (key, rest): (&[u8], _) = postcard::take_from_bytes(rest).ok()?;
                contents.counted.push(key.into());
                rest
            }
            OWNERS => {
                let ((key, owner), rest): ((&[u8], &[u8]), _) = postcard::take_from_bytes(rest).ok()?;
                contents.owners.push((key.into(), Arc::new(decode_identity(owner)?)));
                rest
            }
            OPENED => {
                let (row, rest): (&[u8], _) = postcard::take_from_bytes(rest).ok()?;
                contents.opened.push(codec::decode_row(row).ok()?);
                rest
            }
            CLOSED => {
                let (id, rest): ([u8; 16], _) = postcard::take_from_bytes(rest).ok()?;
                contents.closed.push(RequestId::from_bits(u128::from_be_bytes(id)));
                rest
            }
            _ => {
                let (one, rest) = decode_interrupted(rest)?;
                contents.interrupted.push(one);
                rest
            }
        };
    }
    rest.is_empty().then_some(())
}

/// The name of a roll's file.
pub(crate) fn roll_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.roll"))
}

/// Reads the header of the roll at `path`; a file that is not as long as it says is damaged.
pub(crate) fn read_roll_header(path: &Path) -> Result<RollHeader, SegmentError> {
    use std::io::Read;
    let mut file = std::fs::File::open(path).map_err(SegmentError::Io)?;
    let length = file.metadata().map_err(SegmentError::Io)?.len();
    let mut bytes = Vec::new();
    file.by_ref().take(ROLL_HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(SegmentError::Io)?;
    let header = RollHeader::decode(&bytes).map_err(SegmentError::Header)?;
    if header.file_bytes() == length { Ok(header) } else { Err(SegmentError::Header(HeaderError::Damaged)) }
}

impl Rolled {
    /// Reads everything that is kept, and checks all of it.
    pub(crate) fn read(&self) -> Result<Contents, ReadError> {
        let io = |source| ReadError::Io { path: self.path.to_path_buf(), source };
        let bytes = std::fs::read(&self.path).map_err(io)?;
        self.contents_of(&bytes).map_err(|what| self.damage(what).into())
    }

    pub(crate) fn damage(&self, what: &str) -> Damage {
        Damage {
            segment: self.header.number,
            offset: 0,
            first_sequence: self.header.first_sequence,
            last_sequence: Some(self.header.last_sequence),
            what: what.to_owned(),
        }
    }

    fn contents_of(&self, bytes: &[u8]) -> Result<Contents, &'static str> {
        let (head, body) =
            bytes.split_at_checked(ROLL_HEADER_BYTES).ok_or("the roll that stands for it is cut off")?;
        if RollHeader::decode(head).ok().as_ref() != Some(&self.header) {
            return Err("the header of the roll that stands for it does not match");
        }
        if *blake3::hash(body).as_bytes() != self.header.body_hash {
            return Err("the roll that stands for it does not match its checksum");
        }
        let (mut contents, mut rest) = (Contents::default(), body);
        while !rest.is_empty() {
            let (section, after) =
                section(rest).ok_or("a section of the roll that stands for it cannot be read")?;
            take(&mut contents, &section)
                .ok_or("a section of the roll that stands for it cannot be understood")?;
            rest = after;
        }
        self.check_counts(&contents)?;
        Ok(contents)
    }

    fn check_counts(&self, contents: &Contents) -> Result<(), &'static str> {
        let header = &self.header;
        let sequences = header.last_sequence.saturating_add(1).saturating_sub(header.first_sequence);
        let listed = header.records.saturating_add(header.reservations).saturating_add(header.facts);
        let kept = (
            contents.totals().requests,
            contents.facts.len() as u64,
            contents.opened.len() as u64,
            contents.closed.len() as u64,
            contents.interrupted.len() as u64,
        );
        let told = (
            header.records,
            header.facts,
            u64::from(header.opened),
            u64::from(header.closed),
            u64::from(header.interrupted),
        );
        if listed != sequences || kept != told {
            return Err("the roll that stands for it does not add up");
        }
        Ok(())
    }
}

/// What can be read of a roll that may be damaged.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    pub(crate) header: Option<RollHeader>,
    pub(crate) contents: Contents,
    /// Whether anything in it could not be read.
    pub(crate) is_damaged: bool,
}

/// Reads what can be read of the bytes of a roll.
pub(crate) fn salvage(bytes: &[u8]) -> Salvaged {
    let mut found = Salvaged::default();
    let head = bytes.get(..ROLL_HEADER_BYTES).unwrap_or(bytes);
    found.header = RollHeader::decode(head).ok();
    let body = bytes.get(ROLL_HEADER_BYTES..).unwrap_or_default();
    let whole = |header: &RollHeader| {
        header.body_bytes == body.len() as u64 && *blake3::hash(body).as_bytes() == header.body_hash
    };
    found.is_damaged = !found.header.as_ref().is_some_and(whole);
    let mut rest = body;
    while !rest.is_empty() {
        let mut read = Contents::default();
        match section(rest).filter(|(section, _)| take(&mut read, section).is_some()) {
            Some((_, after)) => {
                found.contents.extend(read);
                rest = after;
            }
            None => rest = rest.get(1..).unwrap_or_default(),
        }
    }
    found
}

impl Contents {
    fn extend(&mut self, other: Self) {
        let Self { rollups, facts, counted, owners, opened, closed, interrupted } = other;
        self.rollups.extend(rollups);
        self.facts.extend(facts);
        self.counted.extend(counted);
        self.owners.extend(owners);
        self.opened.extend(opened);
        self.closed.extend(closed);
        self.interrupted.extend(interrupted);
    }
}

/// A roll before it is a file.
#[derive(Debug)]
pub(crate) struct NewRoll {
    pub(crate) header: RollHeader,
    pub(crate) bytes: Vec<u8>,
}

/// Puts contents and what is known of the segment together; `None` when they are too large to be written.
pub(crate) fn assemble(mut header: RollHeader, contents: &Contents) -> Option<NewRoll> {
    let body = contents.sections()?;
    header.facts = contents.facts.len() as u64;
    header.opened = u32::try_from(contents.opened.len()).ok()?;
    header.closed = u32::try_from(contents.closed.len()).ok()?;
    header.interrupted = u32::try_from(contents.interrupted.len()).ok()?;
    header.body_bytes = body.len() as u64;
    header.body_hash = *blake3::hash(&body).as_bytes();
    let mut bytes = header.encode();
    bytes.extend_from_slice(&body);
    Some(NewRoll { header, bytes })
}

/// Rolls a sealed segment up. `open` are the exchanges that are open before it, and then after it.
pub(crate) fn roll_up(
    segment: &Segment,
    ledger: LedgerId,
    open: &mut HashMap<RequestId, Opening>,
    rolled_at: Timestamp,
) -> Result<NewRoll, ReadError> {
    let damage = |what: &str| Damage {
        segment: segment.number,
        offset: 0,
        first_sequence: segment.first_sequence,
        last_sequence: Some(segment.last_sequence),
        what: what.to_owned(),
    };
    let header = read_header(&segment.path).map_err(|error| match error {
        SegmentError::Io(source) => ReadError::Io { path: segment.path.to_path_buf(), source },
        SegmentError::Header(_) => damage("the segment header cannot be read").into(),
    })?;
    let mut gathered = Gathered::new(open);
    let mut frames = Frames::new(std::iter::once(segment.clone()), Check::Chain);
    let mut payload = Vec::new();
    while let Some(head) = frames.next(&mut payload) {
        let head = head?;
        let undecodable = |source| ReadError::Undecodable { sequence: head.first_sequence, source };
        gathered.contents.facts.extend(codec::facts(&head, &payload).map_err(undecodable)?);
        let mut decoder = FrameDecoder::new(&head, std::mem::take(&mut payload)).map_err(undecodable)?;
        decoder.take_marks().into_iter().for_each(|mark| gathered.mark(mark));
        while let Some(fact) = decoder.next_fact() {
            gathered.add(fact.map_err(undecodable)?);
        }
        payload = decoder.into_buffer();
    }
    let (contents, records, reservations) = gathered.finish();
    let header = RollHeader {
        ledger,
        number: segment.number,
        first_sequence: segment.first_sequence,
        last_sequence: segment.last_sequence,
        previous_hash: header.previous_hash,
        hash: segment.hash,
        made_at: header.made_at,
        rolled_at,
        ranges: segment.ranges,
        records,
        reservations,
        facts: 0,
        opened: 0,
        closed: 0,
        interrupted: 0,
        body_bytes: 0,
        body_hash: [0; 32],
    };
    assemble(header, &contents).ok_or_else(|| damage("its roll would be too large").into())
}

struct Gathered<'a> {
    contents: Contents,
    rollups: Rollups,
    open: &'a mut HashMap<RequestId, Opening>,
    opened_here: HashSet<RequestId>,
    records: u64,
    reservations: u64,
}

impl<'a> Gathered<'a> {
    fn new(open: &'a mut HashMap<RequestId, Opening>) -> Self {
        Self {
            contents: Contents::default(),
            rollups: Rollups::default(),
            open,
            opened_here: HashSet::new(),
            records: 0,
            reservations: 0,
        }
    }

    fn mark(&mut self, mark: Mark) {
        match mark {
            Mark::Counted(key) => self.contents.counted.push(key),
            Mark::Owner(key, owner) => self.contents.owners.push((key, owner)),
        }
    }

    fn add(&mut self, fact: Fact) {
        match fact {
            // They were added with their frame.
            Fact::Finance { .. } => {}
            Fact::Reservation(opening) => {
                self.reservations = self.reservations.saturating_add(1);
                self.opened_here.insert(opening.id);
                self.open.insert(opening.id, *opening);
            }
            Fact::Usage(decoded) => {
                let record = decoded.record;
                self.records = self.records.saturating_add(1);
                self.rollups.add_record(&record, decoded.counted);
                if decoded.counted
                    && record.metering == Metering::OncePerId
                    && let Counting::Once(key) = settle::counting(&record)
                {
                    self.contents.counted.push(key);
                }
                let Some(opening) = self.open.remove(&record.id) else { return };
                if !self.opened_here.remove(&record.id) {
                    self.contents.closed.push(record.id);
                }
                let Opening { held_tokens, held_cost, .. } = opening;
                if record.outcome == Outcome::Interrupted && (held_tokens.is_some() || held_cost.is_some()) {
                    self.contents.interrupted.push(InterruptedRequest { record, held_tokens, held_cost });
                }
            }
        }
    }

    fn finish(self) -> (Contents, u64, u64) {
        let Self { mut contents, rollups, open, opened_here, records, reservations } = self;
        contents.rollups = rollups.iter().map(|(key, totals)| (key.into(), totals.clone())).collect();
        contents.rollups.sort_by(|(a, _), (b, _)| a.cmp(b));
        contents.opened = opened_here.iter().filter_map(|id| open.get(id).cloned()).collect();
        contents.opened.sort_by_key(|opening| opening.id);
        (contents, records, reservations)
    }
}

/// The exchanges that are open after the given rolls, which follow one another. Reads only those that have
/// something to say about it.
pub(crate) fn open_after(rolled: &[Rolled]) -> Result<HashMap<RequestId, Opening>, ReadError> {
    let mut open = HashMap::new();
    for roll in rolled.iter().filter(|roll| roll.header.opened > 0 || roll.header.closed > 0) {
        let contents = roll.read()?;
        contents.closed.iter().for_each(|id| drop(open.remove(id)));
        open.extend(contents.opened.into_iter().map(|opening| (opening.id, opening)));
    }
    Ok(open)
}
