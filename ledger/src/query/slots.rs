//! Which row the next record belongs to, found without making the row's key anew for every record.
//!
//! Invariants
//! - Records with equal values of all keys get the same answer, and others another one.
//! - Numbers of texts hold within one frame; between frames the texts themselves are compared.
//!
//! Not here: the keys of rows (`query`), glances (`codec`).

use super::{GroupKey, KeyValue};
use crate::codec::{DecodeError, Glance, GlanceFrame};
use bursar_domain::{Outcome, UsageSource};
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// A time is given by its hour; where an hour is not enough, by nothing.
const NO_HOUR: u32 = 0;
/// Most answers that are kept across frames, beside those that `make` itself keeps.
const FAR_MAX: usize = 65_536;

/// Answers by the values that records have of some keys. Times are given beside the record. Memory is bounded:
/// an answer may have to be made again, and must be the same then.
#[derive(Debug, Default)]
pub(crate) struct Slots<T> {
    keys: Vec<GroupKey>,
    /// By numbers in the frame of today.
    near: HashMap<Box<[u32]>, T, RandomState>,
    /// By texts.
    far: HashMap<Box<[u8]>, T, RandomState>,
    far_max: usize,
    numbers: Vec<u32>,
    written: Vec<u8>,
}

impl<T: Copy> Slots<T> {
    /// For the keys among these that are no times.
    pub(crate) fn new<'k>(keys: impl Iterator<Item = &'k GroupKey>) -> Self {
        Self {
            keys: keys.filter(|key| !key.is_time()).cloned().collect(),
            near: HashMap::default(),
            far: HashMap::default(),
            far_max: FAR_MAX,
            numbers: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Keeps every answer: for whoever numbers what he makes, and bounds that himself.
    pub(crate) fn keeping_all(self) -> Self {
        Self { far_max: usize::MAX, ..self }
    }

    /// What follows is in another frame.
    pub(crate) fn next_frame(&mut self) {
        self.near.clear();
    }

    /// The answer for a record, and for its hour if `hour` is given; `make` makes it where it is not known.
    pub(crate) fn find<E: From<DecodeError>>(
        &mut self,
        frame: &GlanceFrame<'_>,
        glance: &Glance<'_>,
        hour: Option<u32>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let hour = hour.unwrap_or(NO_HOUR);
        self.numbers.clear();
        self.numbers.push(hour);
        for key in &self.keys {
            self.numbers.push(number(key, frame, glance)?);
        }
        if let Some(found) = self.near.get(self.numbers.as_slice()) {
            return Ok(*found);
        }
        self.written.clear();
        self.written.extend_from_slice(&hour.to_le_bytes());
        for (key, number) in self.keys.iter().zip(self.numbers.iter().skip(1)) {
            match text_of_number(key, frame, *number)? {
                // No text is as long as that.
                None => self.written.extend_from_slice(&u32::MAX.to_le_bytes()),
                Some(text) => {
                    let length = u32::try_from(text.len()).unwrap_or(u32::MAX - 1);
                    self.written.extend_from_slice(&length.to_le_bytes());
                    self.written.extend_from_slice(text.as_bytes());
                }
            }
        }
        let found = match self.far.get(self.written.as_slice()) {
            Some(found) => *found,
            None => {
                let made = make()?;
                if self.far.len() >= self.far_max {
                    self.far.clear();
                }
                self.far.insert(self.written.as_slice().into(), made);
                made
            }
        };
        self.near.insert(self.numbers.as_slice().into(), found);
        Ok(found)
    }
}

/// The value of a key that is no time.
pub(crate) fn value_of_glance(
    key: &GroupKey,
    frame: &GlanceFrame<'_>,
    glance: &Glance<'_>,
) -> Result<KeyValue, DecodeError> {
    Ok(KeyValue::of(text_of_number(key, frame, number(key, frame, glance)?)?))
}

/// What tells the value of a key within a frame: a text's number, or a number on disk.
fn number(key: &GroupKey, frame: &GlanceFrame<'_>, glance: &Glance<'_>) -> Result<u32, DecodeError> {
    let who = || frame.identity(glance.identity);
    Ok(match key {
        GroupKey::Team => who()?.team,
        GroupKey::Workload => who()?.workload,
        GroupKey::Customer => who()?.customer,
        GroupKey::Session => who()?.session,
        GroupKey::Tag(asked) => {
            for (name, value) in &who()?.tags {
                if frame.text(*name)? == Some(asked) {
                    return Ok(*value);
                }
            }
            0
        }
        GroupKey::Provider => glance.provider,
        GroupKey::ModelRequested => glance.model_requested,
        GroupKey::Model => glance.model(),
        GroupKey::Route => glance.route,
        GroupKey::Api => glance.api,
        GroupKey::Tier => glance.tier,
        GroupKey::Outcome => glance.outcome.number().into(),
        GroupKey::Source => glance.source.number().into(),
        GroupKey::Hour | GroupKey::Day | GroupKey::Month => 0,
    })
}

fn text_of_number<'p>(
    key: &GroupKey,
    frame: &GlanceFrame<'p>,
    number: u32,
) -> Result<Option<&'p str>, DecodeError> {
    let on_disk = || u8::try_from(number).ok();
    match key {
        GroupKey::Outcome => Ok(on_disk().and_then(Outcome::from_number).map(Outcome::name)),
        GroupKey::Source => Ok(on_disk().and_then(UsageSource::from_number).map(UsageSource::name)),
        _ => frame.text(number),
    }
}
