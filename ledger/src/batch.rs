//! Batches: each result counts once, however often and by whomever it is fetched, and belongs to
//! whoever made the batch.
//!
//! Invariants
//! - The first one to make a batch owns it; nothing takes it from them.
//! - A fetched record says the sum of the results that were not counted before. When none is left it
//!   does not count and says no usage.
//! - Its cost is the sum of what each of these results costs as a request of its own.
//! - A reply that was counted when it was made, and can be read back, does not count when it is.
//! - What was decided is marked in the frame of the record, so a replay cannot decide otherwise.
//!
//! Not here: reading results (`proxy::usage`), keeping the marks (`codec::marks`, `store`).

mod price;

use crate::codec::Mark;
use crate::settle::Pricer;
use crate::store::meter_key;
use bursar_domain::batch::{BatchFacts, BatchLine, BatchLines, LOCAL_ID, sum};
use bursar_domain::{
    Identity, IdentitySource, Label, Metering, ProviderCost, Tags, Usage, UsageRecord, UsageSource,
};
use std::collections::HashSet;
use std::sync::Arc;

/// What was remembered of earlier records.
pub(crate) trait Memory {
    /// Whether what has this key was counted.
    fn is_counted(&mut self, key: &[u8]) -> bool;
    /// Whose the thing with this key is.
    fn owner(&mut self, key: &[u8]) -> Option<Arc<Identity>>;
}

/// Settles what `facts` say: changes the record to what counts and prices it, and gives the marks to
/// keep.
pub(crate) fn settle(
    record: &mut UsageRecord,
    facts: &BatchFacts,
    memory: &mut dyn Memory,
    pricer: &dyn Pricer,
) -> Vec<Mark> {
    let provider = record.provider.clone();
    match facts {
        BatchFacts::Made { batch } => {
            let key = owner_key(&provider, batch);
            match memory.owner(&key) {
                None => vec![Mark::Owner(key, Arc::clone(&record.identity))],
                Some(_) => Vec::new(),
            }
        }
        BatchFacts::Seen(batches) => {
            let mut marks = Vec::new();
            for names in batches.iter().filter(|names| !names.files.is_empty()) {
                let Some(owner) = memory.owner(&owner_key(&provider, &names.batch)) else { continue };
                for file in &names.files {
                    let key = owner_key(&provider, file);
                    if memory.owner(&key).is_none() {
                        marks.push(Mark::Owner(key, Arc::clone(&owner)));
                    }
                }
            }
            marks
        }
        BatchFacts::Fetched { name, lines } if record.metering == Metering::Count => {
            fetched(record, name, lines, memory, pricer)
        }
        BatchFacts::ReadBack => read_back_key(record).into_iter().map(Mark::Counted).collect(),
        BatchFacts::Fetched { .. } => Vec::new(),
    }
}

/// What a reply is remembered by that is counted now and may be read back. One without tokens counts when
/// it is read, which may tell some.
pub(crate) fn read_back_key(record: &UsageRecord) -> Option<Box<[u8]>> {
    let counts = record.metering == Metering::Count && record.usage.has_tokens();
    let id = record.meter_id.as_ref().filter(|_| counts)?;
    Some(meter_key(record.provider.as_str(), id.as_str()))
}

fn fetched(
    record: &mut UsageRecord,
    name: &Label,
    lines: &BatchLines,
    memory: &mut dyn Memory,
    pricer: &dyn Pricer,
) -> Vec<Mark> {
    let mut keys = HashSet::new();
    let mut is_new = Vec::with_capacity(lines.len());
    for line in lines.iter() {
        let key = line_key(&record.provider, name, &line);
        is_new.push(key.is_none_or(|key| !memory.is_counted(&key) && keys.insert(key)));
    }
    let fresh = || lines.iter().zip(&is_new).filter(|(_, is_new)| **is_new).map(|(line, _)| line);
    let left = fresh().count();
    if left == 0 {
        repeat(record);
        return Vec::new();
    }
    if left < lines.len() {
        let sum = sum(fresh());
        record.usage = sum.usage;
        record.by_model = sum.by_model;
        record.model_served = sum.model;
        // Lines that differ leave the route's region, those that do not all tell the same one.
        record.region = sum.region.or_else(|| record.region.take());
        record.provider_cost = sum.charge.map(|amount| ProviderCost { amount });
        record.usage_raw = None;
        record.cost = None;
    }
    if let Some(owner) = memory.owner(&owner_key(&record.provider, name)) {
        record.identity = owner;
    }
    if record.cost.is_none() {
        record.cost = Some(price::price(record, fresh(), pricer));
    }
    keys.into_iter().map(Mark::Counted).collect()
}

/// Everything in it was counted before.
fn repeat(record: &mut UsageRecord) {
    record.metering = Metering::Never;
    record.usage = Usage::unknown();
    record.usage_source = UsageSource::Absent;
    record.counted_by = None;
    record.by_model.clear();
    record.usage_raw = None;
    record.provider_cost = None;
    record.cost = None;
}

/// The key under which a result counts once; `None` when nothing tells it from others.
fn line_key(provider: &Label, name: &Label, line: &BatchLine<'_>) -> Option<Box<[u8]>> {
    if line.id.is_empty() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    if line.id.starts_with(LOCAL_ID) {
        hasher.update(name.as_str().as_bytes()).update(&[0]);
    }
    let hash = hasher.update(line.id.as_bytes()).finalize();
    let half = hash.as_bytes().first_chunk::<16>().map(<[u8; 16]>::as_slice).unwrap_or_default();
    // A meter id has no control character, so no key of one is like this.
    Some([provider.as_str().as_bytes(), &[0, 1], half].concat().into_boxed_slice())
}

/// Whether a key is of a result of a batch, not of a reply's id.
pub(crate) fn is_line_key(key: &[u8]) -> bool {
    let end = key.iter().position(|byte| *byte == 0);
    end.and_then(|end| key.get(end.saturating_add(1))) == Some(&1)
}

fn owner_key(provider: &Label, name: &Label) -> Box<[u8]> {
    [provider.as_str().as_bytes(), &[0], name.as_str().as_bytes()].concat().into_boxed_slice()
}

// === identities in the store ===

#[derive(serde::Serialize, serde::Deserialize)]
struct StoredIdentity<'a> {
    #[serde(borrow)]
    team: Option<&'a str>,
    #[serde(borrow)]
    workload: Option<&'a str>,
    #[serde(borrow)]
    customer: Option<&'a str>,
    #[serde(borrow)]
    session: Option<&'a str>,
    #[serde(borrow)]
    tags: Vec<(&'a str, &'a str)>,
    source: u8,
}

/// An identity as the store keeps it.
pub(crate) fn encode_identity(identity: &Identity) -> Vec<u8> {
    fn text(label: Option<&Label>) -> Option<&str> {
        label.map(Label::as_str)
    }
    let stored = StoredIdentity {
        team: text(identity.team.as_ref()),
        workload: text(identity.workload.as_ref()),
        customer: text(identity.customer.as_ref()),
        session: text(identity.session.as_ref()),
        tags: identity.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        source: identity.source.number(),
    };
    // Writing to memory cannot fail.
    postcard::to_stdvec(&stored).unwrap_or_default()
}

/// The identity that the store kept; `None` when it cannot be read.
pub(crate) fn decode_identity(bytes: &[u8]) -> Option<Identity> {
    let stored: StoredIdentity<'_> = postcard::from_bytes(bytes).ok()?;
    let label = |text: Option<&str>| text.map(Label::new).transpose().ok();
    let mut tags = Tags::default();
    for (name, value) in stored.tags {
        tags.insert(Label::new(name).ok()?, Label::new(value).ok()?);
    }
    Some(Identity {
        team: label(stored.team)?,
        workload: label(stored.workload)?,
        customer: label(stored.customer)?,
        session: label(stored.session)?,
        tags,
        source: IdentitySource::from_number(stored.source)?,
    })
}

#[cfg(test)]
mod tests;
