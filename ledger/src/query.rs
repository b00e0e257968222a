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

pub use grain::{GrainRow, Hourly};
pub(crate) use grain::{by_grain, by_grain_of_records, grains_of};

use crate::journal::View;
use crate::journal::read::{Pruned, ReadError, RecordRange, Records};
use crate::journal::roll::Rolled;
use crate::journal::segment::Check;
use crate::rollup::{Dimensions, HOUR_MICROS, Hour, Totals, decode_key};
use crate::writer::Shared;
use bursar_domain::{Outcome, Timestamp, UsageRecord, UsageSource};
use jiff::ToSpan;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
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

/// Answers from rollups if they can tell, else from records.
pub(crate) fn usage(shared: &Shared, query: &UsageQuery) -> Result<UsageReport, QueryError> {
    if let Some(report) = from_rollups(shared, query)? {
        return Ok(report);
    }
    from_records(&shared.view(), query)
}

/// Answers from records.
pub(crate) fn from_records(view: &View, query: &UsageQuery) -> Result<UsageReport, QueryError> {
    let range = RecordRange { from: query.from, to: query.to, after_sequence: 0 };
    of_records(Records::new(view, range, Check::Checksums), query, view.last_sequence())
}

/// Answers from the given records, which lie in the query's time.
pub(crate) fn of_records(
    mut records: Records,
    query: &UsageQuery,
    as_of_sequence: u64,
) -> Result<UsageReport, QueryError> {
    let mut rows = Rows::new(query);
    let keys = query.by.iter().chain(query.filter.iter().map(|filter| &filter.key));
    let times: Vec<&GroupKey> = keys.filter(|key| key.is_time()).collect();
    each_rolled(&mut records, query, &mut |hour, dimensions, _, totals| {
        let tells = times.iter().all(|key| rows.is_within_one_bucket(key, hour));
        if tells {
            rows.add(&Facts::Rollup(hour, dimensions), |sum| sum.merge(totals));
        }
        Ok(tells)
    })?;
    for stored in records {
        let stored = stored?;
        let facts = Facts::Record(&stored.record);
        rows.add(&facts, |totals| totals.add_record(&stored.record, stored.counted));
    }
    rows.finish(ReadFrom::Records, as_of_sequence)
}

/// Is given a rollup's hour, dimensions, key and totals, and says whether it could use them.
type EachRolled<'a> = &'a mut dyn FnMut(Hour, &Dimensions<'_>, &[u8], &Totals) -> Result<bool, QueryError>;

/// Calls `each` with the rollups, within the query's time, of records that are not kept. When they cannot
/// tell what is asked, the question is refused.
fn each_rolled(records: &mut Records, query: &UsageQuery, each: EachRolled<'_>) -> Result<(), QueryError> {
    let rolled = records.take_rolled().map_err(ReadError::from)?;
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
fn from_rollups(shared: &Shared, query: &UsageQuery) -> Result<Option<UsageReport>, QueryError> {
    let keys = query.by.iter().chain(query.filter.iter().map(|filter| &filter.key));
    if !keys.clone().all(GroupKey::is_in_rollups) || !edges_are_whole_hours(&shared.view(), query) {
        return Ok(None);
    }
    let times: Vec<&GroupKey> = keys.filter(|key| key.is_time()).collect();
    let mut rows = Rows::new(query);
    let mut tells = true;
    let from = query.from.map(Hour::of);
    let to = query.to.map(hour_at_or_after);
    let scanned = shared.scan_rollups(from, to, |key, totals| {
        let Some((hour, dimensions)) = decode_key(key) else {
            tells = false;
            return;
        };
        tells = tells && times.iter().all(|key| rows.is_within_one_bucket(key, hour));
        if tells {
            rows.add(&Facts::Rollup(hour, &dimensions), |sum| sum.merge(totals));
        }
    });
    match scanned {
        None => Ok(None),
        Some(Err(error)) => {
            shared.disable_store(&error);
            Ok(None)
        }
        // Records that came meanwhile may lie beyond an edge that none did before.
        Some(Ok(_)) if !tells || !edges_are_whole_hours(&shared.view(), query) => Ok(None),
        Some(Ok(sequence)) => rows.finish(ReadFrom::Rollups, sequence).map(Some),
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
    Record(&'a UsageRecord),
    Rollup(Hour, &'a Dimensions<'a>),
}

/// Rows in the making.
struct Rows<'a> {
    query: &'a UsageQuery,
    rows: BTreeMap<Vec<KeyValue>, Totals>,
    hours: BTreeMap<(Hour, u8), Option<KeyValue>>,
    too_many: bool,
}

impl<'a> Rows<'a> {
    fn new(query: &'a UsageQuery) -> Self {
        Self { query, rows: BTreeMap::new(), hours: BTreeMap::new(), too_many: false }
    }

    fn add(&mut self, facts: &Facts<'_>, add: impl FnOnce(&mut Totals)) {
        for filter in &self.query.filter {
            if self.value(&filter.key, facts).text() != filter.value.as_deref() {
                return;
            }
        }
        let key: Vec<KeyValue> = self.query.by.iter().map(|key| self.value(key, facts)).collect();
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&key) {
            self.too_many = true;
            return;
        }
        add(self.rows.entry(key).or_default());
    }

    fn finish(self, read_from: ReadFrom, as_of_sequence: u64) -> Result<UsageReport, QueryError> {
        if self.too_many {
            return Err(QueryError::TooManyRows);
        }
        let mut totals = Totals::default();
        let mut rows = Vec::with_capacity(self.rows.len());
        for (key, row) in self.rows {
            totals.merge(&row);
            rows.push(UsageRow { key, totals: row });
        }
        Ok(UsageReport { by: self.query.by.clone(), rows, totals, as_of_sequence, read_from })
    }

    fn value(&mut self, key: &GroupKey, facts: &Facts<'_>) -> KeyValue {
        if key.is_time() {
            return match facts {
                Facts::Record(record) => self.bucket_at(key, record.started_at),
                Facts::Rollup(hour, _) => self.bucket_at(key, hour.start()),
            };
        }
        match facts {
            Facts::Record(record) => text_of_record(key, record),
            Facts::Rollup(_, dimensions) => text_of_dimensions(key, dimensions),
        }
    }

    /// The hour, day or month that `at` is in.
    fn bucket_at(&mut self, key: &GroupKey, at: Timestamp) -> KeyValue {
        match self.bucket_of_hour(key, Hour::of(at)) {
            Some(bucket) => bucket,
            None => bucket(key, at, &self.query.zone),
        }
    }

    fn is_within_one_bucket(&mut self, key: &GroupKey, hour: Hour) -> bool {
        self.bucket_of_hour(key, hour).is_some()
    }

    /// The bucket of a whole hour of UTC; `None` when a bucket's edge lies within the hour.
    fn bucket_of_hour(&mut self, key: &GroupKey, hour: Hour) -> Option<KeyValue> {
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
        known.clone()
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
