//! Verify: walk the whole chain, recompute every total and compare with the store.
//!
//! Invariants
//! - Nothing of the journal is changed, and nothing the store says is believed.
//!
//! Not here: salvage of what is damaged.

use crate::guard::DirectoryLock;
use crate::journal::find::TornTail;
use crate::journal::format::Hash;
use crate::journal::read::{Frames, ReadError, RecordRange, Records, read_facts};
use crate::journal::segment::Check;
use crate::open::{OpenError, open_offline, view_of};
use crate::rollup::{Rollups, Totals};
use crate::settle::{self, Counting};
use crate::store::Store;
use bursar_domain::{LedgerId, StoredFact};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// What a whole ledger was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The ledger's id.
    pub ledger: LedgerId,
    /// Records, all of them read and decoded.
    pub records: u64,
    /// Finance facts, all of them read and decoded.
    pub facts: u64,
    /// The chain hash after the last one.
    pub hash: [u8; 32],
    /// What they add up to.
    pub totals: Totals,
    /// A torn end that the next start will cut.
    pub torn_tail: Option<TornTail>,
    /// Whether the store says the same.
    pub store: StoreCheck,
}

/// How the store compares with the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreCheck {
    /// Every row is what the journal adds up to.
    Agrees,
    /// It has only the records up to a sequence; the next start adds the rest.
    Behind {
        /// That sequence.
        watermark: u64,
    },
    /// It does not; the next start builds it anew.
    Differs {
        /// How.
        reason: String,
    },
    /// There is none; the next start builds one.
    Missing,
}

/// Why a ledger is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its records cannot all be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record is not at its place, or counted where the rule says otherwise.
    #[error("record {sequence} is wrong: {what}")]
    Record {
        /// Its sequence.
        sequence: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Verifies the ledger in `dir`, which no process may be using.
pub fn verify(dir: &Path) -> Result<Verified, VerifyError> {
    let (lock, found) = open_offline(dir)?;
    let torn_tail = found.tail.clone();
    let Some(view) = view_of(found) else {
        return Err(VerifyError::Record { sequence: 1, what: "there is no segment" });
    };
    let mut totals = Totals::default();
    let mut rollups = Rollups::default();
    let mut once = HashSet::new();
    let mut records = 0_u64;
    let mut all = Records::new(&view, RecordRange::default(), Check::Chain);
    while let Some(stored) = all.next() {
        let stored = stored?;
        records = records.saturating_add(1);
        let wrong = |what| VerifyError::Record { sequence: stored.sequence, what };
        if stored.sequence != records.saturating_add(all.facts_passed()) {
            return Err(wrong("it does not follow in sequence"));
        }
        let counts = match settle::counting(&stored.record) {
            Counting::Yes => true,
            Counting::No => false,
            Counting::Once(key) => once.insert(key),
        };
        if counts != stored.counted {
            return Err(wrong("whether it counts is not what the rule says"));
        }
        totals.add_record(&stored.record, stored.counted);
        rollups.add_record(&stored.record, stored.counted);
    }
    let facts = all.facts_passed();
    let last = records.saturating_add(facts);
    if last != view.last_sequence() {
        return Err(VerifyError::Record { sequence: last, what: "records after it are missing" });
    }
    let found = read_facts(Frames::new(view.segments().cloned(), Check::Checksums))?;
    if found.len() as u64 != facts {
        return Err(VerifyError::Record { sequence: last, what: "a fact is missing" });
    }
    let position = (view.last_sequence(), view.hash());
    let store = check_store(&dir.join("store"), view.ledger, position, (&rollups, &found), &lock);
    Ok(Verified { ledger: view.ledger, records, facts, hash: view.hash(), totals, torn_tail, store })
}

/// Compares row by row. Needs the directory's lock: sled writes even when it reads.
fn check_store(
    dir: &Path,
    ledger: LedgerId,
    position: (u64, Hash),
    (rollups, facts): (&Rollups, &[StoredFact]),
    _lock: &DirectoryLock,
) -> StoreCheck {
    if !dir.is_dir() {
        return StoreCheck::Missing;
    }
    let differs = |reason: String| StoreCheck::Differs { reason };
    let store = match Store::open(dir, ledger) {
        Ok(store) => store,
        Err(error) => return differs(error.to_string()),
    };
    let (watermark, hash) = store.watermark();
    if watermark < position.0 {
        return StoreCheck::Behind { watermark };
    }
    if (watermark, hash) != position {
        return differs("it follows another journal".to_owned());
    }
    let mut expected: BTreeMap<&[u8], &Totals> = rollups.iter().collect();
    let mut wrong = 0_u64;
    let read = store.scan(None, None, |key, totals| {
        if expected.remove(key) != Some(totals) {
            wrong = wrong.saturating_add(1);
        }
    });
    match store.facts() {
        Err(error) => return differs(error.to_string()),
        Ok(there) if !there.iter().map(AsRef::as_ref).eq(facts) => {
            return differs("its finance facts are not the journal's".to_owned());
        }
        Ok(_) => {}
    }
    match read {
        Err(error) => differs(error.to_string()),
        Ok(()) if wrong == 0 && expected.is_empty() => StoreCheck::Agrees,
        Ok(()) => differs(format!("{wrong} rollups are wrong, {} are missing", expected.len())),
    }
}
