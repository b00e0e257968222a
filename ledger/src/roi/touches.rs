//! Which usage touched what became revenue: the keys of events looked up in the records, one pass over
//! the journal for each place of a key in the order of keys.
//!
//! Invariants
//! - A record is looked at and let go; what is kept of it is a few numbers, and their count is bounded.
//! - An event's keys are tried in order; the first that finds a touch in the window decides.
//! - Refused requests touch nothing; what does not count touches only the event that names it.
//!
//! Not here: which touches count (`policies::attribution::Contacts`), credit (`credit`).

use super::RoiError;
use crate::RecordRange;
use crate::codec::{DecodeError, Figures, Glance, GlanceFrame};
use crate::hedge::HedgeSource;
use crate::journal::read::{Glimpse, ReadError};
use crate::query::{GroupKey, KeyValue, ROWS_MAX, Slots, value_of_glance};
use bursar_domain::{Label, Outcome, Timestamp};
use bursar_policies::attribution::{Contact, Contacts, Key, Level, MatchKeys, Window};
use foldhash::{HashMap, HashMapExt as _};
use std::sync::Arc;

/// Most touches that are kept for one report: 40 bytes each.
pub(super) const CONTACTS_MAX: usize = 8_000_000;
/// Most sessions that ended without revenue and are looked at for removal effects.
const SESSIONS_MAX: usize = 2_000_000;

/// What identifies a workload: its name, then its team's; either may be empty.
type Player = (String, String);

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Names of workloads, rows and sessions, by number.
#[derive(Debug)]
pub(super) struct Names {
    by: Vec<GroupKey>,
    players: Vec<Player>,
    leaves: Vec<Vec<KeyValue>>,
    sessions: u32,
    player_of: Slots<u32>,
    leaf_of: Slots<u32>,
    session_of: Slots<u32>,
}

impl Names {
    fn new(by: &[GroupKey]) -> Self {
        Self {
            by: by.to_vec(),
            players: Vec::new(),
            leaves: Vec::new(),
            sessions: 0,
            player_of: Slots::new([GroupKey::Workload, GroupKey::Team].iter()).keeping_all(),
            leaf_of: Slots::new(by.iter()).keeping_all(),
            session_of: Slots::new([GroupKey::Session].iter()).keeping_all(),
        }
    }

    fn next_frame(&mut self) {
        self.player_of.next_frame();
        self.leaf_of.next_frame();
        self.session_of.next_frame();
    }

    fn player(&mut self, frame: &GlanceFrame<'_>, glance: &Glance<'_>) -> Result<u32, DecodeError> {
        let players = &mut self.players;
        self.player_of.find(frame, glance, None, || {
            let who = frame.identity(glance.identity)?;
            let text = |number: u32| frame.text(number).map(|text| text.unwrap_or_default().to_owned());
            players.push((text(who.workload)?, text(who.team)?));
            Ok(number(players.len().saturating_sub(1)))
        })
    }

    fn leaf(&mut self, frame: &GlanceFrame<'_>, glance: &Glance<'_>) -> Result<u32, DecodeError> {
        let (leaves, by) = (&mut self.leaves, &self.by);
        self.leaf_of.find(frame, glance, None, || {
            let mut leaf = Vec::with_capacity(by.len());
            for key in by {
                // Times are those of the event, not of the touch.
                leaf.push(match key.is_time() {
                    true => KeyValue::Unallocated,
                    false => value_of_glance(key, frame, glance)?,
                });
            }
            leaves.push(leaf);
            Ok(number(leaves.len().saturating_sub(1)))
        })
    }

    fn contact(&mut self, frame: &GlanceFrame<'_>, glance: &Glance<'_>) -> Result<Contact, DecodeError> {
        let (player, leaf) = (self.player(frame, glance)?, self.leaf(frame, glance)?);
        Ok(Contact::new(glance.started_at, glance.id, player, leaf, self.session(frame, glance)?))
    }

    /// 0 is none.
    fn session(&mut self, frame: &GlanceFrame<'_>, glance: &Glance<'_>) -> Result<u32, DecodeError> {
        let sessions = &mut self.sessions;
        self.session_of.find(frame, glance, None, || {
            if frame.identity(glance.identity)?.session == 0 {
                return Ok(0);
            }
            *sessions = sessions.saturating_add(1);
            Ok(*sessions)
        })
    }

    /// New numbers, in the order of names: of workloads by old number, and the keys of rows by new one.
    fn ranks(self) -> (Vec<u32>, Vec<u32>, Vec<Vec<KeyValue>>) {
        fn ranked<T: Ord>(all: Vec<T>) -> (Vec<u32>, Vec<T>) {
            let mut sorted: Vec<(T, usize)> = all.into_iter().zip(0..).collect();
            sorted.sort_unstable();
            let mut ranks = vec![0; sorted.len()];
            for (rank, (_, old)) in sorted.iter().enumerate() {
                if let Some(place) = ranks.get_mut(*old) {
                    *place = number(rank);
                }
            }
            (ranks, sorted.into_iter().map(|(name, _)| name).collect())
        }
        let (players, _) = ranked(self.players);
        let (leaves, keys) = ranked(self.leaves);
        (players, leaves, keys)
    }
}

/// Keys that events ask for, each with the touches found.
#[derive(Debug, Default)]
struct Wanted {
    requests: HashMap<u128, u32>,
    traces: HashMap<u128, u32>,
    sessions: HashMap<Arc<str>, u32>,
    customers: HashMap<Arc<str>, HashMap<Arc<str>, u32>>,
    workloads: HashMap<Arc<str>, u32>,
    tags: HashMap<Arc<str>, HashMap<Arc<str>, u32>>,
    lists: Vec<Vec<Contact>>,
}

impl Wanted {
    fn want(&mut self, key: Key<'_>) -> u32 {
        let next = number(self.lists.len());
        let pair = |map: &mut HashMap<Arc<str>, HashMap<Arc<str>, u32>>, a: &Label, b: &Label| {
            *map.entry(a.shared().clone()).or_default().entry(b.shared().clone()).or_insert(next)
        };
        let found = match key {
            Key::Request(id) => *self.requests.entry(id.bits()).or_insert(next),
            Key::Trace(id) => *self.traces.entry(id.bits()).or_insert(next),
            Key::Session(session) => *self.sessions.entry(session.shared().clone()).or_insert(next),
            Key::CustomerWorkload(customer, workload) => pair(&mut self.customers, customer, workload),
            Key::Workload(workload) => *self.workloads.entry(workload.shared().clone()).or_insert(next),
            Key::Tag(name, value) => pair(&mut self.tags, name, value),
        };
        if found == next {
            self.lists.push(Vec::new());
        }
        found
    }

    /// The lists that a record is in.
    fn lists_of(
        &self,
        people: &mut People,
        frame: &GlanceFrame<'_>,
        glimpse: &Glimpse<'_>,
        found: &mut Vec<u32>,
    ) -> Result<(), ReadError> {
        let glance = &glimpse.glance;
        found.clear();
        if glance.outcome == Outcome::Refused {
            return Ok(());
        }
        if !self.requests.is_empty() {
            found.extend(self.requests.get(&glance.id));
        }
        if !glance.counted {
            return Ok(());
        }
        if !self.traces.is_empty() {
            glimpse.figures(&mut people.figures)?;
            found.extend(people.figures.trace_id.and_then(|id| self.traces.get(&id)));
        }
        let lists = people.lists_of(glance.identity, |lists| self.lists_of_identity(frame, glance, lists));
        found.extend_from_slice(lists.map_err(|error| glimpse.undecodable(error))?);
        Ok(())
    }

    fn lists_of_identity(
        &self,
        frame: &GlanceFrame<'_>,
        glance: &Glance<'_>,
        found: &mut Vec<u32>,
    ) -> Result<(), DecodeError> {
        let who = frame.identity(glance.identity)?;
        if let Some(session) = frame.text(who.session)? {
            found.extend(self.sessions.get(session));
        }
        if let Some(workload) = frame.text(who.workload)? {
            found.extend(self.workloads.get(workload));
            let customer = frame.text(who.customer)?.and_then(|name| self.customers.get(name));
            found.extend(customer.and_then(|workloads| workloads.get(workload)));
        }
        if !self.tags.is_empty() {
            for (name, value) in &who.tags {
                let values = frame.text(*name)?.and_then(|name| self.tags.get(name));
                let value = frame.text(*value)?;
                found.extend(values.zip(value).and_then(|(values, value)| values.get(value)));
            }
        }
        Ok(())
    }
}

/// The lists of the identities of one frame, looked up once.
#[derive(Debug, Default)]
struct People {
    /// By number: where its lists begin and end.
    known: Vec<Option<(usize, usize)>>,
    lists: Vec<u32>,
    /// Of the record that is looked at.
    figures: Figures,
}

impl People {
    fn next_frame(&mut self) {
        self.known.clear();
        self.lists.clear();
    }

    fn lists_of(
        &mut self,
        identity: u32,
        look_up: impl FnOnce(&mut Vec<u32>) -> Result<(), DecodeError>,
    ) -> Result<&[u32], DecodeError> {
        let at = usize::try_from(identity).unwrap_or(usize::MAX);
        let range = match self.known.get(at).copied().flatten() {
            Some(range) => range,
            None => {
                let begin = self.lists.len();
                // Refused where there is no such identity, so that the table stays as small as the frame's.
                look_up(&mut self.lists)?;
                if self.known.len() <= at {
                    self.known.resize(at.saturating_add(1), None);
                }
                let range = (begin, self.lists.len());
                if let Some(place) = self.known.get_mut(at) {
                    *place = Some(range);
                }
                range
            }
        };
        Ok(self.lists.get(range.0..range.1).unwrap_or_default())
    }
}

/// How one event was matched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    pub(super) level: Level,
    /// The list of touches; `None` when nothing was found.
    list: Option<usize>,
}

/// What is asked of touches.
#[derive(Clone, Debug)]
pub(super) struct Search<'a> {
    pub(super) by: &'a [GroupKey],
    pub(super) look_back_micros: u64,
}

/// Events with their touches.
#[derive(Debug)]
pub(super) struct Found {
    matches: Vec<Match>,
    lists: Vec<Contacts>,
    /// The keys of rows by number.
    pub(super) keys: Vec<Vec<KeyValue>>,
    /// New numbers of workloads by old one.
    players: Vec<u32>,
    /// Workloads of sessions that ended without revenue, with how often and in which order, by the time
    /// of their first touch.
    pub(super) idle: Vec<(Timestamp, Vec<u32>)>,
}

impl Found {
    pub(super) fn level(&self, event: usize) -> Level {
        self.matches.get(event).map_or(Level::Unattributed, |found| found.level)
    }

    /// The touches of an event, which happened at `at`.
    pub(super) fn window(&self, event: usize, at: Timestamp, look_back_micros: u64) -> Option<Window<'_>> {
        let list = self.matches.get(event).and_then(|found| found.list)?;
        Some(self.lists.get(list)?.window(at, look_back_micros))
    }

    /// How many workloads there are.
    pub(super) fn players(&self) -> usize {
        self.players.len()
    }
}

/// Looks up the touches of events, given by their times and keys.
pub(super) fn find(
    source: &dyn HedgeSource,
    events: &[(Timestamp, &MatchKeys)],
    search: &Search<'_>,
    idle: Option<RecordRange>,
) -> Result<Found, RoiError> {
    let mut names = Names::new(search.by);
    let mut lists: Vec<Contacts> = Vec::new();
    let mut kept = 0_usize;
    let nothing = Match { level: Level::Unattributed, list: None };
    let mut matches = vec![nothing; events.len()];
    let mut pending: Vec<usize> = (0..events.len()).collect();
    let mut step = 0_usize;
    while !pending.is_empty() {
        let mut wanted = Wanted::default();
        let mut asked = Vec::new();
        for event in pending.drain(..) {
            let key = events.get(event).and_then(|(_, keys)| keys.in_order().nth(step));
            if let Some((level, key)) = key {
                asked.push((event, level, wanted.want(key)));
            }
        }
        if asked.is_empty() {
            break;
        }
        let times = asked.iter().filter_map(|(event, _, _)| events.get(*event)).map(|(at, _)| *at);
        scan(source, &mut wanted, &mut names, times, search, &mut kept)?;
        let first = lists.len();
        lists.extend(wanted.lists.into_iter().map(Contacts::new));
        for (event, level, list) in asked {
            let list = first.saturating_add(usize::try_from(list).unwrap_or(usize::MAX));
            let at = events.get(event).map_or(Timestamp::from_micros(0), |(at, _)| *at);
            let any = lists.get(list).is_some_and(|all| !all.window(at, search.look_back_micros).is_empty());
            match (any, matches.get_mut(event)) {
                (true, Some(place)) => *place = Match { level, list: Some(list) },
                _ => pending.push(event),
            }
        }
        step = step.saturating_add(1);
    }
    let mut found = Found { matches, lists, keys: Vec::new(), players: Vec::new(), idle: Vec::new() };
    if let Some(range) = idle {
        found.idle = idle_sessions(source, range, &mut names, &sessions_of(&found, events, search))?;
    }
    let (players, leaves, keys) = names.ranks();
    for list in &mut found.lists {
        list.renumber(&players, &leaves);
    }
    for player in found.idle.iter_mut().flat_map(|(_, path)| path) {
        let rank = usize::try_from(*player).ok().and_then(|old| players.get(old));
        *player = rank.copied().unwrap_or(*player);
    }
    (found.keys, found.players) = (keys, players);
    Ok(found)
}

/// One pass over the records that lie in the window of any event.
fn scan(
    source: &dyn HedgeSource,
    wanted: &mut Wanted,
    names: &mut Names,
    times: impl Iterator<Item = Timestamp> + Clone,
    search: &Search<'_>,
    kept: &mut usize,
) -> Result<(), RoiError> {
    let (Some(first), Some(last)) = (times.clone().min(), times.max()) else { return Ok(()) };
    let back = i64::try_from(search.look_back_micros).unwrap_or(i64::MAX);
    let range = RecordRange {
        from: Some(Timestamp::from_micros(first.micros().saturating_sub(back))),
        to: Some(last.plus_micros(1)),
        after_sequence: 0,
    };
    let (mut places, mut people) = (Vec::new(), People::default());
    source.read_records(range).each_glance(|frame, glimpse| {
        let Some(glimpse) = glimpse else {
            names.next_frame();
            people.next_frame();
            return Ok(());
        };
        wanted.lists_of(&mut people, frame, glimpse, &mut places)?;
        if places.is_empty() {
            return Ok(());
        }
        let contact = names.contact(frame, &glimpse.glance);
        let contact = contact.map_err(|error| glimpse.undecodable(error))?;
        for place in &places {
            let list = usize::try_from(*place).ok().and_then(|place| wanted.lists.get_mut(place));
            if let Some(list) = list {
                list.push(contact);
                *kept = kept.saturating_add(1);
            }
        }
        match (*kept > CONTACTS_MAX, names.leaves.len() > ROWS_MAX) {
            (true, _) => Err(RoiError::TooManyTouches),
            (_, true) => Err(RoiError::TooManyRows),
            _ => Ok(()),
        }
    })
}

/// The sessions, by number, whose touches an event has.
fn sessions_of(found: &Found, events: &[(Timestamp, &MatchKeys)], search: &Search<'_>) -> Vec<u32> {
    let mut sessions = Vec::new();
    for (event, (at, _)) in events.iter().enumerate() {
        let window = found.window(event, *at, search.look_back_micros);
        sessions.extend(window.into_iter().flat_map(Window::kept).map(|contact| contact.session));
    }
    sessions.sort_unstable();
    sessions.dedup();
    sessions
}

/// Workloads of the sessions in `range` that are none of `converted`.
fn idle_sessions(
    source: &dyn HedgeSource,
    range: RecordRange,
    names: &mut Names,
    converted: &[u32],
) -> Result<Vec<(Timestamp, Vec<u32>)>, RoiError> {
    let mut paths: HashMap<u32, Vec<(Timestamp, u128, u32)>> = HashMap::new();
    source.read_records(range).each_glance(|frame, glimpse| {
        let Some(glimpse) = glimpse else {
            names.next_frame();
            return Ok(());
        };
        let glance = &glimpse.glance;
        if !glance.counted || glance.outcome == Outcome::Refused {
            return Ok(());
        }
        let session = names.session(frame, glance).map_err(|error| glimpse.undecodable(error))?;
        if session == 0 || converted.binary_search(&session).is_ok() {
            return Ok(());
        }
        if paths.len() >= SESSIONS_MAX && !paths.contains_key(&session) {
            return Err(RoiError::TooManySessions);
        }
        let player = names.player(frame, glance).map_err(|error| glimpse.undecodable(error))?;
        let touch = (glance.started_at, glance.id, player);
        let path = paths.entry(session).or_default();
        match path.iter_mut().find(|(_, _, there)| *there == player) {
            Some(there) if touch < *there => *there = touch,
            Some(_) => {}
            None => path.push(touch),
        }
        Ok(())
    })?;
    let mut idle: Vec<(Timestamp, Vec<u32>)> = Vec::with_capacity(paths.len());
    for mut path in paths.into_values() {
        path.sort_unstable();
        let first = path.first().map_or(Timestamp::from_micros(0), |(at, _, _)| *at);
        idle.push((first, path.into_iter().map(|(_, _, player)| player).collect()));
    }
    Ok(idle)
}
