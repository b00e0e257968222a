//! Usage by the day, and by the hour where somebody looks at hours, for the report that joins it with
//! positions: most positions count days, and an hourly row for everything is forty times the work.
//!
//! Invariants
//! - Every record is in exactly one row, and rows add up to what `usage` answers.
//! - The keys of a row are made once for each combination of dimensions, not once for each rollup.
//!
//! Not here: questions with filters or keys of time (`query`).

use super::{
    Facts, GroupKey, KeyValue, QueryError, ROWS_MAX, ReadFrom, RollupSource, Slots, UsageQuery, bucket,
    each_rolled, edges_are_whole_hours, hour_at_or_after, text_of_dimensions, value_of_glance,
};
use crate::codec::{DecodeError, Figures};
use crate::journal::View;
use crate::journal::read::{ReadError, RecordRange, Records};
use crate::journal::segment::Check;
use crate::rollup::{HOUR_MICROS, Hour, Totals, decode_key};
use bursar_domain::Timestamp;
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap};

/// Whether the usage of a row with these values is wanted by the hour.
pub type Hourly<'a> = dyn Fn(&[KeyValue]) -> bool + 'a;

/// Usage of one key within one day or hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrainRow {
    /// The first instant of its day or hour.
    pub start: Timestamp,
    /// The values of the question's keys.
    pub key: Vec<KeyValue>,
    /// What its records add up to.
    pub totals: Totals,
}

/// From rollups if they can tell, else from records; rows by key and time.
pub(crate) fn by_grain(
    source: &dyn RollupSource,
    query: &UsageQuery,
    hourly: &Hourly<'_>,
) -> Result<(Vec<GrainRow>, ReadFrom), QueryError> {
    if let Some(rows) = from_rollups(source, query, hourly)? {
        return Ok((rows, ReadFrom::Rollups));
    }
    Ok((by_grain_of_records(&source.view(), query, hourly)?, ReadFrom::Records))
}

/// From records.
pub(crate) fn by_grain_of_records(
    view: &View,
    query: &UsageQuery,
    hourly: &Hourly<'_>,
) -> Result<Vec<GrainRow>, QueryError> {
    let range = RecordRange { from: query.from, to: query.to, after_sequence: 0 };
    grains_of(Records::new(view, range, Check::Checksums), query, hourly)
}

/// Of the given records, which lie in the query's time.
pub(crate) fn grains_of(
    mut records: Records,
    query: &UsageQuery,
    hourly: &Hourly<'_>,
) -> Result<Vec<GrainRow>, QueryError> {
    let mut grains = Grains::new(query, hourly);
    let rolled = records.take_rolled().map_err(ReadError::from)?;
    each_rolled(&rolled, query, &mut |_, _, key, totals| match grains.add_rollup(key, totals) {
        Told::All => Ok(true),
        Told::NotAll => Ok(false),
        Told::TooMany => Err(QueryError::TooManyRows),
    })?;
    let (mut slots, mut figures) = (Slots::new(query.by.iter()), Figures::default());
    records.each_glance(|frame, glimpse| {
        let Some(glimpse) = glimpse else {
            slots.next_frame();
            return Ok(());
        };
        let glance = &glimpse.glance;
        let group = slots.find(frame, glance, None, || grains.group(&Facts::Glance(frame, glance)));
        let group = group.map_err(|error| glimpse.undecodable(error))?;
        if let Some(totals) = grains.at(group, glance.started_at)? {
            glimpse.figures(&mut figures)?;
            totals.add_glance(glance, &figures);
        }
        Ok::<_, QueryError>(())
    })?;
    Ok(grains.finish())
}

fn from_rollups(
    source: &dyn RollupSource,
    query: &UsageQuery,
    hourly: &Hourly<'_>,
) -> Result<Option<Vec<GrainRow>>, QueryError> {
    if !query.by.iter().all(GroupKey::is_in_rollups) || !edges_are_whole_hours(&source.view(), query) {
        return Ok(None);
    }
    let mut grains = Grains::new(query, hourly);
    let mut told = Told::All;
    let (from, to) = (query.from.map(Hour::of), query.to.map(hour_at_or_after));
    let scanned = source.scan_rollups(from, to, &mut |key, totals| {
        if let Told::All = told {
            told = grains.add_rollup(key, totals);
        }
    });
    match (scanned, told) {
        (Some(Err(error)), _) => {
            source.give_up(&error);
            Ok(None)
        }
        (_, Told::TooMany) => Err(QueryError::TooManyRows),
        (None, _) | (_, Told::NotAll) => Ok(None),
        // Records that came meanwhile may lie beyond an edge that none did before.
        (Some(Ok(_)), Told::All) if !edges_are_whole_hours(&source.view(), query) => Ok(None),
        (Some(Ok(_)), Told::All) => Ok(Some(grains.finish())),
    }
}

/// Whether rollups could tell so far.
#[derive(Clone, Copy)]
enum Told {
    All,
    /// The edge of a day or hour lies within a rollup.
    NotAll,
    TooMany,
}

/// The rows of one key.
struct Group {
    key: Vec<KeyValue>,
    hourly: bool,
    by_time: BTreeMap<Timestamp, Totals>,
}

struct Grains<'a> {
    query: &'a UsageQuery,
    hourly: &'a Hourly<'a>,
    /// Groups by their dimensions as a rollup's key writes them.
    places: HashMap<Box<[u8]>, usize, RandomState>,
    by_key: HashMap<Vec<KeyValue>, usize, RandomState>,
    groups: Vec<Group>,
    starts: HashMap<(Hour, bool), Option<Timestamp>, RandomState>,
    rows: usize,
}

impl<'a> Grains<'a> {
    fn new(query: &'a UsageQuery, hourly: &'a Hourly<'a>) -> Self {
        Self {
            query,
            hourly,
            places: HashMap::default(),
            by_key: HashMap::default(),
            groups: Vec::new(),
            starts: HashMap::default(),
            rows: 0,
        }
    }

    fn add_rollup(&mut self, key: &[u8], totals: &Totals) -> Told {
        let (Some(hour), Some(place)) = (Hour::from_key(key), key.get(4..)) else { return Told::NotAll };
        let known = self.places.get(place).copied();
        let found = known.or_else(|| {
            let (hour, dimensions) = decode_key(key)?;
            self.place(place, &Facts::Rollup(hour, &dimensions))
        });
        let Some(group) = found else { return Told::NotAll };
        let hourly = self.groups.get(group).is_some_and(|group| group.hourly);
        let Some(start) = self.start_of_hour(hour, hourly) else { return Told::NotAll };
        match self.totals(group, start) {
            Ok(Some(sum)) => sum.merge(totals),
            Ok(None) => {}
            Err(_) => return Told::TooMany,
        }
        Told::All
    }

    /// The totals of a group at a time; `None` beyond the calendar.
    fn at(&mut self, group: usize, at: Timestamp) -> Result<Option<&mut Totals>, QueryError> {
        let hourly = self.groups.get(group).is_some_and(|group| group.hourly);
        match self.start_of_hour(Hour::of(at), hourly).or_else(|| self.start(at, hourly)) {
            Some(start) => self.totals(group, start),
            None => Ok(None),
        }
    }

    /// The group of dimensions that were not met before.
    fn place(&mut self, place: &[u8], facts: &Facts<'_>) -> Option<usize> {
        let group = self.group(facts).ok()?;
        self.places.insert(place.into(), group);
        Some(group)
    }

    fn group(&mut self, facts: &Facts<'_>) -> Result<usize, DecodeError> {
        let mut key = Vec::with_capacity(self.query.by.len());
        for part in &self.query.by {
            key.push(match facts {
                Facts::Glance(frame, glance) => value_of_glance(part, frame, glance)?,
                Facts::Rollup(_, dimensions) => text_of_dimensions(part, dimensions),
            });
        }
        if let Some(group) = self.by_key.get(&key) {
            return Ok(*group);
        }
        let group = self.groups.len();
        self.by_key.insert(key.clone(), group);
        let hourly = (self.hourly)(&key);
        self.groups.push(Group { key, hourly, by_time: BTreeMap::new() });
        Ok(group)
    }

    fn totals(&mut self, group: usize, start: Timestamp) -> Result<Option<&mut Totals>, QueryError> {
        let Some(group) = self.groups.get_mut(group) else { return Ok(None) };
        if !group.by_time.contains_key(&start) {
            if self.rows >= ROWS_MAX {
                return Err(QueryError::TooManyRows);
            }
            self.rows = self.rows.saturating_add(1);
        }
        Ok(Some(group.by_time.entry(start).or_default()))
    }

    /// The first instant of the day or hour that a whole hour of UTC is in; `None` when its edge lies
    /// within the hour, or beyond the calendar.
    fn start_of_hour(&mut self, hour: Hour, hourly: bool) -> Option<Timestamp> {
        const HOURS_KEPT: usize = 65_536;
        if self.starts.len() >= HOURS_KEPT {
            self.starts.clear();
        }
        if let Some(known) = self.starts.get(&(hour, hourly)) {
            return *known;
        }
        let last = Timestamp::from_micros(hour.start().micros().saturating_add(HOUR_MICROS - 1));
        let first = self.start(hour.start(), hourly);
        let found = first.filter(|_| first == self.start(last, hourly));
        self.starts.insert((hour, hourly), found);
        found
    }

    fn start(&self, at: Timestamp, hourly: bool) -> Option<Timestamp> {
        let unit = if hourly { GroupKey::Hour } else { GroupKey::Day };
        match bucket(&unit, at, &self.query.zone) {
            KeyValue::Time { start, .. } => Some(start),
            KeyValue::Text(_) | KeyValue::Unallocated => None,
        }
    }

    fn finish(self) -> Vec<GrainRow> {
        let mut groups = self.groups;
        groups.sort_by(|a, b| a.key.cmp(&b.key));
        let rows = groups.into_iter().flat_map(|group| {
            let Group { key, by_time, .. } = group;
            by_time.into_iter().map(move |(start, totals)| GrainRow { start, key: key.clone(), totals })
        });
        rows.collect()
    }
}
