//! Repair: gets out of a damaged ledger what is whole, into a new one, and says exactly what is gone.
//!
//! Every frame whose checksums are right is taken, wherever it lies in its file, and from a damaged roll
//! every section whose checksum is right. The records get new sequences and a new chain, under a new
//! ledger's id: the result is a whole ledger, and no other program can take it for the old one.
//!
//! Invariants
//! - The damaged ledger is only read.
//! - No record is made up, and none of a whole frame is left out, unless its id is there already.
//! - Whether a record counts is decided anew, since the one that counted before it may be gone. A record
//!   that counts now and did not before has no cost: nobody priced it.
//! - What is gone is told by old sequences and by the times between which it began, and kept in the new
//!   ledger as a checkpoint.
//!
//! Not here: whole ledgers (`verify`, `backup`), frames cut off at the end (`open`).

mod sources;

use crate::backup::{partial_of, sync_dir};
use crate::codec::{Encoder, Fact as Item, FrameDecoder, Mark};
use crate::disk::{self, RealDisk};
use crate::guard::{self, DirectoryError};
use crate::journal::roll::{Contents, NewRoll, RollHeader, Rolled, assemble, roll_path};
use crate::journal::{Frame, Journal, Place, Promise};
use crate::open::{OpenError, new_ledger_id};
use crate::retention::checkpoint;
use crate::settle::{self, Counting};
use crate::verify::{Verified, VerifyError, verify};
use bursar_domain::{Clock, Fact, FactKind, Label, LedgerId, RequestId, StoredFact, Timestamp};
use serde_json::{Value, json};
use sources::{Piece, Sources};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SEGMENT_BYTES: u64 = 64 << 20;
const FRAME_BYTES: usize = 1 << 20;
/// Most ranges that are told one by one.
const GAPS_MAX: usize = 10_000;

/// Sequences that are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first.
    pub first_sequence: u64,
    /// The last, where anything tells it.
    pub last_sequence: Option<u64>,
    /// A record that is there and stands before them began then.
    pub after: Option<Timestamp>,
    /// A record that is there and stands behind them began then.
    pub before: Option<Timestamp>,
}

/// A place where the chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// Number of the segment.
    pub segment: u64,
    /// Byte in it.
    pub offset: u64,
    /// The next sequence that is whole, where there is one.
    pub sequence: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What was found and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The damaged ledger's id, where anything tells it.
    pub from: Option<LedgerId>,
    /// The new ledger.
    pub path: PathBuf,
    /// What was found in it afterwards.
    pub verified: Verified,
    /// Usage records that are in the new ledger one by one.
    pub records: u64,
    /// Records that were there twice.
    pub repeated: u64,
    /// Records that count now and did not before, and so have no cost.
    pub count_now: u64,
    /// What is gone.
    pub gaps: Vec<Gap>,
    /// Gaps that are not in the list for want of room.
    pub more_gaps: u64,
    /// Where the chain broke.
    pub breaks: Vec<Break>,
}

impl Repaired {
    /// Whether anything is gone.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        !self.gaps.is_empty() || self.more_gaps > 0
    }
}

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Something is there already.
    #[error("{} is there already: name a directory that is not", path.display())]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A newer program wrote it.
    #[error("{} was written by a newer version: repair it with that one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// No random numbers for the new ledger's id.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file could not be read or written.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Something is too large to be written again.
    #[error("what follows sequence {sequence} cannot be written again: it is too large")]
    TooLarge {
        /// The old sequence.
        sequence: u64,
    },
    /// The result is not whole: a defect. It was not put in place.
    #[error("the repaired ledger is not whole, and was not put in place: this is a defect")]
    NotWhole(#[source] Box<VerifyError>),
}

fn io_error(operation: &'static str, path: &Path, source: io::Error) -> RepairError {
    RepairError::Io { operation, path: path.to_owned(), source }
}

/// Gets what is whole out of the ledger in `dir`, which no process may be using, into a new one in `target`.
pub fn repair(dir: &Path, target: &Path, clock: &dyn Clock) -> Result<Repaired, RepairError> {
    if target.exists() {
        return Err(RepairError::TargetExists { path: target.to_owned() });
    }
    let _lock = guard::claim_offline(dir)?;
    let journal = dir.join("journal");
    if !journal.is_dir() {
        return Err(DirectoryError::NoLedger { path: dir.to_owned() }.into());
    }
    let partial = partial_of(target);
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(|e| io_error("remove", &partial, e))?;
    }
    let new_journal = partial.join("journal");
    disk::create_private_dir(&new_journal).map_err(|e| io_error("make", &new_journal, e))?;

    let mut sources = Sources::list(&journal)?;
    let mut work = Work::begin(&new_journal, clock)?;
    while let Some(piece) = sources.next_piece()? {
        work.take(piece)?;
    }
    work.old_ledger = sources.ledger;
    let known = sources::known_to_store(dir, &partial, sources.ledger);
    work.end(sources.last_told.max(known))?;
    let found = std::mem::take(&mut work.found);
    drop(work);
    let verified = verify(&partial).map_err(|error| RepairError::NotWhole(Box::new(error)))?;
    sync_dir(&new_journal)
        .and_then(|()| std::fs::rename(&partial, target))
        .and_then(|()| {
            sync_dir(target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))
        })
        .map_err(|source| io_error("put in place", target, source))?;
    Ok(Repaired {
        from: sources.ledger,
        path: target.to_owned(),
        verified,
        records: found.records,
        repeated: found.repeated,
        count_now: found.count_now,
        gaps: found.gaps,
        more_gaps: found.more_gaps,
        breaks: sources.breaks,
    })
}

#[derive(Debug, Default)]
struct Findings {
    records: u64,
    repeated: u64,
    count_now: u64,
    gaps: Vec<Gap>,
    more_gaps: u64,
}

/// The new ledger in the making.
struct Work<'a> {
    clock: &'a dyn Clock,
    ledger: LedgerId,
    dir: PathBuf,
    /// Made when the first record that is kept comes; rolls come before it.
    journal: Option<Journal>,
    rolled: Vec<Rolled>,
    old_ledger: Option<LedgerId>,
    encoder: Encoder,
    frame: Frame,
    /// The next old sequence.
    next: u64,
    /// When what was taken last began.
    last_began: Option<Timestamp>,
    ids: HashSet<RequestId>,
    /// Exchanges whose opening was taken, and those that have their record.
    opened: HashSet<RequestId>,
    once: HashSet<Box<[u8]>>,
    /// Old sequence, new sequence: after which of the old ones which of the new ones stand.
    moved: Vec<(u64, u64)>,
    found: Findings,
}

impl<'a> Work<'a> {
    fn begin(dir: &Path, clock: &'a dyn Clock) -> Result<Self, RepairError> {
        Ok(Self {
            clock,
            ledger: new_ledger_id(clock.now())?,
            dir: dir.to_owned(),
            journal: None,
            rolled: Vec::new(),
            old_ledger: None,
            encoder: Encoder::default(),
            frame: Frame::default(),
            next: 1,
            last_began: None,
            ids: HashSet::new(),
            opened: HashSet::new(),
            once: HashSet::new(),
            moved: Vec::new(),
            found: Findings::default(),
        })
    }

    fn take(&mut self, piece: Piece) -> Result<(), RepairError> {
        match piece {
            Piece::Frame { head, payload } => {
                let (first, last) = (head.first_sequence, head.last_sequence());
                if last < self.next {
                    // Written again after a failed write, and taken already.
                    return Ok(());
                }
                self.gap_before(first, Some(sources::began(&head, &payload)));
                self.next = last.saturating_add(1);
                let facts = crate::codec::facts(&head, &payload).unwrap_or_default();
                if crate::codec::has_facts(&head) {
                    return self.take_facts(facts);
                }
                self.take_frame(FrameDecoder::new(&head, payload), first)
            }
            Piece::Roll { header, contents, is_damaged } => {
                self.take_roll(header.map(|header| *header), *contents, is_damaged)
            }
        }
    }

    /// Notes what is missing between what was taken last and `first`.
    fn gap_before(&mut self, first: u64, began: Option<Option<Timestamp>>) {
        if first > self.next {
            let before = began.flatten();
            self.gap(self.next, Some(first.saturating_sub(1)), before);
        }
        if let Some(Some(began)) = began {
            self.last_began = Some(began);
        }
    }

    fn gap(&mut self, first_sequence: u64, last_sequence: Option<u64>, before: Option<Timestamp>) {
        if self.found.gaps.len() >= GAPS_MAX {
            self.found.more_gaps = self.found.more_gaps.saturating_add(1);
            return;
        }
        let after = self.last_began;
        self.found.gaps.push(Gap { first_sequence, last_sequence, after, before });
    }

    fn journal(&mut self) -> Result<&mut Journal, RepairError> {
        if self.journal.is_none() {
            let place =
                Place { disk: Arc::new(RealDisk), dir: self.dir.clone(), segment_bytes: SEGMENT_BYTES };
            let rolled = self.rolled.clone();
            let journal = Journal::create_after(place, self.ledger, rolled, self.clock.now());
            self.journal =
                Some(journal.map_err(|error| io_error(error.operation, &error.path, error.source))?);
        }
        self.journal.as_mut().ok_or(RepairError::TooLarge { sequence: self.next })
    }

    /// The last sequence of the new ledger, with what is gathered.
    fn last_new(&mut self) -> Result<u64, RepairError> {
        let gathered = u64::from(self.encoder.count());
        Ok(self.journal()?.last_sequence().saturating_add(gathered))
    }

    fn take_frame(
        &mut self,
        decoder: Result<FrameDecoder, crate::DecodeError>,
        first: u64,
    ) -> Result<(), RepairError> {
        // Whole frames were decoded when they were found.
        let Ok(mut decoder) = decoder else { return Ok(()) };
        let too_large = |_| RepairError::TooLarge { sequence: first };
        let marks = decoder.take_marks();
        while let Some(Ok(item)) = decoder.next_fact() {
            match item {
                Item::Finance { .. } => {}
                Item::Reservation(opening) => {
                    let is_new = !self.ids.contains(&opening.id) && self.opened.insert(opening.id);
                    if is_new {
                        self.encoder.add_reservation(&opening).map_err(too_large)?;
                    } else {
                        self.found.repeated = self.found.repeated.saturating_add(1);
                    }
                }
                Item::Usage(decoded) => {
                    let mut record = decoded.record;
                    if !self.ids.insert(record.id) {
                        self.found.repeated = self.found.repeated.saturating_add(1);
                        continue;
                    }
                    let counts = match settle::counting(&record) {
                        Counting::Yes => true,
                        Counting::No => false,
                        Counting::Once(key) => self.once.insert(key),
                    };
                    if counts && !decoded.counted {
                        self.found.count_now = self.found.count_now.saturating_add(1);
                    }
                    if !counts {
                        record.cost = None;
                    }
                    self.encoder.add_usage(&record, counts).map_err(too_large)?;
                    self.found.records = self.found.records.saturating_add(1);
                }
            }
        }
        if self.encoder.count() == 0 && !marks.is_empty() {
            return Ok(());
        }
        for mark in marks {
            if let Mark::Counted(key) = &mark {
                self.once.insert(key.clone());
            }
            self.encoder.add_mark(&mark).map_err(too_large)?;
        }
        // Frames stay apart where that is needed: facts have frames of their own.
        if self.encoder.bytes() >= FRAME_BYTES { self.commit(first) } else { Ok(()) }
    }

    fn take_facts(&mut self, facts: Vec<StoredFact>) -> Result<(), RepairError> {
        let first = facts.first().map_or(self.next, |stored| stored.sequence);
        self.commit(first)?;
        for stored in facts {
            let fact = self.moved_fact(stored.fact);
            self.encoder.add_fact(&fact).map_err(|_| RepairError::TooLarge { sequence: stored.sequence })?;
        }
        self.commit(first)
    }

    /// A closed month says up to which sequence it reports: that number is another one now.
    fn moved_fact(&mut self, fact: Fact) -> Fact {
        if fact.kind != FactKind::PeriodClose {
            return fact;
        }
        let Ok(mut body) = serde_json::from_str::<Value>(&fact.body) else { return fact };
        let Some(old) = body.get("sequence").and_then(Value::as_u64) else { return fact };
        let at = self.moved.partition_point(|(from, _)| *from <= old);
        let new = at.checked_sub(1).and_then(|at| self.moved.get(at)).map_or(0, |(_, to)| *to);
        if let Some(object) = body.as_object_mut() {
            object.insert("sequence".to_owned(), Value::from(new));
        }
        Fact { body: body.to_string().into(), ..fact }
    }

    /// Writes what is gathered as one frame.
    fn commit(&mut self, sequence: u64) -> Result<(), RepairError> {
        if self.encoder.count() > 0 {
            let payload = self.encoder.finish(self.frame.begin());
            let payload = payload.map_err(|_| RepairError::TooLarge { sequence })?;
            let now = self.clock.now();
            self.journal()?;
            if let Some(journal) = &mut self.journal {
                journal.finish(&mut self.frame, &payload);
                journal
                    .commit(&self.frame, Promise::Durable, now)
                    .map_err(|error| io_error(error.operation, &error.path, error.source))?;
            }
        }
        self.encoder.clear();
        let new = self.last_new()?;
        self.moved.push((self.next.saturating_sub(1), new));
        Ok(())
    }

    /// A roll is written again, with what is whole of it.
    fn take_roll(
        &mut self,
        old: Option<RollHeader>,
        mut contents: Contents,
        is_damaged: bool,
    ) -> Result<(), RepairError> {
        if let Some(header) = &old {
            let began = Timestamp::from_micros(header.ranges.started_min);
            self.gap_before(header.first_sequence, Some(Some(began)));
            self.last_began = Some(Timestamp::from_micros(header.ranges.started_max));
            if is_damaged {
                self.gap(header.first_sequence, Some(header.last_sequence), None);
            }
            self.next = header.last_sequence.saturating_add(1);
        }
        self.once.extend(contents.counted.iter().cloned());
        contents.closed.retain(|id| self.opened.contains(id));
        self.ids.extend(contents.closed.iter().copied());
        contents.opened.retain(|opening| self.opened.insert(opening.id));
        let (first, previous) = match self.rolled.last() {
            None => (1, crate::journal::format::GENESIS),
            Some(last) => (last.header.last_sequence.saturating_add(1), last.header.hash),
        };
        let records = contents.totals().requests;
        let reservations = match (&old, is_damaged) {
            (Some(header), false) => header.reservations,
            _ => contents.opened.len() as u64,
        };
        let count = records.saturating_add(reservations).saturating_add(contents.facts.len() as u64);
        if count == 0 {
            return Ok(());
        }
        let last = first.saturating_add(count).saturating_sub(1);
        for (sequence, stored) in (first..).zip(&mut contents.facts) {
            stored.sequence = sequence;
        }
        let now = self.clock.now();
        let number = (self.rolled.len() as u64).saturating_add(1);
        let old_hash = old.as_ref().map_or([0; 32], |header| header.hash);
        let header = RollHeader {
            ledger: self.ledger,
            number,
            first_sequence: first,
            last_sequence: last,
            previous_hash: previous,
            hash: crate::journal::format::chain(&previous, b"repaired", &old_hash),
            made_at: old.as_ref().map_or(now, |header| header.made_at),
            rolled_at: now,
            ranges: sources::ranges_of(old.as_ref(), &contents),
            records,
            reservations,
            facts: 0,
            opened: 0,
            closed: 0,
            interrupted: 0,
            body_bytes: 0,
            body_hash: [0; 32],
        };
        let roll = assemble(header, &contents).ok_or(RepairError::TooLarge { sequence: self.next })?;
        self.write_roll(roll)?;
        self.moved.push((self.next.saturating_sub(1), last));
        Ok(())
    }

    fn write_roll(&mut self, roll: NewRoll) -> Result<(), RepairError> {
        let path = roll_path(&self.dir, roll.header.number);
        let mut options = std::fs::File::options();
        options.write(true).create_new(true);
        disk::private(&mut options)
            .open(&path)
            .and_then(|mut file| {
                io::Write::write_all(&mut file, &roll.bytes)?;
                file.sync_all()
            })
            .map_err(|source| io_error("write", &path, source))?;
        self.rolled.push(Rolled { header: roll.header, path: Arc::from(path) });
        Ok(())
    }

    /// Writes what is left, and what is gone, which `last_told` tells of the end.
    fn end(&mut self, last_told: u64) -> Result<(), RepairError> {
        let sequence = self.next;
        if last_told >= sequence {
            self.gap(sequence, Some(last_told), None);
        }
        self.commit(sequence)?;
        let from = self.old_ledger.map(|ledger| ledger.to_string());
        let mut facts: Vec<crate::NewFact> =
            self.rolled.iter().map(|roll| checkpoint(roll, from.as_deref())).collect();
        facts.push(self.told());
        let now = self.clock.now();
        for (n, fact) in (0_u128..).zip(facts) {
            let id = RequestId::new(now, self.ledger.bits().wrapping_add(n));
            let fact = Fact { id, at: now, kind: fact.kind, name: fact.name, body: fact.body };
            self.encoder.add_fact(&fact).map_err(|_| RepairError::TooLarge { sequence })?;
        }
        self.commit(sequence)
    }

    /// The new ledger's own word about where it comes from.
    fn told(&self) -> crate::NewFact {
        let gaps = self.found.gaps.iter().take(200);
        let gaps: Vec<Value> = gaps.map(|gap| json!([gap.first_sequence, gap.last_sequence])).collect();
        let body = json!({
            "repaired_from": self.old_ledger.map(|ledger| ledger.to_string()),
            "gone": gaps,
            "ranges_gone": (self.found.gaps.len() as u64).saturating_add(self.found.more_gaps),
        });
        let kind = FactKind::Checkpoint;
        crate::NewFact { kind, name: Label::fixed("repair"), body: body.to_string().into() }
    }
}

#[cfg(test)]
mod tests;
