//! Request ids: UUIDv7 from the system's random numbers, fetched in blocks.
//!
//! Not here: the layout of an id (`domain::ids`).

use bursar_domain::{RequestId, Timestamp};
use std::cell::RefCell;

const BLOCK: usize = 64;

/// Makes the request ids of one worker.
#[derive(Debug, Default)]
pub(crate) struct IdSource {
    random: RefCell<Vec<u128>>,
}

impl IdSource {
    /// The next id.
    pub(crate) fn next(&self, now: Timestamp) -> RequestId {
        let mut random = self.random.borrow_mut();
        let bits = match random.pop() {
            Some(bits) => bits,
            None => {
                *random = block();
                random.pop().unwrap_or_default()
            }
        };
        RequestId::new(now, bits)
    }
}

fn block() -> Vec<u128> {
    let mut bytes = [0_u8; BLOCK * 16];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // Without randomness ids could repeat, and a repeated id is a lost record.
        tracing::error!(%error, "the system has no random numbers");
    }
    bytes.as_chunks::<16>().0.iter().map(|chunk| u128::from_le_bytes(*chunk)).collect()
}
