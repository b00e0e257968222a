//! How many connections each client has open, so that one cannot take the places of all the others.
//!
//! Invariants
//! - A client is an IPv4 address, however it is written, or an IPv6 network of 64 bits: whoever has one
//!   address of such a network has all of them.
//! - Clients on this machine are not counted: beside a sidecar they all have the same address.
//! - Only clients with a connection are remembered, so there are never more of them than connections.
//! - A place is free again when it is dropped, whatever ended its connection.
//!
//! Not here: how many connections there may be in all (`worker`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bits of an IPv6 address that tell clients apart.
const NETWORK_BITS: u32 = 64;

/// Clients with connections of any worker. Asked once per connection, never per request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients(Arc<Mutex<HashMap<Client, usize>>>);

/// Whom a connection counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client(IpAddr);

/// A connection's place among those of its client.
#[derive(Debug)]
pub(crate) struct Place {
    clients: Clients,
    client: Option<Client>,
}

impl Client {
    /// Whom connections from `address` count for; nobody, if it is of this machine.
    fn of(address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return None;
        }
        Some(Self(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(NETWORK_BITS).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !host))
            }
        }))
    }
}

impl Clients {
    /// A place for one more connection from `address`; none where its client has `most` already.
    #[must_use]
    pub(crate) fn place(&self, address: IpAddr, most: usize) -> Option<Place> {
        let client = Client::of(address);
        if let Some(client) = client {
            let mut open = self.open();
            // Nothing is remembered of a client that gets no place.
            let count = open.get(&client).copied().unwrap_or(0);
            if count >= most {
                return None;
            }
            open.insert(client, count.saturating_add(1));
        }
        Some(Place { clients: self.clone(), client })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Client, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(client) = self.client else { return };
        let mut open = self.clients.open();
        if let Some(count) = open.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether connections from these two addresses count for the same client.
    fn check(one: &str, other: &str, same: bool) {
        let [one, other] = [one, other].map(|text| Client::of(text.parse().unwrap()).unwrap());
        assert_eq!(one == other, same, "{one:?} and {other:?}");
    }

    #[test]
    fn an_ipv4_address_however_written_and_an_ipv6_network_of_64_bits_are_one_client() {
        check("203.0.113.7", "203.0.113.7", true);
        check("203.0.113.7", "::ffff:203.0.113.7", true);
        check("203.0.113.7", "203.0.113.8", false);
        check("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true);
        check("2001:db8:1:2::1", "2001:db8:1:3::1", false);
        check("fe80::1", "fe80::2", true);
        check("203.0.113.7", "2001:db8::203.0.113.7", false);
    }

    #[test]
    fn this_machine_has_as_many_places_as_it_likes_and_nothing_is_remembered_of_it() {
        let clients = Clients::default();
        let here = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"];
        let places: Vec<_> = here.map(|text| clients.place(text.parse().unwrap(), 0).unwrap()).into();
        assert!(clients.open().is_empty());
        drop(places);
        assert!(clients.open().is_empty());
    }

    #[test]
    fn a_client_gets_its_places_and_no_more_and_another_ones_are_its_own() {
        let clients = Clients::default();
        let [one, other] = ["203.0.113.7", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let mut places: Vec<_> = (0..3).map(|_| clients.place(one, 3).unwrap()).collect();
        assert!(clients.place(one, 3).is_none());
        places.push(clients.place(other, 3).unwrap());
        assert_eq!(clients.open().len(), 2);
        places.remove(0);
        places.push(clients.place(one, 3).unwrap());
        assert!(clients.place(one, 3).is_none(), "one came back, one was given");
        drop(places);
        assert!(clients.open().is_empty(), "nothing is remembered of who has no connection");
    }

    #[test]
    fn clients_that_get_no_place_are_not_remembered() {
        let clients = Clients::default();
        for last in 0..=255 {
            assert!(clients.place([203, 0, 113, last].into(), 0).is_none());
        }
        assert!(clients.open().is_empty());
    }

    #[test]
    fn places_taken_and_left_by_many_threads_at_once_are_counted_to_the_last() {
        let clients = Clients::default();
        let one: IpAddr = "203.0.113.7".parse().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let place = clients.place(one, 4);
                        assert!(clients.open().values().all(|count| *count <= 4));
                        drop(place);
                    }
                });
            }
        });
        assert!(clients.open().is_empty());
    }
}
