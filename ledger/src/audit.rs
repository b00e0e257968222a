//! Who changed the ledger, and by what: an audit fact beside the facts of each change.
//!
//! Invariants
//! - The audit fact is in the same frame of the journal as what it is about: both are there, or neither.
//!   For a pruning, and for rows of usage, it is there before the first of them.
//! - It names who asked and what was asked, never a secret: its parts are bounded, and nobody hands one in.
//! - What changed nothing leaves none.
//!
//! Not here: who may change what (`bursar`).

use crate::Ledger;
use crate::facts::{FactError, NewFact, dated};
use bursar_domain::{Clock, Fact, FactKind, Label, RequestId, StoredFact, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest part of what an audit fact says.
const PART_BYTES_MAX: usize = 512;

/// On whose behalf a ledger is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Who: the name of a token, or of a user.
    pub who: String,
    /// Over which way: an address, or the command line.
    pub via: String,
    /// What was asked: an operation, or a command.
    pub what: String,
    /// The part of it that names things, such as a path with ids.
    pub about: Option<String>,
}

/// A change of the ledger, as it was noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Its place in the ledger.
    pub sequence: u64,
    /// Names the note.
    pub id: RequestId,
    /// When.
    pub at: Timestamp,
    /// Who and what.
    pub actor: Actor,
    /// How many facts of which kind were recorded with it.
    pub recorded: BTreeMap<String, u64>,
    /// The names of the first of them.
    pub names: Vec<String>,
}

/// Names of facts that a note holds.
const NAMES_MAX: usize = 8;

/// The text of a fact.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Text {
    who: String,
    via: String,
    what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    about: Option<String>,
    #[serde(default)]
    recorded: BTreeMap<String, u64>,
    #[serde(default)]
    names: Vec<String>,
}

fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(PART_BYTES_MAX.min(text.len()));
    text.get(..end).unwrap_or_default().to_owned()
}

impl Actor {
    /// What is noted of a change that records `facts`.
    fn note(&self, facts: &[Fact]) -> NewFact {
        let mut recorded: BTreeMap<String, u64> = BTreeMap::new();
        for fact in facts {
            let count = recorded.entry(fact.kind.name().to_owned()).or_default();
            *count = count.saturating_add(1);
        }
        let named = facts.iter().filter(|fact| fact.kind != FactKind::ImportBatch).take(NAMES_MAX);
        let text = Text {
            who: bounded(&self.who),
            via: bounded(&self.via),
            what: bounded(&self.what),
            about: self.about.as_deref().map(bounded),
            recorded,
            names: named.map(|fact| fact.name.to_string()).collect(),
        };
        let name = Label::lossy(&self.who).unwrap_or_else(|| Label::fixed("nobody"));
        let body = serde_json::to_string(&text).unwrap_or_default();
        NewFact { kind: FactKind::Audit, name, body: body.into() }
    }
}

/// All changes among facts, in the order in which they were made.
#[must_use]
pub fn audited(facts: &[Arc<StoredFact>]) -> Vec<Audited> {
    let notes = facts.iter().filter(|stored| stored.fact.kind == FactKind::Audit);
    let notes = notes.map(|stored| {
        // A later program may say more; what cannot be read at all still tells that, and when.
        let text: Text = serde_json::from_str(&stored.fact.body).unwrap_or_default();
        let Text { who, via, what, about, recorded, names } = text;
        Audited {
            sequence: stored.sequence,
            id: stored.fact.id,
            at: stored.fact.at,
            actor: Actor { who, via, what, about },
            recorded,
            names,
        }
    });
    notes.collect()
}

impl Ledger {
    /// The same ledger, whose changes are noted as this one's.
    #[must_use]
    pub fn on_behalf_of(&self, actor: Actor) -> Self {
        Self { actor: Some(Arc::new(actor)), ..self.clone() }
    }

    /// The facts with the note of who records them.
    pub(crate) fn noted(&self, mut facts: Vec<Fact>) -> Result<Vec<Fact>, FactError> {
        let (Some(actor), Some(last)) = (&self.actor, facts.last()) else { return Ok(facts) };
        let at = At(last.at);
        let note = dated(vec![actor.note(&facts)], &at)?;
        facts.extend(note);
        Ok(facts)
    }

    /// The note of a change that is about to begin, and whose own facts come later.
    pub(crate) fn note_of_beginning(&self, clock: &dyn Clock) -> Result<Vec<Fact>, FactError> {
        match &self.actor {
            Some(actor) => dated(vec![actor.note(&[])], clock),
            None => Ok(Vec::new()),
        }
    }
}

/// A clock that stands.
#[derive(Debug)]
struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewOverride, OfflineLedger, Options, overrides};
    use bursar_domain::{Cost, Currency, SystemClock, UsageRecord};
    use bursar_policies::budget::{Change, Measure};

    fn actor(who: &str) -> Actor {
        Actor {
            who: who.to_owned(),
            via: "127.0.0.1".to_owned(),
            what: "POST /api/v1/budget-overrides".to_owned(),
            about: Some("/api/v1/budget-overrides".to_owned()),
        }
    }

    fn change() -> NewOverride {
        NewOverride {
            budget: Label::new("b").unwrap(),
            measure: Measure::Tokens,
            change: Change::Add(7),
            until: Timestamp::from_micros(1_900_000_000_000_000),
            reason: "launch".to_owned(),
        }
    }

    #[test]
    fn a_change_has_its_note_in_the_ledger_and_after_a_restart_and_what_changed_nothing_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let pricer = || Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
        let (ledger, _) = Ledger::open(Options::new(dir.path()), Arc::new(SystemClock), pricer()).unwrap();
        ledger.record_override(&change(), &SystemClock).unwrap();
        assert_eq!(audited(&ledger.facts()), Vec::new());
        let id = ledger.on_behalf_of(actor("ci")).record_override(&change(), &SystemClock).unwrap();
        assert_eq!(ledger.on_behalf_of(actor("ci")).noted(Vec::new()), Ok(Vec::new()));
        let before = audited(&ledger.facts());
        ledger.close().unwrap();

        let facts = OfflineLedger::open(dir.path()).unwrap().facts().unwrap();
        let facts: Vec<_> = facts.into_iter().map(Arc::new).collect();
        let after = audited(&facts);
        assert_eq!((after.len(), &after), (1, &before));
        assert_eq!((after[0].actor.clone(), after[0].sequence), (actor("ci"), 3));
        assert_eq!(after[0].recorded, BTreeMap::from([("budget_override".to_owned(), 1)]));
        assert_eq!(after[0].names, ["b"]);
        assert_eq!(overrides(&facts).0[1].id, id);
    }

    #[test]
    fn a_note_is_bounded_and_one_that_cannot_be_read_is_told_all_the_same() {
        let long = "é".repeat(4_000);
        let wordy = Actor { who: long.clone(), via: long.clone(), what: long.clone(), about: Some(long) };
        assert!(wordy.note(&[]).body.len() < 4 * (PART_BYTES_MAX + 20));
        let fact = Fact {
            id: RequestId::from_bits(9),
            at: Timestamp::from_micros(1),
            kind: FactKind::Audit,
            name: Label::fixed("x"),
            body: "{}".into(),
        };
        let found = audited(&[Arc::new(StoredFact { sequence: 4, fact })]);
        assert_eq!((found[0].sequence, found[0].actor.who.as_str()), (4, ""));
    }
}
