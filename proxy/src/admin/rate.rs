//! How often one may ask: a rate for each token, and for each address of those without one.
//!
//! Invariants
//! - What is remembered is bounded: addresses that have been quiet are forgotten, and when all are busy the
//!   rest share one account.
//! - A caller that was quiet for a minute may ask a minute's worth at once.
//!
//! Not here: who a caller is (`access`).

use bursar_domain::Label;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Most callers that are remembered.
const CALLERS_MAX: usize = 4_096;
const MINUTE: Duration = Duration::from_secs(60);

/// Whose account it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Account {
    /// A token's.
    Token(Label),
    /// An address's; of IPv6 the network of 64 bits, which is one machine's.
    Address(IpAddr),
    /// All that find no room.
    Others,
}

impl Account {
    pub(super) fn of(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            address => address,
        })
    }
}

/// When each caller has used up what it asked (the generic cell rate algorithm).
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<Account, Instant>>);

impl Rates {
    /// Counts a request; the error says after how long another one fits.
    pub(super) fn take(&self, account: Account, per_minute: u32, now: Instant) -> Result<(), Duration> {
        let cost = MINUTE / per_minute.max(1);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let account =
            if known.contains_key(&account) || has_room(&mut known, now) { account } else { Account::Others };
        let used = known.get(&account).copied().unwrap_or(now).max(now);
        let after = used + cost;
        let wait = after.saturating_duration_since(now).saturating_sub(MINUTE);
        if wait.is_zero() {
            known.insert(account, after);
            Ok(())
        } else {
            Err(wait)
        }
    }
}

/// Whether one more can be remembered; forgets those that are quiet.
fn has_room(known: &mut HashMap<Account, Instant>, now: Instant) -> bool {
    if known.len() >= CALLERS_MAX {
        known.retain(|_, used| *used > now);
    }
    known.len() < CALLERS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> Account {
        Account::of(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_minutes_worth_passes_at_once_and_then_one_at_a_time() {
        let (rates, now) = (Rates::default(), Instant::now());
        for _ in 0..60 {
            assert_eq!(rates.take(address(1), 60, now), Ok(()));
        }
        assert_eq!(rates.take(address(1), 60, now), Err(Duration::from_secs(1)));
        assert_eq!(rates.take(address(2), 60, now), Ok(()));
        let later = now + Duration::from_secs(1);
        assert_eq!(rates.take(address(1), 60, later), Ok(()));
        assert_eq!(rates.take(address(1), 60, later), Err(Duration::from_secs(1)));
        assert_eq!(rates.take(Account::Token(Label::fixed("ci")), 60, now), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_those_without_room_share_an_account() {
        let (rates, now) = (Rates::default(), Instant::now());
        for number in 0..20_000 {
            let _ = rates.take(address(number), 60, now);
        }
        assert!(rates.0.lock().unwrap().len() <= CALLERS_MAX + 1);
        assert!(rates.take(address(30_000), 60, now).is_err());
        let later = now + Duration::from_secs(600);
        assert_eq!(rates.take(address(30_000), 60, later), Ok(()));
        assert!(rates.0.lock().unwrap().len() < 3);
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller_and_a_mapped_address_is_what_it_maps() {
        let of = |text: &str| Account::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:3:4"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
