//! Keeps budgets on contracts near the truth: looks at the ledger when contracts changed, and every few
//! seconds while they are drawn.
//!
//! Invariants
//! - One look at a time, in a thread that may block; most of the time nobody looks.
//!
//! Not here: what a look does (`budgets::contracts`).

use crate::app::App;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is asked whether a look would tell more.
const EVERY: Duration = Duration::from_secs(10);
/// Looking takes at most one part in so many of the time.
const REST: u32 = 20;

/// Looks at the ledger now. Blocks.
pub(crate) fn look(app: &App) {
    if !app.budgets.have_contracts() {
        return;
    }
    match app.budgets.look_at_contracts(&app.ledger, &app.prices, app.now()) {
        Ok(said) => said.iter().for_each(|line| tracing::warn!("{line}")),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "budgets on contracts go on with what was known");
        }
    }
}

/// Looks again and again, as long as anybody waits for it.
pub(super) async fn keep_looking(app: Arc<App>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if app.budgets.want_a_look() {
            let (began, app) = (Instant::now(), Arc::clone(&app));
            let _ = super::reports::blocking(move || look(&app)).await;
            tokio::time::sleep(began.elapsed().saturating_mul(REST)).await;
        }
    }
}
