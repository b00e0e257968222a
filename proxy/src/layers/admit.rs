//! May this request go out: can the ledger record it?
//!
//! Not here: limits and budgets, which want to know the body (`exchange::admission`).

use crate::app::App;
use crate::call::Call;
use crate::config::FailMode;
use crate::failure::{Failure, FailureKind};

/// Lets `call` pass unless usage could not be recorded and the configuration says to fail closed.
///
/// A request that passes then has a place in the ledger's queue until its record is there: any number
/// of requests that are admitted at once, on any worker, find room at their ends.
pub fn admit(app: &App, mut call: Box<Call>) -> Result<Box<Call>, Failure> {
    if app.config().ledger.fail == FailMode::Open {
        return Ok(call);
    }
    match app.ledger.reserve() {
        Ok(place) => {
            call.place = Some(place);
            Ok(call)
        }
        Err(shortage) => {
            let kind = FailureKind::LedgerClosed { reason: shortage.to_string() };
            Err(Failure { kind, dialect: call.error_dialect(), request: Some(call.id) })
        }
    }
}
