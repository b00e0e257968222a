//! Verify: walk the whole chain, recompute every total and compare with the store.
//!
//! Invariants
//! - Nothing of the journal is changed, and nothing the store says is believed.
//!
//! Not here: salvage of what is damaged.

use crate::batch;
use crate::codec::{Fact, Mark};
use crate::guard::DirectoryLock;
use crate::journal::find::TornTail;
use crate::journal::format::Hash;
use crate::journal::read::{Frames, ReadError, all_facts, each_fact, each_mark};
use crate::journal::roll::Rolled;
use crate::journal::segment::Check;
use crate::journal::{Damage, View};
use crate::open::{OpenError, open_offline, view_of};
use crate::postings::{self, Balances, OneByOne};
use crate::retention;
use crate::rollup::{Rollups, Totals};
use crate::settle::{self, Counting};
use crate::store::Store;
use bursar_domain::{LedgerId, RequestId, StoredFact};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// What a whole ledger was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The ledger's id.
    pub ledger: LedgerId,
    /// Usage records: all that are kept read and decoded, the others as their rolls count them.
    pub records: u64,
    /// Of these, such as are kept as hourly totals only.
    pub rolled: u64,
    /// Exchanges whose opening was written before their record.
    pub reservations: u64,
    /// Of these, such as have no record: the next start settles them as interrupted.
    pub open: u64,
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
    let mut recount = Recount { read_back: read_back(&view)?, ..Recount::default() };
    for roll in view.rolled.iter() {
        recount.add_roll(roll)?;
    }
    each_fact(Frames::new(view.segments().cloned(), Check::Chain), |sequence, fact| {
        recount.add(sequence, fact).map_err(|what| Found::Wrong { sequence, what })
    })
    .map_err(|found| match found {
        Found::Wrong { sequence, what } => VerifyError::Record { sequence, what },
        Found::Unreadable(error) => error.into(),
    })?;
    let last = recount.last_sequence;
    recount.check_postings().map_err(|what| VerifyError::Record { sequence: last, what })?;
    let Recount { totals, rollups, open, records, reservations, facts, last_sequence, rolled, .. } = recount;
    if last_sequence != view.last_sequence() {
        return Err(VerifyError::Record { sequence: last_sequence, what: "records after it are missing" });
    }
    let found = all_facts(&view)?;
    check_checkpoints(&view, &found)?;
    if found.len() as u64 != facts {
        return Err(VerifyError::Record { sequence: last_sequence, what: "a fact is missing" });
    }
    let position = (view.last_sequence(), view.hash());
    let expected = Expected { rollups: &rollups, open: &open, facts: &found };
    let store = check_store(&crate::open::store_dir(dir), view.ledger, position, &expected, &lock);
    let open = open.len() as u64;
    let (ledger, hash) = (view.ledger, view.hash());
    Ok(Verified { ledger, records, rolled, reservations, open, facts, hash, totals, torn_tail, store })
}

/// The journal must vouch for every roll.
fn check_checkpoints(view: &View, facts: &[StoredFact]) -> Result<(), VerifyError> {
    let checkpoints: HashSet<(u64, String)> = facts.iter().filter_map(retention::checkpoint_of).collect();
    for roll in view.rolled.iter() {
        if !checkpoints.contains(&(roll.header.number, roll.header.digest())) {
            let damage: Damage = roll.damage("the roll that stands for it is not the one that was made");
            return Err(ReadError::Damaged(damage).into());
        }
    }
    Ok(())
}

/// The ids that marks remember.
fn read_back(view: &View) -> Result<HashSet<Box<[u8]>>, ReadError> {
    let mut keys = HashSet::new();
    each_mark(Frames::new(view.segments().cloned(), Check::Checksums), |mark| match mark {
        Mark::Counted(key) if !batch::is_line_key(&key) => {
            keys.insert(key);
        }
        Mark::Counted(_) | Mark::Owner(..) => {}
    })?;
    Ok(keys)
}

/// What stops the walk.
enum Found {
    Wrong { sequence: u64, what: &'static str },
    Unreadable(ReadError),
}

impl From<ReadError> for Found {
    fn from(error: ReadError) -> Self {
        Self::Unreadable(error)
    }
}

/// What the store must say.
struct Expected<'a> {
    rollups: &'a Rollups,
    open: &'a HashSet<RequestId>,
    facts: &'a [StoredFact],
}

/// Everything that the journal adds up to.
#[derive(Default)]
struct Recount {
    totals: Totals,
    rollups: Rollups,
    once: HashSet<Box<[u8]>>,
    /// Ids of replies that count when they are made and not when they are read back.
    read_back: HashSet<Box<[u8]>>,
    open: HashSet<RequestId>,
    records: u64,
    rolled: u64,
    reservations: u64,
    facts: u64,
    last_sequence: u64,
    /// What records post one by one, and what those post of which only totals are left.
    posted: OneByOne,
    postings: Balances,
}

impl Recount {
    /// What records post, one by one, is what their totals post, and sums to zero.
    fn check_postings(&self) -> Result<(), &'static str> {
        let mut of_totals = Balances::default();
        for (key, totals) in self.rollups.iter() {
            postings::of_rollup(key, totals, &mut of_totals).ok_or("a rollup before it cannot be read")?;
        }
        let mut one_by_one = self.postings.clone();
        self.posted.add_to(&mut one_by_one);
        if !of_totals.sums_are_those_of(&one_by_one) {
            return Err("the postings up to it are not those of the totals");
        }
        if of_totals.is_balanced() { Ok(()) } else { Err("the postings up to it do not sum to zero") }
    }

    /// What is left of a segment.
    fn add_roll(&mut self, roll: &Rolled) -> Result<(), ReadError> {
        let (header, contents) = (&roll.header, roll.read()?);
        self.totals.merge(&contents.totals());
        for (key, totals) in &contents.rollups {
            self.rollups.merge_key(key, totals);
            // Of records that are gone the totals are all there is.
            if postings::of_rollup(key, totals, &mut self.postings).is_none() {
                return Err(roll.damage("a rollup of it cannot be read").into());
            }
        }
        self.once.extend(contents.counted);
        for id in &contents.closed {
            self.open.remove(id);
        }
        self.open.extend(contents.opened.iter().map(|opening| opening.id));
        self.records = self.records.saturating_add(header.records);
        self.rolled = self.rolled.saturating_add(header.records);
        self.reservations = self.reservations.saturating_add(header.reservations);
        self.facts = self.facts.saturating_add(header.facts);
        self.last_sequence = header.last_sequence;
        Ok(())
    }

    fn add(&mut self, sequence: u64, fact: Fact) -> Result<(), &'static str> {
        if sequence != self.last_sequence.saturating_add(1) {
            return Err("it does not follow in sequence");
        }
        self.last_sequence = sequence;
        let decoded = match fact {
            Fact::Usage(decoded) => decoded,
            Fact::Finance { count } => {
                self.facts = self.facts.saturating_add(count);
                self.last_sequence = sequence.saturating_add(count).saturating_sub(1);
                return Ok(());
            }
            Fact::Reservation(opening) => {
                self.reservations = self.reservations.saturating_add(1);
                let is_new = self.open.insert(opening.id);
                return if is_new { Ok(()) } else { Err("an exchange is opened twice") };
            }
        };
        let counts = match settle::counting(&decoded.record) {
            Counting::Yes => true,
            Counting::No => false,
            Counting::Once(key) => self.once.insert(key),
        };
        if counts != decoded.counted {
            return Err("whether it counts is not what the rule says");
        }
        if let Some(key) = batch::read_back_key(&decoded.record).filter(|key| self.read_back.contains(key)) {
            self.once.insert(key);
        }
        self.open.remove(&decoded.record.id);
        self.records = self.records.saturating_add(1);
        self.totals.add_record(&decoded.record, decoded.counted);
        if decoded.counted && !self.posted.add(&decoded.record) {
            return Err("its postings do not sum to zero");
        }
        self.rollups.add_record(&decoded.record, decoded.counted);
        Ok(())
    }
}

/// Compares row by row. Needs the directory's lock: sled writes even when it reads.
fn check_store(
    dir: &Path,
    ledger: LedgerId,
    position: (u64, Hash),
    Expected { rollups, open, facts }: &Expected<'_>,
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
        Ok(there) if !there.iter().map(AsRef::as_ref).eq(facts.iter()) => {
            return differs("its finance facts are not the journal's".to_owned());
        }
        Ok(_) => {}
    }
    match store.open_exchanges() {
        Err(error) => return differs(error.to_string()),
        Ok(kept) if kept.len() != open.len() || kept.iter().any(|opening| !open.contains(&opening.id)) => {
            return differs("it has other open exchanges".to_owned());
        }
        Ok(_) => {}
    }
    match read {
        Err(error) => differs(error.to_string()),
        Ok(()) if wrong == 0 && expected.is_empty() => StoreCheck::Agrees,
        Ok(()) => differs(format!("{wrong} rollups are wrong, {} are missing", expected.len())),
    }
}
