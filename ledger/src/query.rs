//! Typed questions: what was used and what did it cost, grouped and filtered.
//!
//! Invariants
//! - An answer is computed from rollups when they can tell, else from the journal's records; both give
//!   the same figures to the last digit.
//! - Rows are sorted by key; a record without a value for a key is `Unallocated`, never left out.
//! - Where only hourly totals are kept, they answer, or the question is refused: never a part of the sum.
//! - The rows add up to the totals.
//! - Hours, days and months are those of the query's zone, so a day of 23 or 25 hours has that many.
//!
//! Not here: keeping rollups (`writer`, `store`), rendering (`export`, the command line).

mod grain;
mod slots;

pub(crate) use slots::{Slots, value_of_glance};

#[cfg(test)]
pub(crate) use grain::by_grain_of_records;
pub use grain::{GrainRow, Hourly};
pub(crate) use grain::{by_grain, grains_of};

use crate::codec::{DecodeError, Figures, Glance, GlanceFrame};
use crate::journal::View;
use crate::journal::read::{Pruned, ReadError, RecordRange, Records};
use crate::journal::roll::Rolled;
use crate::journal::segment::Check;
use crate::rollup::{Dimensions, HOUR_MICROS, Hour, Totals, decode_key};
use crate::store::StoreError;
use bursar_domain::{Outcome, Timestamp, UsageRecord, UsageSource};
use foldhash::fast::RandomState;
use jiff::ToSpan;
use jiff::tz::TimeZone;
use std::collections::HashMap;
use std::fmt;

/// Most rows of one report.
pub const ROWS_MAX: usize = 1_000_000;

/// What rows can be grouped and filtered by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKey {
    /// The team.
    Team,
    /// The workload.
    Workload,
    /// The end customer.
    Customer,
    /// The session.
    Session,
    /// The value of a tag.
    Tag(String),
    /// The provider.
    Provider,
    /// The model that was asked for.
    ModelRequested,
    /// The model that answered, else the one that was asked for.
    Model,
    /// The route.
    Route,
    /// The API.
    Api,
    /// The service tier.
    Tier,
    /// The outcome.
    Outcome,
    /// Where the counts come from.
    Source,
    /// The hour in the query's zone in which the request began.
    Hour,
    /// The day.
    Day,
    /// The month.
    Month,
}

impl GroupKey {
    /// Every key but tags.
    pub const ALL: &'static [Self] = &[
        Self::Team,
        Self::Workload,
        Self::Customer,
        Self::Session,
        Self::Provider,
        Self::ModelRequested,
        Self::Model,
        Self::Route,
        Self::Api,
        Self::Tier,
        Self::Outcome,
        Self::Source,
        Self::Hour,
        Self::Day,
        Self::Month,
    ];

    /// The key with this name; `tag:x` is the tag `x`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if let Some(tag) = name.strip_prefix("tag:") {
            return (!tag.is_empty()).then(|| Self::Tag(tag.to_owned()));
        }
        Self::ALL.iter().find(|key| key.to_string() == name).cloned()
    }

    fn is_in_rollups(&self) -> bool {
        !matches!(self, Self::Customer | Self::Session | Self::Tag(_) | Self::ModelRequested)
    }

    pub(crate) fn is_time(&self) -> bool {
        matches!(self, Self::Hour | Self::Day | Self::Month)
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Team => "team",
            Self::Workload => "workload",
            Self::Customer => "customer",
            Self::Session => "session",
            Self::Tag(name) => return write!(f, "tag:{name}"),
            Self::Provider => "provider",
            Self::ModelRequested => "model_requested",
            Self::Model => "model",
            Self::Route => "route",
            Self::Api => "api",
            Self::Tier => "tier",
            Self::Outcome => "outcome",
            Self::Source => "source",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        })
    }
}

/// The value of one key of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    /// An hour, day or month.
    Time {
        /// Its first instant.
        start: Timestamp,
        /// `2026-01-31T14:00+01:00`, `2026-01-31` or `2026-01`.
        label: String,
    },
    /// A name.
    Text(String),
    /// The records do not say.
    Unallocated,
}

impl KeyValue {
    /// The text, unless it is unallocated.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Time { label, .. } => Some(label),
            Self::Text(text) => Some(text),
            Self::Unallocated => None,
        }
    }

    fn of(text: Option<&str>) -> Self {
        text.map_or(Self::Unallocated, |text| Self::Text(text.to_owned()))
    }
}

/// Keeps records whose key has this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The key.
    pub key: GroupKey,
    /// Its value; `None` keeps what is unallocated.
    pub value: Option<String>,
}

/// A question about usage.
#[derive(Clone, Debug)]
pub struct UsageQuery {
    /// Requests that began at or after this.
    pub from: Option<Timestamp>,
    /// Requests that began before this.
    pub to: Option<Timestamp>,
    /// Whose hours, days and months.
    pub zone: TimeZone,
    /// One row for each combination of these. None: one row.
    pub by: Vec<GroupKey>,
    /// All of these must hold.
    pub filter: Vec<Filter>,
}

impl UsageQuery {
    /// The records of its time.
    #[must_use]
    pub const fn range(&self) -> RecordRange {
        RecordRange { from: self.from, to: self.to, after_sequence: 0 }
    }

    /// The same question with other keys.
    #[must_use]
    pub fn by(&self, by: Vec<GroupKey>) -> Self {
        Self { by, ..self.clone() }
    }
}

impl Default for UsageQuery {
    fn default() -> Self {
        Self { from: None, to: None, zone: TimeZone::UTC, by: Vec::new(), filter: Vec::new() }
    }
}

/// One row of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The values of `by`, in its order.
    pub key: Vec<KeyValue>,
    /// What the row's records add up to.
    pub totals: Totals,
}

/// Where an answer's figures were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Hourly rollups.
    Rollups,
    /// The journal's records.
    Records,
}

/// An answer about usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageReport {
    /// The question's keys.
    pub by: Vec<GroupKey>,
    /// Rows, sorted by key. None when no record matched.
    pub rows: Vec<UsageRow>,
    /// All rows together.
    pub totals: Totals,
    /// The last record that is in the figures (or was looked at).
    pub as_of_sequence: u64,
    /// Where the figures were read.
    pub read_from: ReadFrom,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The journal could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Too many rows.
    #[error("the report would have more than {ROWS_MAX} rows: group by fewer keys or narrow the time")]
    TooManyRows,
}

/// Where hourly rollups are kept.
pub(crate) trait RollupSource {
    /// The journal that they are made of.
    fn view(&self) -> View;

    /// Calls `each` with the rollups of the hours in `[from, to)`. Answers the last sequence that they include;
    /// `None` when there are no rollups.
    fn scan_rollups(
        &self,
        from: Option<Hour>,
        to: Option<Hour>,
        each: &mut dyn FnMut(&[u8], &Totals),
    ) -> Option<Result<u64, StoreError>>;

    /// They could not be read: the journal answers.
    fn give_up(&self, error: &StoreError);
}

/// Answers from rollups if they can tell, else from records.
pub(crate) fn usage(source: &dyn RollupSource, query: &UsageQuery) -> Result<UsageReport, QueryError> {
    if let Some(report) = from_rollups(source, query)? {
        return Ok(report);
    }
    from_records(&source.view(), query)
}

/// Answers from records.
pub(crate) fn from_records(view: &View, query: &UsageQuery) -> Result<UsageReport, QueryError> {
    of_records(Records::new(view, query.range(), Check::Checksums), query, view.last_sequence())
}

/// Answers from the given records, which lie in the query's time.
pub(crate) fn of_records(
    records: Records,
    query: &UsageQuery,
    as_of_sequence: u64,
) -> Result<UsageReport, QueryError> {
    let [found] = groupings_of_records(records, query, [query.by.clone()], as_of_sequence)?;
    Ok(found)
}

/// Answers the same question with other keys each time from the given records, which are read once.
pub(crate) fn groupings_of_records<const N: usize>(
    mut records: Records,
    query: &UsageQuery,
    groupings: [Vec<GroupKey>; N],
    as_of_sequence: u64,
) -> Result<[UsageReport; N], QueryError> {
    let rolled = records.take_rolled().map_err(ReadError::from)?;
    let queries = groupings.map(|by| query.by(by));
    let mut all = queries.each_ref().map(Rows::new);
    for rows in &mut all {
        let query = rows.query;
        each_rolled(&rolled, query, &mut |hour, dimensions, _, totals| {
            let tells = rows.tells(hour);
            if tells {
                rows.add(&Facts::Rollup(hour, dimensions), |sum| sum.merge(totals));
            }
            Ok(tells)
        })?;
    }
    let mut figures = Figures::default();
    records.each_glance(|frame, glimpse| {
        let Some(glimpse) = glimpse else {
            all.iter_mut().for_each(|rows| rows.slots.next_frame());
            return Ok(());
        };
        glimpse.figures(&mut figures)?;
        for rows in &mut all {
            let found = rows.of_glance(frame, &glimpse.glance);
            if let Some(totals) = found.map_err(|error| glimpse.undecodable(error))? {
                totals.add_glance(&glimpse.glance, &figures);
            } else if rows.too_many {
                return Err(QueryError::TooManyRows);
            }
        }
        Ok::<_, QueryError>(())
    })?;
    if all.iter().any(|rows| rows.too_many) {
        return Err(QueryError::TooManyRows);
    }
    Ok(all.map(|rows| rows.finish(ReadFrom::Records, as_of_sequence)))
}

/// Is given a rollup's hour, dimensions, key and totals, and says whether it could use them.
type EachRolled<'a> = &'a mut dyn FnMut(Hour, &Dimensions<'_>, &[u8], &Totals) -> Result<bool, QueryError>;

/// Calls `each` with the rollups, within the query's time, of records that are not kept. When they cannot
/// tell what is asked, the question is refused.
fn each_rolled(rolled: &[Rolled], query: &UsageQuery, each: EachRolled<'_>) -> Result<(), QueryError> {
    let Some(pruned) = Pruned::of(rolled.iter()) else { return Ok(()) };
    let keys = query.by.iter().chain(query.filter.iter().map(|filter| &filter.key));
    if !keys.clone().all(GroupKey::is_in_rollups) || !rolled.iter().all(|roll| is_whole(roll, query)) {
        return Err(ReadError::from(pruned).into());
    }
    let (from, to) = (query.from.map(Hour::of), query.to.map(hour_at_or_after));
    for roll in rolled {
        for (key, totals) in roll.read()?.rollups {
            let Some((hour, dimensions)) = decode_key(&key) else {
                return Err(ReadError::from(roll.damage("a rollup of it cannot be read")).into());
            };
            if from.is_some_and(|from| hour < from) || to.is_some_and(|to| hour >= to) {
                continue;
            }
            if !each(hour, &dimensions, &key, &totals)? {
                return Err(ReadError::from(pruned).into());
            }
        }
    }
    Ok(())
}

/// Whether the edges of the query's range are whole hours, or beyond all records of the roll.
fn is_whole(roll: &Rolled, query: &UsageQuery) -> bool {
    let ranges = &roll.header.ranges;
    edges_are_whole(query, ranges.started_min, ranges.started_max)
}

/// Answers from rollups; `None` when they cannot tell.
pub(crate) fn from_rollups(
    source: &dyn RollupSource,
    query: &UsageQuery,
) -> Result<Option<UsageReport>, QueryError> {
    let mut keys = query.by.iter().chain(query.filter.iter().map(|filter| &filter.key));
    if !keys.all(GroupKey::is_in_rollups) || !edges_are_whole_hours(&source.view(), query) {
        return Ok(None);
    }
    let mut rows = Rows::new(query);
    let mut tells = true;
    let from = query.from.map(Hour::of);
    let to = query.to.map(hour_at_or_after);
    let scanned = source.scan_rollups(from, to, &mut |key, totals| {
        let Some((hour, dimensions)) = decode_key(key) else {
            tells = false;
            return;
        };
        tells = tells && rows.tells(hour);
        if tells {
            rows.add(&Facts::Rollup(hour, &dimensions), |sum| sum.merge(totals));
        }
    });
    match scanned {
        None => Ok(None),
        Some(Err(error)) => {
            source.give_up(&error);
            Ok(None)
        }
        // Records that came meanwhile may lie beyond an edge that none did before.
        Some(Ok(_)) if !tells || !edges_are_whole_hours(&source.view(), query) => Ok(None),
        Some(Ok(_)) if rows.too_many => Err(QueryError::TooManyRows),
        Some(Ok(sequence)) => Ok(Some(rows.finish(ReadFrom::Rollups, sequence))),
    }
}

/// Whether no rollup is cut by the query's range: its edges are whole hours, or no record is beyond.
fn edges_are_whole_hours(view: &View, query: &UsageQuery) -> bool {
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    let rolled = view.rolled.iter().map(|roll| &roll.header.ranges);
    for ranges in view.segments().map(|segment| &segment.ranges).chain(rolled) {
        first = first.min(ranges.started_min);
        last = last.max(ranges.started_max);
    }
    edges_are_whole(query, first, last)
}

fn edges_are_whole(query: &UsageQuery, first: i64, last: i64) -> bool {
    let whole = |at: Timestamp| at.micros().rem_euclid(HOUR_MICROS) == 0;
    query.from.is_none_or(|from| whole(from) || from.micros() <= first)
        && query.to.is_none_or(|to| whole(to) || to.micros() > last)
}

fn hour_at_or_after(at: Timestamp) -> Hour {
    Hour::of(Timestamp::from_micros(at.micros().saturating_add(HOUR_MICROS.saturating_sub(1))))
}

/// What a row's key is made from.
enum Facts<'a> {
    Glance(&'a GlanceFrame<'a>, &'a Glance<'a>),
    Rollup(Hour, &'a Dimensions<'a>),
}

/// Rows in the making.
struct Rows<'a> {
    query: &'a UsageQuery,
    /// Keys that are times.
    times: Vec<&'a GroupKey>,
    /// Where the totals of a key are.
    places: HashMap<Vec<KeyValue>, usize, RandomState>,
    totals: Vec<Totals>,
    /// Where those of a record are; `None` of records that are not asked for.
    slots: Slots<Option<usize>>,
    hours: HashMap<(Hour, u8), Option<KeyValue>, RandomState>,
    too_many: bool,
}

impl<'a> Rows<'a> {
    fn new(query: &'a UsageQuery) -> Self {
        let keys = || query.by.iter().chain(query.filter.iter().map(|filter| &filter.key));
        Self {
            query,
            times: keys().filter(|key| key.is_time()).collect(),
            places: HashMap::default(),
            totals: Vec::new(),
            slots: Slots::new(keys()),
            hours: HashMap::default(),
            too_many: false,
        }
    }

    /// Whether a rollup of this hour can tell: none of the times has an edge within it.
    fn tells(&mut self, hour: Hour) -> bool {
        (0..self.times.len()).all(|at| {
            let key = self.times.get(at).copied();
            key.is_none_or(|key| self.bucket_of_hour(key, hour).is_some())
        })
    }

    fn add(&mut self, facts: &Facts<'_>, add: impl FnOnce(&mut Totals)) {
        // The dimensions of a rollup can always be read.
        let Ok(Some(place)) = self.place(facts) else { return };
        if let Some(totals) = self.totals.get_mut(place) {
            add(totals);
        }
    }

    /// The totals that a record belongs to, if it is asked for.
    fn of_glance(
        &mut self,
        frame: &GlanceFrame<'_>,
        glance: &Glance<'_>,
    ) -> Result<Option<&mut Totals>, DecodeError> {
        let facts = Facts::Glance(frame, glance);
        let hour = Hour::of(glance.started_at);
        let place = if self.times.is_empty() {
            self.known_place(&facts, frame, glance, None)?
        } else if self.tells(hour) {
            self.known_place(&facts, frame, glance, Some(hour))?
        } else {
            self.place(&facts)?
        };
        Ok(place.and_then(|place| self.totals.get_mut(place)))
    }

    fn known_place(
        &mut self,
        facts: &Facts<'_>,
        frame: &GlanceFrame<'_>,
        glance: &Glance<'_>,
        hour: Option<Hour>,
    ) -> Result<Option<usize>, DecodeError> {
        let mut slots = std::mem::take(&mut self.slots);
        let found = slots.find(frame, glance, hour.map(Hour::number), || self.place(facts));
        self.slots = slots;
        found
    }

    /// Where the totals of a record or rollup are; `None` if it is not asked for.
    fn place(&mut self, facts: &Facts<'_>) -> Result<Option<usize>, DecodeError> {
        for filter in &self.query.filter {
            if self.value(&filter.key, facts)?.text() != filter.value.as_deref() {
                return Ok(None);
            }
        }
        let mut key = Vec::with_capacity(self.query.by.len());
        for part in &self.query.by {
            key.push(self.value(part, facts)?);
        }
        if let Some(place) = self.places.get(&key) {
            return Ok(Some(*place));
        }
        if self.totals.len() >= ROWS_MAX {
            self.too_many = true;
            return Ok(None);
        }
        let place = self.totals.len();
        self.totals.push(Totals::default());
        self.places.insert(key, place);
        Ok(Some(place))
    }

    fn finish(self, read_from: ReadFrom, as_of_sequence: u64) -> UsageReport {
        let mut totals = Totals::default();
        let mut keys: Vec<(Vec<KeyValue>, usize)> = self.places.into_iter().collect();
        keys.sort_unstable();
        let mut sums = self.totals;
        let mut rows = Vec::with_capacity(keys.len());
        for (key, place) in keys {
            let row = sums.get_mut(place).map(std::mem::take).unwrap_or_default();
            totals.merge(&row);
            rows.push(UsageRow { key, totals: row });
        }
        UsageReport { by: self.query.by.clone(), rows, totals, as_of_sequence, read_from }
    }

    fn value(&mut self, key: &GroupKey, facts: &Facts<'_>) -> Result<KeyValue, DecodeError> {
        match facts {
            Facts::Glance(_, glance) if key.is_time() => Ok(self.bucket_at(key, glance.started_at)),
            Facts::Rollup(hour, _) if key.is_time() => Ok(self.bucket_at(key, hour.start())),
            Facts::Glance(frame, glance) => value_of_glance(key, frame, glance),
            Facts::Rollup(_, dimensions) => Ok(text_of_dimensions(key, dimensions)),
        }
    }

    /// The hour, day or month that `at` is in.
    fn bucket_at(&mut self, key: &GroupKey, at: Timestamp) -> KeyValue {
        match self.bucket_of_hour(key, Hour::of(at)) {
            Some(bucket) => bucket.clone(),
            None => bucket(key, at, &self.query.zone),
        }
    }

    /// The bucket of a whole hour of UTC; `None` when a bucket's edge lies within the hour.
    fn bucket_of_hour(&mut self, key: &GroupKey, hour: Hour) -> Option<&KeyValue> {
        const HOURS_KEPT: usize = 4_096;
        let unit = match key {
            GroupKey::Hour => 0,
            GroupKey::Day => 1,
            _ => 2,
        };
        if self.hours.len() >= HOURS_KEPT {
            self.hours.clear();
        }
        let zone = &self.query.zone;
        let known = self.hours.entry((hour, unit)).or_insert_with(|| {
            let last = Timestamp::from_micros(hour.start().micros().saturating_add(HOUR_MICROS - 1));
            let first = bucket(key, hour.start(), zone);
            (first == bucket(key, last, zone)).then_some(first)
        });
        known.as_ref()
    }
}

/// The value of a key of one record.
pub(crate) fn key_of_record(key: &GroupKey, record: &UsageRecord, zone: &TimeZone) -> KeyValue {
    if key.is_time() { bucket(key, record.started_at, zone) } else { text_of_record(key, record) }
}

fn text_of_record(key: &GroupKey, record: &UsageRecord) -> KeyValue {
    let identity = &record.identity;
    let label = match key {
        GroupKey::Customer => identity.customer.as_ref(),
        GroupKey::Session => identity.session.as_ref(),
        GroupKey::Tag(name) => identity.tags.get(name),
        GroupKey::ModelRequested => record.model_requested.as_ref(),
        _ => return text_of_dimensions(key, &Dimensions::of(record)),
    };
    KeyValue::of(label.map(AsRef::as_ref))
}

fn text_of_dimensions(key: &GroupKey, dimensions: &Dimensions<'_>) -> KeyValue {
    KeyValue::of(match key {
        GroupKey::Team => dimensions.team,
        GroupKey::Workload => dimensions.workload,
        GroupKey::Provider => Some(dimensions.provider),
        GroupKey::Model => dimensions.model,
        GroupKey::Route => Some(dimensions.route),
        GroupKey::Api => Some(dimensions.api),
        GroupKey::Tier => dimensions.tier,
        GroupKey::Outcome => Outcome::from_number(dimensions.outcome).map(Outcome::name),
        GroupKey::Source => UsageSource::from_number(dimensions.source).map(UsageSource::name),
        // Not in rollups, or times: both are answered elsewhere.
        GroupKey::Customer
        | GroupKey::Session
        | GroupKey::Tag(_)
        | GroupKey::ModelRequested
        | GroupKey::Hour
        | GroupKey::Day
        | GroupKey::Month => None,
    })
}

/// The hour, day or month of `zone` that `at` is in. Times beyond the calendar are unallocated.
pub(crate) fn bucket(key: &GroupKey, at: Timestamp, zone: &TimeZone) -> KeyValue {
    calendar_bucket(key, at, zone).unwrap_or(KeyValue::Unallocated)
}

fn calendar_bucket(key: &GroupKey, at: Timestamp, zone: &TimeZone) -> Option<KeyValue> {
    let zoned = jiff::Timestamp::from_microsecond(at.micros()).ok()?.to_zoned(zone.clone());
    let (start, label) = match key {
        GroupKey::Hour => {
            // Back to the hour by the clock on the wall, as an instant: an hour that comes twice in
            // autumn is two hours, told apart by their offsets.
            let into = i64::from(zoned.minute()) * 60_000_000
                + i64::from(zoned.second()) * 1_000_000
                + i64::from(zoned.subsec_nanosecond()) / 1_000;
            let start = zoned.checked_sub(into.microseconds()).ok()?;
            let label = start.strftime("%Y-%m-%dT%H:%M%:z").to_string();
            (start, label)
        }
        GroupKey::Day => (zoned.start_of_day().ok()?, zoned.strftime("%Y-%m-%d").to_string()),
        _ => {
            let first = zoned.first_of_month().ok()?.start_of_day().ok()?;
            (first, zoned.strftime("%Y-%m").to_string())
        }
    };
    Some(KeyValue::Time { start: Timestamp::from_micros(start.timestamp().as_microsecond()), label })
}

#[cfg(test)]
mod tests;
