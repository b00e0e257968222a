//! May this request go out? Today: can the ledger record it. Budgets and limits will stand here.
//!
//! Not here: the decision rules themselves (`bursar_policies`).

use crate::app::App;
use crate::call::Call;
use crate::config::FailMode;
use crate::failure::{Failure, FailureKind};

/// Lets `call` pass unless usage could not be recorded and the configuration says to fail closed.
pub fn admit(app: &App, call: Box<Call>) -> Result<Box<Call>, Failure> {
    if app.config.ledger.fail == FailMode::Closed
        && let Some(reason) = app.ledger_shortage()
    {
        let kind = FailureKind::LedgerClosed { reason };
        return Err(Failure { kind, dialect: call.error_dialect(), request: Some(call.id) });
    }
    Ok(call)
}
