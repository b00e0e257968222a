//! Who changed the ledger, as a document: one for the API and the command.
//!
//! Not here: how it is kept (`ledger::audit`).

use crate::hedge::AskError;
use crate::period;
use crate::report::rfc3339;
use bursar_domain::Timestamp;
use bursar_ledger::audited;
use bursar_ledger::hedge::HedgeSource;
use serde::Deserialize;
use serde_json::{Value, json};

/// Which changes are listed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// At or after this.
    pub(crate) from: Option<String>,
    /// And before this.
    pub(crate) to: Option<String>,
    /// Whose days; UTC when absent.
    pub(crate) tz: Option<String>,
    /// Only this one's.
    pub(crate) who: Option<String>,
}

/// The changes, in the order in which they were made.
pub(crate) fn document(
    source: &dyn HedgeSource,
    options: &Options,
    now: Timestamp,
) -> Result<Value, AskError> {
    let zone = options.tz.as_deref().unwrap_or("UTC");
    let asked = period::parse(options.from.as_deref(), options.to.as_deref(), zone, now, period::PARAMETERS);
    let asked = asked.map_err(|error| AskError::Wrong(error.to_string()))?;
    let changes = audited(&source.finance_facts()?).into_iter();
    let inside = changes.filter(|change| {
        asked.from.is_none_or(|from| from <= change.at)
            && asked.to.is_none_or(|to| change.at < to)
            && options.who.as_ref().is_none_or(|who| *who == change.actor.who)
    });
    let rows = inside.map(|change| {
        json!({
            "sequence": change.sequence,
            "id": change.id.to_string(),
            "at": rfc3339(change.at),
            "who": change.actor.who,
            "via": change.actor.via,
            "what": change.actor.what,
            "about": change.actor.about,
            "recorded": change.recorded,
            "names": change.names,
        })
    });
    Ok(json!({ "rows": rows.collect::<Vec<_>>() }))
}
