//! Reading the journal: frames, and the records in them, in sequence.
//!
//! Invariants
//! - Only what the given `View` covers is read, so a reader can run beside the writer.
//! - Memory is bounded by one frame.
//! - What cannot be read is an error that names segment, offset and sequences; nothing is skipped.
//!
//! Not here: recovery at open (`journal::find`, `open`), aggregation (`query`).

use super::format::{FrameHead, HeaderError, Ranges};
use super::roll::{Rolled, open_after};
use super::segment::{Check, Position, SegmentError, SegmentReader, Step};
use super::{Damage, Segment, View};
use crate::codec::{self, DecodeError, Decoded, Fact, Figures, FrameDecoder, Glance, GlanceFrame, Mark};
use crate::hedge::Reprice;
use crate::opening::Opening;
use bursar_domain::{Cost, LedgerId, Money, Outcome, RequestId, StoredFact, Timestamp, UsageRecord};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A record with its place in the ledger. (ledger, sequence) names it for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The ledger.
    pub ledger: LedgerId,
    /// The place in it, from 1, without gaps.
    pub sequence: u64,
    /// What was recorded.
    pub record: UsageRecord,
    /// Whether its tokens and cost count (`never`, and repeats of `once-per-id`, do not).
    pub counted: bool,
}

/// Which records to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordRange {
    /// Started at or after this.
    pub from: Option<Timestamp>,
    /// Started before this.
    pub to: Option<Timestamp>,
    /// With a sequence greater than this.
    pub after_sequence: u64,
}

impl RecordRange {
    /// Whether `at` is within `from` and `to`.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at < to)
    }

    fn touches(&self, segment: &Segment) -> bool {
        let has_records = segment.last_sequence >= segment.first_sequence;
        has_records && self.touches_ranges(segment.last_sequence, &segment.ranges)
    }

    /// Whether records that were asked for are in the segment that a roll stands for.
    pub(crate) fn touches_roll(&self, roll: &Rolled) -> bool {
        let header = &roll.header;
        header.records > 0 && self.touches_ranges(header.last_sequence, &header.ranges)
    }

    fn touches_ranges(&self, last_sequence: u64, ranges: &Ranges) -> bool {
        last_sequence > self.after_sequence
            && self.from.is_none_or(|from| from.micros() <= ranges.started_max)
            && self.to.is_none_or(|to| ranges.started_min < to.micros())
    }
}

/// Records that are not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "of requests that began up to {} only hourly totals are kept: ask from the next hour on, or for usage in whole hours by team, workload, provider, model, route, api, tier, outcome or source",
    time(.until)
)]
pub struct Pruned {
    /// The last of them that were asked for began then.
    pub until: Timestamp,
    /// The last sequence of which the record is not kept.
    pub last_sequence: u64,
}

fn time(at: &Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default().to_string()
}

impl Pruned {
    /// What the rolls stand for; `None` when there are none.
    pub(crate) fn of<'a>(rolls: impl Iterator<Item = &'a Rolled>) -> Option<Self> {
        rolls.fold(None, |found: Option<Self>, roll| {
            let (until, last) = (roll.header.ranges.started_max, roll.header.last_sequence);
            let earlier = found.map_or(i64::MIN, |found| found.until.micros());
            Some(Self { until: Timestamp::from_micros(earlier.max(until)), last_sequence: last })
        })
    }
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system said no.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The journal is not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// They are not kept.
    #[error(transparent)]
    Pruned(#[from] Pruned),
    /// The bytes are right but not understood.
    #[error("cannot understand the journal from sequence {sequence} on")]
    Undecodable {
        /// The first sequence concerned.
        sequence: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
}

/// Walks frames over some segments.
#[derive(Debug)]
pub(crate) struct Frames {
    segments: VecDeque<Segment>,
    open: Option<(Segment, SegmentReader)>,
    check: Check,
}

impl Frames {
    pub(crate) fn new(segments: impl Iterator<Item = Segment>, check: Check) -> Self {
        Self { segments: segments.collect(), open: None, check }
    }

    /// The frames of one segment after a place that is known to lie between two of them.
    pub(crate) fn from_position(segment: Segment, at: Position, check: Check) -> Result<Self, ReadError> {
        let limit = Some(segment.data_end);
        let reader = SegmentReader::open_at(&segment.path, limit, check, at)
            .map_err(|source| ReadError::Io { path: segment.path.to_path_buf(), source })?;
        Ok(Self { segments: VecDeque::new(), open: Some((segment, reader)), check })
    }

    /// The next frame's head; its payload goes into `payload`.
    pub(crate) fn next(&mut self, payload: &mut Vec<u8>) -> Option<Result<FrameHead, ReadError>> {
        loop {
            if self.open.is_none() {
                let segment = self.segments.pop_front()?;
                match open_segment(&segment, self.check) {
                    Ok(reader) => self.open = Some((segment, reader)),
                    Err(error) => return Some(Err(error)),
                }
            }
            let (segment, reader) = self.open.as_mut()?;
            let what = match reader.step() {
                Ok(Step::Frame(head)) => {
                    reader.swap_payload(payload);
                    return Some(Ok(head));
                }
                Ok(Step::End) if reader.next_sequence() > segment.last_sequence => {
                    self.open = None;
                    continue;
                }
                Ok(Step::End) => "the segment ends too early",
                Ok(Step::Bad(what)) => what,
                Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => "the segment ends too early",
                Err(source) => {
                    let path = segment.path.to_path_buf();
                    self.stop();
                    return Some(Err(ReadError::Io { path, source }));
                }
            };
            let damage = Damage {
                segment: segment.number,
                offset: reader.offset(),
                first_sequence: reader.next_sequence(),
                last_sequence: Some(segment.last_sequence),
                what: what.to_owned(),
            };
            self.stop();
            return Some(Err(damage.into()));
        }
    }

    /// The chain hash after the frame that `next` gave last.
    pub(crate) fn hash(&self) -> Option<super::Hash> {
        self.open.as_ref().map(|(_, reader)| *reader.hash())
    }

    fn stop(&mut self) {
        self.open = None;
        self.segments.clear();
    }
}

fn open_segment(segment: &Segment, check: Check) -> Result<SegmentReader, ReadError> {
    let damage = |what: &str| Damage {
        segment: segment.number,
        offset: 0,
        first_sequence: segment.first_sequence,
        last_sequence: Some(segment.last_sequence),
        what: what.to_owned(),
    };
    let reader = SegmentReader::open(&segment.path, Some(segment.data_end), check).map_err(|e| match e {
        SegmentError::Io(source) => ReadError::Io { path: segment.path.to_path_buf(), source },
        SegmentError::Header(HeaderError::Damaged) => {
            damage("the segment header's checksum does not match").into()
        }
        SegmentError::Header(HeaderError::Newer(_)) => {
            damage("the segment has another format version").into()
        }
    })?;
    if reader.next_sequence() != segment.first_sequence {
        return Err(damage("the segment begins with another sequence").into());
    }
    Ok(reader)
}

/// A glance at a record in its place.
pub(crate) struct Glimpse<'p> {
    pub(crate) glance: Glance<'p>,
    sequence: u64,
    /// What it would have cost at the prices that are told instead of those that were recorded.
    other_cost: Option<Cost>,
}

impl Glimpse<'_> {
    /// What it adds to totals.
    pub(crate) fn figures(&self, figures: &mut Figures) -> Result<(), ReadError> {
        self.glance.figures(figures).map_err(|error| self.undecodable(error))?;
        if let Some(cost) = &self.other_cost {
            figures.cost = Some(cost.clone());
        }
        Ok(())
    }

    /// What could not be made of it.
    pub(crate) fn undecodable(&self, source: DecodeError) -> ReadError {
        ReadError::Undecodable { sequence: self.sequence, source }
    }
}

/// The records of a ledger in sequence, within a range.
pub struct Records {
    ledger: LedgerId,
    range: RecordRange,
    /// Rolls that stand for records of the range.
    rolled: Vec<Rolled>,
    frames: Frames,
    frame: Option<FrameDecoder>,
    /// The first sequence of the frame.
    frame_sequence: u64,
    buffer: Vec<u8>,
    /// The last sequence that is given.
    last: u64,
    failed: bool,
    /// The prices that are told instead of those that were recorded.
    prices: Option<Arc<dyn Reprice>>,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records")
            .field("ledger", &self.ledger)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl Records {
    /// The records with what they would have cost at other prices.
    #[must_use]
    pub fn at_prices(self, prices: Arc<dyn Reprice>) -> Self {
        Self { prices: Some(prices), ..self }
    }

    /// The records with a sequence up to `sequence`.
    #[must_use]
    pub fn up_to(self, sequence: u64) -> Self {
        Self { last: self.last.min(sequence), ..self }
    }

    pub(crate) fn new(view: &View, range: RecordRange, check: Check) -> Self {
        let segments = view.segments().filter(|segment| range.touches(segment)).cloned();
        Self {
            ledger: view.ledger,
            range,
            rolled: view.rolled.iter().filter(|roll| range.touches_roll(roll)).cloned().collect(),
            frames: Frames::new(segments, check),
            frame: None,
            frame_sequence: 0,
            buffer: Vec::new(),
            last: u64::MAX,
            failed: false,
            prices: None,
        }
    }

    /// What of the range is not kept: then the first item is this error.
    #[must_use]
    pub fn pruned(&self) -> Option<Pruned> {
        Pruned::of(self.rolled.iter().filter(|roll| roll.header.first_sequence <= self.last))
    }

    /// Takes the rolls that stand for records of the range: who does so adds their totals up. They are
    /// never taken apart: none may reach beyond the last sequence.
    pub(crate) fn take_rolled(&mut self) -> Result<Vec<Rolled>, Pruned> {
        let wanted = |roll: &&Rolled| roll.header.first_sequence <= self.last;
        let is_cut = |roll: &Rolled| {
            let header = &roll.header;
            let is_cut =
                header.last_sequence > self.last || header.first_sequence <= self.range.after_sequence;
            // Nor has a total another price.
            is_cut || self.prices.is_some()
        };
        match Pruned::of(self.rolled.iter().filter(wanted).filter(|roll| is_cut(roll))) {
            Some(pruned) => Err(pruned),
            None => {
                let last = self.last;
                let rolled = std::mem::take(&mut self.rolled);
                Ok(rolled.into_iter().filter(|roll| roll.header.first_sequence <= last).collect())
            }
        }
    }

    fn priced(&self, mut record: UsageRecord, counted: bool) -> UsageRecord {
        if let Some(cost) = self.prices.as_ref().filter(|_| counted).and_then(|prices| prices.cost(&record)) {
            record.cost = Some(cost);
        }
        record
    }

    /// Calls `each` with a glance at every record, in sequence, and first of all of a new frame with `None`.
    /// Several times as fast as taking whole records.
    pub(crate) fn each_glance<E: From<ReadError>>(
        mut self,
        mut each: impl FnMut(&GlanceFrame<'_>, Option<&Glimpse<'_>>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(pruned) = self.pruned() {
            return Err(ReadError::from(pruned).into());
        }
        let mut payload = std::mem::take(&mut self.buffer);
        while let Some(head) = self.frames.next(&mut payload) {
            let head = head?;
            if head.first_sequence > self.last {
                break;
            }
            if head.last_sequence() <= self.range.after_sequence {
                continue;
            }
            let at = |source, passed: u64| ReadError::Undecodable {
                sequence: head.first_sequence.saturating_add(passed).saturating_sub(1),
                source,
            };
            let mut frame = GlanceFrame::new(&head, &payload).map_err(|error| at(error, 1))?;
            // Other prices ask for whole records.
            let mut whole = match &self.prices {
                Some(_) => Some(FrameDecoder::new(&head, payload.clone()).map_err(|error| at(error, 1))?),
                None => None,
            };
            each(&frame, None)?;
            while let Some(glance) = frame.next().map_err(|error| at(error, frame.passed()))? {
                let sequence = head.first_sequence.saturating_add(frame.passed()).saturating_sub(1);
                let wanted = sequence > self.range.after_sequence
                    && sequence <= self.last
                    && self.range.contains(glance.started_at);
                let decoded = whole.as_mut().and_then(FrameDecoder::next).transpose();
                let decoded = decoded.map_err(|error| at(error, frame.passed()))?;
                let other_cost = decoded.filter(|_| wanted).and_then(|decoded| self.other_cost(&decoded));
                if wanted {
                    each(&frame, Some(&Glimpse { glance, sequence, other_cost }))?;
                }
            }
        }
        Ok(())
    }

    fn other_cost(&self, Decoded { record, counted }: &Decoded) -> Option<Cost> {
        self.prices.as_ref().filter(|_| *counted)?.cost(record)
    }

    /// The next record, in or out of the range of times.
    fn advance(&mut self) -> Option<Result<(u64, Decoded), ReadError>> {
        loop {
            if let Some(frame) = &mut self.frame {
                if let Some(decoded) = frame.next() {
                    let sequence = self.frame_sequence.saturating_add(frame.passed()).saturating_sub(1);
                    return Some(
                        decoded
                            .map(|decoded| (sequence, decoded))
                            .map_err(|source| ReadError::Undecodable { sequence, source }),
                    );
                }
                self.buffer = self.frame.take().map(FrameDecoder::into_buffer).unwrap_or_default();
            }
            let head = match self.frames.next(&mut self.buffer)? {
                Ok(head) => head,
                Err(error) => return Some(Err(error)),
            };
            if head.last_sequence() <= self.range.after_sequence {
                continue;
            }
            self.frame_sequence = head.first_sequence;
            match FrameDecoder::new(&head, std::mem::take(&mut self.buffer)) {
                Ok(frame) => self.frame = Some(frame),
                Err(source) => {
                    return Some(Err(ReadError::Undecodable { sequence: head.first_sequence, source }));
                }
            }
        }
    }
}

impl Iterator for Records {
    type Item = Result<StoredRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(pruned) = self.pruned() {
            self.rolled.clear();
            self.failed = true;
            return Some(Err(pruned.into()));
        }
        while !self.failed {
            match self.advance()? {
                Ok((sequence, _)) if sequence > self.last => return None,
                Ok((sequence, Decoded { record, counted })) => {
                    let wanted =
                        sequence > self.range.after_sequence && self.range.contains(record.started_at);
                    if wanted {
                        let record = self.priced(record, counted);
                        return Some(Ok(StoredRecord { ledger: self.ledger, sequence, record, counted }));
                    }
                }
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// The segments whose range of ids covers one of `ids`.
fn segments_of<'v>(view: &'v View, ids: &HashSet<RequestId>) -> impl Iterator<Item = Segment> + 'v {
    let covers = |segment: &&Segment| {
        let ranges = &segment.ranges;
        ids.iter().any(|id| (ranges.id_min..=ranges.id_max).contains(&id.bits()))
    };
    view.segments().filter(covers).cloned().collect::<Vec<_>>().into_iter()
}

/// The records with these ids. Reads only the segments whose range of ids covers one, and decodes only
/// the frames that hold one.
pub(crate) fn find_records(
    view: &View,
    ids: &HashSet<RequestId>,
) -> Result<HashMap<RequestId, UsageRecord>, ReadError> {
    let mut found = HashMap::new();
    let frames = Frames::new(segments_of(view, ids), Check::Checksums);
    each_record_among(
        frames,
        |id| ids.contains(&id),
        |record| {
            found.insert(record.id, record);
        },
    )?;
    Ok(found)
}

/// Calls `each` with the records of `view` whose ids lie in `ids` and are `wanted`, in sequence. Memory is
/// bounded by one frame.
pub(crate) fn each_wanted_record(
    view: &View,
    ids: std::ops::RangeInclusive<RequestId>,
    wanted: impl Fn(RequestId) -> bool,
    each: impl FnMut(UsageRecord),
) -> Result<(), ReadError> {
    let (least, greatest) = (ids.start().bits(), ids.end().bits());
    let covers = |segment: &&Segment| segment.ranges.id_min <= greatest && least <= segment.ranges.id_max;
    let frames = Frames::new(view.segments().filter(covers).cloned(), Check::Checksums);
    each_record_among(frames, wanted, each)
}

fn each_record_among(
    mut frames: Frames,
    wanted: impl Fn(RequestId) -> bool,
    mut each: impl FnMut(UsageRecord),
) -> Result<(), ReadError> {
    let mut payload = Vec::new();
    while let Some(head) = frames.next(&mut payload) {
        let head = head?;
        let undecodable = |source| ReadError::Undecodable { sequence: head.first_sequence, source };
        let mut has_one = false;
        codec::for_each_id(&head, &payload, |listed| has_one |= listed.is_usage() && wanted(listed.id))
            .map_err(undecodable)?;
        if !has_one {
            continue;
        }
        let mut frame = FrameDecoder::new(&head, std::mem::take(&mut payload)).map_err(undecodable)?;
        while let Some(decoded) = frame.next() {
            let record = decoded.map_err(undecodable)?.record;
            if wanted(record.id) {
                each(record);
            }
        }
        payload = frame.into_buffer();
    }
    Ok(())
}

/// Which of `ids` are in the journal. Reads only the segments whose range of ids covers one.
pub(crate) fn find_ids(view: &View, ids: &HashSet<RequestId>) -> Result<HashSet<RequestId>, ReadError> {
    let mut found = HashSet::new();
    each_id(Frames::new(segments_of(view, ids), Check::Checksums), |id| {
        if ids.contains(&id) {
            found.insert(id);
        }
    })?;
    Ok(found)
}

/// Calls `each` with every record of any kind, in sequence.
pub(crate) fn each_fact<E: From<ReadError>>(
    mut frames: Frames,
    mut each: impl FnMut(u64, Fact) -> Result<(), E>,
) -> Result<(), E> {
    let mut payload = Vec::new();
    while let Some(head) = frames.next(&mut payload) {
        let head = head?;
        if codec::has_facts(&head) {
            each(head.first_sequence, Fact::Finance { count: u64::from(head.count) })?;
            continue;
        }
        let undecodable = |source| ReadError::Undecodable { sequence: head.first_sequence, source };
        let mut decoder = FrameDecoder::new(&head, std::mem::take(&mut payload)).map_err(undecodable)?;
        while let Some(fact) = decoder.next_fact() {
            let fact = fact.map_err(undecodable)?;
            each(head.first_sequence.saturating_add(decoder.passed()).saturating_sub(1), fact)?;
        }
        payload = decoder.into_buffer();
    }
    Ok(())
}

/// The exchanges whose reservation is there and whose record is not. Reads the whole journal.
pub(crate) fn open_exchanges(view: &View) -> Result<Vec<Opening>, ReadError> {
    let mut open: HashMap<RequestId, Opening> = open_after(&view.rolled)?;
    each_fact(Frames::new(view.segments().cloned(), Check::Checksums), |_, fact| -> Result<(), ReadError> {
        match fact {
            Fact::Reservation(opening) => drop(open.insert(opening.id, *opening)),
            Fact::Usage(decoded) => drop(open.remove(&decoded.record.id)),
            Fact::Finance { .. } => {}
        }
        Ok(())
    })?;
    Ok(open.into_values().collect())
}

/// A request that a crash interrupted, with what was held for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterruptedRequest {
    /// Its record.
    pub record: UsageRecord,
    /// Tokens that budgets held for it.
    pub held_tokens: Option<u64>,
    /// Money that budgets held for it.
    pub held_cost: Option<Money>,
}

/// The interrupted requests that began in `range` and for which something was held, in sequence. A
/// reservation begins when its record does, so both are in segments of the range.
pub(crate) fn interrupted(view: &View, range: RecordRange) -> Result<Vec<InterruptedRequest>, ReadError> {
    let (mut open, mut found) = (HashMap::new(), Vec::new());
    for roll in view.rolled.iter().filter(|roll| roll.header.interrupted > 0 && range.touches_roll(roll)) {
        found
            .extend(roll.read()?.interrupted.into_iter().filter(|one| range.contains(one.record.started_at)));
    }
    for Opening { id, held_tokens, held_cost, .. } in open_after(&view.rolled)?.into_values() {
        if held_tokens.is_some() || held_cost.is_some() {
            open.insert(id, (held_tokens, held_cost));
        }
    }
    let segments = view.segments().filter(|segment| range.touches(segment)).cloned();
    each_fact(Frames::new(segments, Check::Checksums), |_, fact| -> Result<(), ReadError> {
        match fact {
            Fact::Reservation(opening) => {
                let Opening { id, held_tokens, held_cost, .. } = *opening;
                if held_tokens.is_some() || held_cost.is_some() {
                    open.insert(id, (held_tokens, held_cost));
                }
            }
            Fact::Usage(decoded) => {
                let record = decoded.record;
                let held = open.remove(&record.id);
                if let Some((held_tokens, held_cost)) = held
                    && record.outcome == Outcome::Interrupted
                    && range.contains(record.started_at)
                {
                    found.push(InterruptedRequest { record, held_tokens, held_cost });
                }
            }
            Fact::Finance { .. } => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// Every finance fact of the ledger, in sequence.
pub(crate) fn all_facts(view: &View) -> Result<Vec<StoredFact>, ReadError> {
    let mut found = Vec::new();
    for roll in view.rolled.iter().filter(|roll| roll.header.facts > 0) {
        found.extend(roll.read()?.facts);
    }
    found.extend(read_facts(Frames::new(view.segments().cloned(), Check::Checksums))?);
    Ok(found)
}

/// Calls `each` with every mark that the frames hold, in sequence.
pub(crate) fn each_mark(mut frames: Frames, mut each: impl FnMut(Mark)) -> Result<(), ReadError> {
    let mut payload = Vec::new();
    while let Some(head) = frames.next(&mut payload) {
        let head = head?;
        if !codec::has_marks(&head) {
            continue;
        }
        let mut decoder = FrameDecoder::new(&head, std::mem::take(&mut payload))
            .map_err(|source| ReadError::Undecodable { sequence: head.first_sequence, source })?;
        decoder.take_marks().into_iter().for_each(&mut each);
        payload = decoder.into_buffer();
    }
    Ok(())
}

/// Every finance fact that the frames hold, in sequence.
fn read_facts(mut frames: Frames) -> Result<Vec<StoredFact>, ReadError> {
    let (mut found, mut payload) = (Vec::new(), Vec::new());
    while let Some(head) = frames.next(&mut payload) {
        let head = head?;
        let facts = codec::facts(&head, &payload);
        found.extend(
            facts.map_err(|source| ReadError::Undecodable { sequence: head.first_sequence, source })?,
        );
    }
    Ok(found)
}

/// Calls `each` with the id of every usage record that the frames hold, in sequence.
pub(crate) fn each_id(mut frames: Frames, mut each: impl FnMut(RequestId)) -> Result<(), ReadError> {
    let mut payload = Vec::new();
    while let Some(head) = frames.next(&mut payload) {
        let head = head?;
        codec::for_each_id(&head, &payload, |listed| {
            if listed.is_usage() {
                each(listed.id);
            }
        })
        .map_err(|source| ReadError::Undecodable { sequence: head.first_sequence, source })?;
    }
    Ok(())
}
