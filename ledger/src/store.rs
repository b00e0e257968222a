//! The embedded database that is derived from the journal: hourly rollups, the ids that count once, the
//! owners of batches, the finance facts and the exchanges that are open. The only file that names `sled`.
//!
//! Invariants
//! - Rows, the watermark (the last sequence they include) and a checksum over all rows change in one
//!   atomic batch. Ids that count once may come before it, in batches of their own with the checksum:
//!   adding one again changes nothing, and memory stays bounded however many a group has.
//! - A store that is damaged, of another ledger or not understood is never read on: opening or its check says
//!   so, and it is built anew from the journal. A panic inside sled is caught and is such damage.
//! - Finance facts and open exchanges have a checksum of their own, which opening compares. That of all rows is
//!   compared after it (`checking`), before any other row is read or changed. A row that is gone or not what was
//!   written stays noticeable: a change adds to the checksum what it changes, no more.
//! - The store is never ahead of what the journal has made durable: its caller syncs first.
//!
//! Not here: when to apply and flush (`writer`), rebuilding (`open`).

use crate::batch::{decode_identity, encode_identity};
use crate::codec::{self, Mark, decode_row, encode_row};
use crate::disk;
use crate::journal::format::{GENESIS, Hash};
use crate::opening::Opening;
use crate::rollup::{Hour, Rollups, Totals, decode_totals, encode_totals};
use bursar_domain::{Identity, LedgerId, RequestId, StoredFact};
use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Version of the rows. Any other is built anew.
pub(crate) const SCHEMA: u16 = 4;
const CACHE_BYTES: u64 = 8 << 20;
const LOCK_WAIT: Duration = Duration::from_millis(5);
const LOCK_WAITS_MAX: u32 = 400;
/// Most ids in one batch: sled holds a copy of a node for every row of a batch until it is over.
const BATCH_IDS_MAX: usize = 1_024;
const META_KEY: &[u8] = b"m";
pub(crate) const ROLLUP: u8 = b'r';
pub(crate) const METER_ID: u8 = b'i';
const OWNER: u8 = b'o';
const FACT: u8 = b'f';
pub(crate) const RESERVATION: u8 = b'v';

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the embedded database failed: {0}")]
    Failed(String),
    #[error("the embedded database is damaged: {0}")]
    Damaged(&'static str),
    #[error("the embedded database has schema {0}; this program builds schema {SCHEMA}")]
    OtherSchema(u16),
    #[error("the embedded database belongs to ledger {0}")]
    OtherLedger(LedgerId),
}

/// What the store says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Meta {
    schema: u16,
    ledger: [u8; 16],
    /// The last sequence whose record is in the rows.
    watermark: u64,
    /// The journal's chain hash there.
    hash: Hash,
    all: Sum,
    /// The finance facts and the open exchanges among them.
    opening: Sum,
}

/// What rows there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Sum {
    rows: u64,
    /// The sum, modulo 2¹²⁸, of a hash of each row.
    checksum: u128,
}

impl Sum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.checksum = self.checksum.wrapping_add(row_hash(key, value));
    }

    fn take(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.checksum = self.checksum.wrapping_sub(row_hash(key, value));
    }
}

impl Meta {
    /// Each sum that a row is part of.
    fn sums(&mut self, key: &[u8]) -> impl Iterator<Item = &mut Sum> {
        let is_read_at_opening = matches!(key.first(), Some(&(FACT | RESERVATION)));
        std::iter::once(&mut self.all).chain(is_read_at_opening.then_some(&mut self.opening))
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.sums(key).for_each(|sum| sum.add(key, value));
    }

    fn take(&mut self, key: &[u8], value: &[u8]) {
        self.sums(key).for_each(|sum| sum.take(key, value));
    }
}

/// What is remembered besides rollups, and not yet in the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// Ids that count once.
    pub(crate) meter_ids: HashSet<Box<[u8]>>,
    /// Owners of batches and of the files of their results.
    pub(crate) owners: HashMap<Box<[u8]>, Arc<Identity>>,
    /// Finance facts.
    pub(crate) facts: Vec<Arc<StoredFact>>,
    /// Exchanges that were opened and are open.
    opened: HashMap<RequestId, Box<[u8]>>,
    /// Exchanges that the store has as open and that are not any more.
    closed: HashSet<RequestId>,
}

impl Keys {
    /// Takes over a mark. The first owner stays.
    pub(crate) fn add(&mut self, mark: Mark) {
        match mark {
            Mark::Counted(key) => {
                self.meter_ids.insert(key);
            }
            Mark::Owner(key, identity) => {
                self.owners.entry(key).or_insert(identity);
            }
        }
    }

    /// An exchange was opened.
    pub(crate) fn open(&mut self, opening: &Opening) {
        self.closed.remove(&opening.id);
        self.opened.insert(opening.id, encode_row(opening));
    }

    /// An exchange that had been opened has its record.
    pub(crate) fn close(&mut self, id: RequestId) {
        if self.opened.remove(&id).is_none() {
            self.closed.insert(id);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.meter_ids.clear();
        self.owners.clear();
        self.facts.clear();
        self.opened.clear();
        self.closed.clear();
    }
}

/// The database as its files are, before anything in it was looked at.
#[derive(Debug)]
pub(crate) struct Database {
    db: sled::Db,
    dir: PathBuf,
}

impl Database {
    /// Opens or makes it.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        disk::create_private_dir(dir).map_err(|e| StoreError::Failed(e.to_string()))?;
        Ok(Self { db: open_database(dir)?, dir: dir.to_owned() })
    }

    /// Closes it.
    pub(crate) fn discard(self) {
        quietly_drop(self.db);
    }
}

/// The open store.
#[derive(Debug)]
pub(crate) struct Store {
    db: sled::Db,
    dir: PathBuf,
    meta: Mutex<Meta>,
}

impl Store {
    /// Opens or makes the store in `dir` and checks every row against the checksum.
    pub(crate) fn open(dir: &Path, ledger: LedgerId) -> Result<Self, StoreError> {
        let store = Self::open_unchecked(Database::open(dir)?, ledger)?;
        match store.check() {
            Ok(()) => Ok(store),
            Err(error) => {
                store.discard();
                Err(error)
            }
        }
    }

    /// The store in the database; of its rows only those are checked that opening reads. Nothing else of it
    /// means anything before [`Store::check`].
    pub(crate) fn open_unchecked(database: Database, ledger: LedgerId) -> Result<Self, StoreError> {
        let Database { db, dir } = database;
        let checked = guard_checked(|| {
            let meta = read_meta(&db, ledger)?;
            let rows = [FACT, RESERVATION].into_iter().flat_map(|prefix| db.scan_prefix([prefix]));
            check_rows(rows, meta.opening)?;
            Ok(meta)
        });
        match checked {
            Ok(meta) => {
                let store = Self { db, dir, meta: Mutex::new(meta) };
                store.make_files_private();
                Ok(store)
            }
            Err(error) => {
                quietly_drop(db);
                Err(error)
            }
        }
    }

    /// Compares all rows with their checksum. Nothing may be applied meanwhile.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        guard_checked(|| check_rows(self.db.iter(), self.meta().all))
    }

    /// Closes a store that is of no use.
    pub(crate) fn discard(self) {
        quietly_drop(self);
    }

    /// The last sequence in the rows, and the journal's chain hash there.
    pub(crate) fn watermark(&self) -> (u64, Hash) {
        let meta = self.meta();
        (meta.watermark, meta.hash)
    }

    /// Adds totals and ids, and moves the watermark with the last batch.
    pub(crate) fn apply(
        &self,
        rollups: &Rollups,
        keys: &Keys,
        watermark: u64,
        hash: Hash,
    ) -> Result<(), StoreError> {
        guard_checked(|| {
            let mut meta = self.meta();
            let mut batch = sled::Batch::default();
            let mut ids: Vec<_> = keys.meter_ids.iter().collect();
            // Neighbours are in the same nodes.
            ids.sort_unstable();
            let mut pieces = ids.chunks(BATCH_IDS_MAX).peekable();
            while let Some(piece) = pieces.next() {
                for id in piece {
                    self.insert_new(&mut batch, &mut meta, prefixed(METER_ID, id), &[])?;
                }
                if pieces.peek().is_some() {
                    self.commit(std::mem::take(&mut batch), &meta)?;
                }
            }
            for (key, totals) in rollups.iter() {
                self.merge_row(&mut batch, &mut meta, prefixed(ROLLUP, key), totals)?;
            }
            for (name, identity) in &keys.owners {
                let value = encode_identity(identity);
                self.insert_new(&mut batch, &mut meta, prefixed(OWNER, name), &value)?;
            }
            for stored in &keys.facts {
                let row = codec::to_row(&stored.fact);
                let key = prefixed(FACT, &stored.sequence.to_be_bytes());
                self.insert_new(&mut batch, &mut meta, key, &row)?;
            }
            for (id, row) in &keys.opened {
                self.insert_new(&mut batch, &mut meta, reservation_key(*id), row)?;
            }
            for id in &keys.closed {
                self.remove(&mut batch, &mut meta, reservation_key(*id))?;
            }
            meta.watermark = watermark;
            meta.hash = hash;
            self.commit(batch, &meta)
        })
    }

    /// Changes rows and what the store says about itself, at once.
    fn commit(&self, mut batch: sled::Batch, meta: &Meta) -> Result<(), StoreError> {
        batch.insert(META_KEY, encode_meta(meta));
        self.db.apply_batch(batch).map_err(failed)?;
        *self.meta.lock().unwrap_or_else(PoisonError::into_inner) = *meta;
        Ok(())
    }

    /// Adds a row unless there is one.
    fn insert_new(
        &self,
        batch: &mut sled::Batch,
        meta: &mut Meta,
        key: Vec<u8>,
        value: &[u8],
    ) -> Result<(), StoreError> {
        if self.db.get(&key).map_err(failed)?.is_none() {
            meta.add(&key, value);
            batch.insert(key, value);
        }
        Ok(())
    }

    fn remove(&self, batch: &mut sled::Batch, meta: &mut Meta, key: Vec<u8>) -> Result<(), StoreError> {
        if let Some(old) = self.db.get(&key).map_err(failed)? {
            meta.take(&key, &old);
            batch.remove(key);
        }
        Ok(())
    }

    /// The exchanges that are open.
    pub(crate) fn open_exchanges(&self) -> Result<Vec<Opening>, StoreError> {
        guard_checked(|| {
            let mut open = Vec::new();
            for row in self.db.scan_prefix([RESERVATION]) {
                let (_, value) = row.map_err(failed)?;
                open.push(
                    decode_row(&value).map_err(|_| StoreError::Damaged("a reservation cannot be read"))?,
                );
            }
            Ok(open)
        })
    }

    fn merge_row(
        &self,
        batch: &mut sled::Batch,
        meta: &mut Meta,
        key: Vec<u8>,
        totals: &Totals,
    ) -> Result<(), StoreError> {
        let old = self.db.get(&key).map_err(failed)?;
        let new = match &old {
            None => encode_totals(totals),
            Some(bytes) => {
                let mut sum = decode_totals(bytes).ok_or(StoreError::Damaged("a rollup cannot be read"))?;
                sum.merge(totals);
                meta.take(&key, bytes);
                encode_totals(&sum)
            }
        };
        meta.add(&key, &new);
        batch.insert(key, new);
        Ok(())
    }

    /// Calls `each` with the rollups of the hours in `[from, to)`.
    pub(crate) fn scan(
        &self,
        from: Option<Hour>,
        to: Option<Hour>,
        mut each: impl FnMut(&[u8], &Totals),
    ) -> Result<(), StoreError> {
        guard_checked(|| {
            let low = prefixed(ROLLUP, &from.map(Hour::to_key).unwrap_or_default());
            let high = match to {
                Some(hour) => prefixed(ROLLUP, &hour.to_key()),
                None => vec![ROLLUP.wrapping_add(1)],
            };
            if low >= high {
                return Ok(());
            }
            let range = (Bound::Included(low), Bound::Excluded(high));
            for row in self.db.range::<Vec<u8>, _>(range) {
                let (key, value) = row.map_err(failed)?;
                let totals = decode_totals(&value).ok_or(StoreError::Damaged("a rollup cannot be read"))?;
                each(key.get(1..).unwrap_or_default(), &totals);
            }
            Ok(())
        })
    }

    /// Whether the once-per-id key is there.
    pub(crate) fn has_meter_id(&self, id: &[u8]) -> Result<bool, StoreError> {
        guard(|| self.db.contains_key(prefixed(METER_ID, id)))
    }

    /// Whose the batch or file with this key is.
    pub(crate) fn owner(&self, name: &[u8]) -> Result<Option<Identity>, StoreError> {
        let Some(value) = guard(|| self.db.get(prefixed(OWNER, name)))? else { return Ok(None) };
        decode_identity(&value).map(Some).ok_or(StoreError::Damaged("an owner cannot be read"))
    }

    /// Every finance fact, in sequence.
    pub(crate) fn facts(&self) -> Result<Vec<Arc<StoredFact>>, StoreError> {
        guard_checked(|| {
            let mut found = Vec::new();
            for row in self.db.scan_prefix([FACT]) {
                let (key, value) = row.map_err(failed)?;
                let sequence = key.get(1..).and_then(|key| key.first_chunk::<8>());
                let fact = sequence.zip(codec::from_row(&value));
                let (sequence, fact) = fact.ok_or(StoreError::Damaged("a fact cannot be read"))?;
                found.push(Arc::new(StoredFact { sequence: u64::from_be_bytes(*sequence), fact }));
            }
            Ok(found)
        })
    }

    /// Hands what was applied to the disk. Never the last word: the journal is.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        guard(|| self.db.flush())?;
        self.make_files_private();
        Ok(())
    }

    fn meta(&self) -> Meta {
        *self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory is private already; this is for copies of its files. Failing is harmless.
    fn make_files_private(&self) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let _ = disk::make_private(&entry.path());
        }
    }
}

/// Moves a store that cannot be used out of the way. One such store is kept.
pub(crate) fn set_aside(dir: &Path) -> std::io::Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    let mut greatest = 0_u32;
    for entry in std::fs::read_dir(parent)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_prefix("store.broken-").and_then(|n| n.parse::<u32>().ok()) {
            greatest = greatest.max(number);
            std::fs::remove_dir_all(&path)?;
        }
    }
    if dir.exists() {
        std::fs::rename(dir, parent.join(format!("store.broken-{}", greatest.saturating_add(1))))?;
    }
    Ok(())
}

/// The key under which a meter id counts once.
pub(crate) fn meter_key(provider: &str, meter_id: &str) -> Box<[u8]> {
    // Labels have no control characters, so the zero separates.
    [provider.as_bytes(), &[0], meter_id.as_bytes()].concat().into_boxed_slice()
}

/// Opens sled. Its threads may hold the files for a moment after an earlier handle of this process was
/// dropped; nobody else can, as the ledger's directory is locked.
fn open_database(dir: &Path) -> Result<sled::Db, StoreError> {
    let mut waits = 0;
    loop {
        let opened = guard(|| {
            sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .mode(sled::Mode::LowSpace)
                .open()
        });
        match opened {
            Err(StoreError::Failed(text))
                if text.contains("could not acquire lock") && waits < LOCK_WAITS_MAX =>
            {
                waits += 1;
                std::thread::sleep(LOCK_WAIT);
            }
            opened => return opened,
        }
    }
}

fn read_meta(db: &sled::Db, ledger: LedgerId) -> Result<Meta, StoreError> {
    let fresh = Meta {
        schema: SCHEMA,
        ledger: ledger.bits().to_be_bytes(),
        watermark: 0,
        hash: GENESIS,
        all: Sum::default(),
        opening: Sum::default(),
    };
    let Some(bytes) = db.get(META_KEY).map_err(failed)? else {
        let empty = db.iter().next().is_none();
        return if empty { Ok(fresh) } else { Err(StoreError::Damaged("its description is missing")) };
    };
    let meta = decode_meta(&bytes)?;
    let owner = LedgerId::from_bits(u128::from_be_bytes(meta.ledger));
    if owner == ledger { Ok(meta) } else { Err(StoreError::OtherLedger(owner)) }
}

/// Whether these are the rows of the sum.
fn check_rows(
    rows: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
    expected: Sum,
) -> Result<(), StoreError> {
    let mut found = Sum::default();
    for row in rows {
        let (key, value) = row.map_err(failed)?;
        if key.as_ref() != META_KEY {
            found.add(&key, &value);
        }
    }
    if found == expected { Ok(()) } else { Err(StoreError::Damaged("its rows do not match their checksum")) }
}

/// sled writes while it is dropped, and may panic.
fn quietly_drop<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

fn encode_meta(meta: &Meta) -> Vec<u8> {
    // Writing to memory cannot fail.
    let mut bytes = postcard::to_stdvec(meta).unwrap_or_default();
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode_meta(bytes: &[u8]) -> Result<Meta, StoreError> {
    let unread = || StoreError::Damaged("its description cannot be read");
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(unread)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(unread());
    }
    // Another schema may say other things about itself, but its number comes first.
    let (schema, _): (u16, _) = postcard::take_from_bytes(body).map_err(|_| unread())?;
    if schema != SCHEMA {
        return Err(StoreError::OtherSchema(schema));
    }
    postcard::from_bytes(body).map_err(|_| unread())
}

fn reservation_key(id: RequestId) -> Vec<u8> {
    prefixed(RESERVATION, &id.bits().to_be_bytes())
}

fn prefixed(prefix: u8, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len().saturating_add(1));
    full.push(prefix);
    full.extend_from_slice(key);
    full
}

fn row_hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    hasher.finalize().as_bytes().first_chunk::<16>().map_or(0, |half| u128::from_le_bytes(*half))
}

fn failed(error: sled::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

/// Runs sled; a panic in it is a failure like another.
fn guard<T>(run: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    guard_checked(|| run().map_err(failed))
}

fn guard_checked<T>(run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "it panicked".to_owned());
        Err(StoreError::Failed(text))
    })
}

#[cfg(test)]
impl Store {
    /// Loses the first row of the kind without noticing, as a defective database would.
    pub(crate) fn lose_row(&self, kind: u8) {
        let (key, _) = self.db.scan_prefix([kind]).next().unwrap().unwrap();
        self.db.remove(key).unwrap();
        self.flush().unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Keys {
        let id = |n: usize| Mark::Counted(n.to_le_bytes().to_vec().into_boxed_slice());
        let mut keys = Keys::default();
        (0..count).for_each(|n| keys.add(id(n)));
        keys
    }

    /// Applies many ids as if each run but the last had ended before the watermark moved.
    fn check(counts: &[usize], rows: u64) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = LedgerId::from_bits(7);
        for (n, count) in counts.iter().enumerate() {
            let store = Store::open(dir.path(), ledger).unwrap();
            let is_last = n + 1 == counts.len();
            let (watermark, hash) = if is_last { (9, [1; 32]) } else { (0, GENESIS) };
            store.apply(&Rollups::default(), &keys(*count), watermark, hash).unwrap();
            store.flush().unwrap();
        }
        let store = Store::open(dir.path(), ledger).unwrap();
        assert_eq!((store.meta().all.rows, store.watermark()), (rows, (9, [1; 32])), "{counts:?}");
        for n in 0..rows {
            assert!(store.has_meter_id(&n.to_le_bytes()).unwrap(), "{n}");
        }
    }

    #[test]
    fn a_store_of_another_schema_is_not_read_and_is_built_anew() {
        use crate::codec::tests::plain_record;
        for schema in [1, SCHEMA - 1, SCHEMA + 1] {
            let dir = tempfile::tempdir().unwrap();
            let (ledger, _) = crate::faults::open(dir.path());
            let id = ledger.id();
            let _ =
                ledger.append(Box::new(plain_record(1)), crate::Wait::Acknowledged).unwrap().wait().unwrap();
            ledger.close().unwrap();
            let path = dir.path().join("store");
            let store = Store::open(&path, id).unwrap();
            store.commit(sled::Batch::default(), &Meta { schema, ..store.meta() }).unwrap();
            store.flush().unwrap();
            store.discard();
            assert!(matches!(Store::open(&path, id), Err(StoreError::OtherSchema(found)) if found == schema));
            let (ledger, report) = crate::faults::open(dir.path());
            assert!(matches!(report.store, crate::StoreState::Rebuilt { records: 1, .. }), "{report:?}");
            assert_eq!(ledger.usage(&crate::UsageQuery::default()).unwrap().totals.requests, 1);
            ledger.close().unwrap();
        }
    }

    #[test]
    fn what_another_schema_says_about_itself_is_told_from_damage() {
        // Shorter than today's, as that of schema 3 was.
        let mut bytes = postcard::to_stdvec(&(3_u16, [7_u8; 16], 5_u64)).unwrap();
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        assert!(matches!(decode_meta(&bytes), Err(StoreError::OtherSchema(3))));
        bytes[0] ^= 1;
        assert!(matches!(decode_meta(&bytes), Err(StoreError::Damaged(_))));
        assert!(matches!(decode_meta(&[]), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn more_ids_than_one_batch_holds_are_all_there_and_match_their_checksum() {
        for count in [0, 1, BATCH_IDS_MAX, BATCH_IDS_MAX + 1, 3 * BATCH_IDS_MAX] {
            check(&[count], count as u64);
        }
    }

    #[test]
    fn ids_that_are_applied_again_after_a_crash_change_nothing() {
        check(&[BATCH_IDS_MAX, 2 * BATCH_IDS_MAX + 5], 2 * BATCH_IDS_MAX as u64 + 5);
        check(&[5, 2_500, 2_500], 2_500);
    }
}
