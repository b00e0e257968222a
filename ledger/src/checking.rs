//! Whether the rows of the store are known to be what was written: they are checked on a thread of their own
//! after the ledger is open, so that requests need not wait for it.
//!
//! Invariants
//! - Until the check is over no row that it covers is answered from, and none is changed: whoever wants one
//!   waits. What opening reads itself (finance facts, exchanges that are open) was checked by then.
//! - A store whose rows are not right is set aside and built anew from the journal before anybody reads it.
//!   Totals of what comes meanwhile wait in memory and are added afterwards.
//! - The wait ends, however the thread does.
//!
//! Not here: what is compared (`store`), the building (`open`).

use crate::journal::View;
use crate::open::{self, StoreState};
use crate::store::StoreError;
use crate::writer::Shared;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Whether the check is over.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Readable without the lock.
    is_over: AtomicBool,
    over: Mutex<bool>,
    told: Condvar,
}

impl Default for Checked {
    /// There is nothing to check.
    fn default() -> Self {
        Self { is_over: AtomicBool::new(true), over: Mutex::new(true), told: Condvar::new() }
    }
}

impl Checked {
    /// Whether the rows may be used.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Waits until they may be.
    pub(crate) fn wait(&self) {
        if self.is_over() {
            return;
        }
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            over = self.told.wait(over).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn begin(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.is_over.store(false, Ordering::Release);
    }

    fn end(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.is_over.store(true, Ordering::Release);
        self.told.notify_all();
    }
}

/// Ends the wait when it is dropped.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.checked.end();
    }
}

/// Checks the store's rows, beside everything else. `view` is the journal that the store was opened on.
pub(crate) fn start(shared: &Arc<Shared>, dir: PathBuf, view: View) -> io::Result<JoinHandle<()>> {
    shared.checked.begin();
    let ends = Ends(shared.clone());
    std::thread::Builder::new().name("bursar-check".to_owned()).spawn(move || {
        let shared = &ends.0;
        if let Err(error) = shared.check_store() {
            build_anew(shared, &dir, &view, &error);
        }
    })
}

fn build_anew(shared: &Shared, dir: &std::path::Path, view: &View, error: &StoreError) {
    shared.take_store_out();
    match open::rebuild(dir, view, None, error.to_string(), 0) {
        Ok((Some(store), _, _)) => {
            shared.put_store_in(store);
            tracing::info!("the embedded database is right again");
        }
        Ok((None, StoreState::Unavailable { reason }, _)) => shared.do_without_store(&reason),
        Ok((None, ..)) => shared.do_without_store(&error.to_string()),
        Err(reading) => shared.do_without_store(&format!("{error}; then {reading}")),
    }
}

#[cfg(test)]
mod tests;
