//! The ledger's own figures on the metrics page, read when it is scraped.
//!
//! Not here: what they mean (`ledger::Stats`).

use bursar_ledger::{Health, Stats};

/// The lines of the page.
#[must_use]
pub(super) fn render(stats: &Stats) -> String {
    let healthy = u64::from(stats.health == Health::Healthy);
    let gauges = [
        ("ledger_healthy", "1 when the ledger takes records", healthy),
        ("ledger_last_sequence", "Sequence of the last acknowledged record", stats.last_sequence),
        ("ledger_queue_entries", "Records that wait for the writer", stats.queue_entries as u64),
        ("ledger_queue_entries_max", "Most records that may wait", stats.queue_entries_max as u64),
        ("ledger_last_commit_microseconds", "How long the last group commit took", stats.last_commit_us),
        ("ledger_journal_bytes", "Size of the journal", stats.journal_bytes),
        ("ledger_bytes", "Size of all files in the data directory", stats.data_bytes),
        ("ledger_segments", "Segments of the journal", stats.segments),
        ("ledger_open", "Exchanges under way that are in the journal", stats.open),
    ];
    let counters = [
        ("ledger_appended", "Records handed to the ledger", stats.appended),
        ("ledger_acknowledged", "Records that are durable by the configured durability", stats.acknowledged),
        ("ledger_repeated", "Records that were there already", stats.repeated),
        ("ledger_conflicting", "Records that repeated an id with other content", stats.conflicting),
        ("ledger_dropped", "Records that were queued and could not be written", stats.dropped),
        ("ledger_frames", "Group commits", stats.frames),
        (
            "ledger_openings_shed",
            "Exchanges not written down before they were sent, for want of room",
            stats.openings_shed,
        ),
        (
            "ledger_provider_cost_differs",
            "Records whose provider charged more than 5 % off their list cost",
            stats.provider_cost_differs,
        ),
    ];
    let mut page = String::new();
    let bound = stats.bytes_max.map(|most| ("ledger_bytes_max", "Most that ledger_bytes may be", most));
    for (name, help, value) in gauges.into_iter().chain(bound) {
        page.push_str(&format!(
            "# HELP bursar_{name} {help}.\n# TYPE bursar_{name} gauge\nbursar_{name} {value}\n"
        ));
    }
    for (name, help, value) in counters {
        page.push_str(&format!(
            "# HELP bursar_{name} {help}.\n# TYPE bursar_{name} counter\nbursar_{name}_total {value}\n"
        ));
    }
    page
}
