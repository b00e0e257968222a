//! Which addresses the sidecar may call by itself: none of this machine and none of a private network,
//! unless that is allowed.
//!
//! Invariants
//! - What is checked is the address that a connection is made to, after names were resolved; so a name that
//!   resolves to something else the next time gains nothing.
//! - What is not known to be public is not.
//! - Without TLS only addresses are called that were allowed by name.
//!
//! The ranges are those of IANA's special-purpose registries (RFC 6890 and what followed it).
//!
//! Not here: making connections (`upstream::connect`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `address` is anywhere on the internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match a {
        // This network, and what routers take for this machine; private; this machine.
        0 | 10 | 127 => true,
        // Shared by carriers (RFC 6598).
        100 => (64..128).contains(&b),
        // Link-local, where clouds tell credentials.
        169 => b == 254,
        172 => (16..32).contains(&b),
        // Protocol assignments, documentation, 6to4 relays, private.
        192 => matches!((b, c), (0, 0 | 2) | (88, 99) | (168, _)),
        // Benchmarks, documentation.
        198 => matches!((b, c), (18 | 19, _) | (51, 100)),
        203 => (b, c) == (0, 113),
        // Multicast, reserved, broadcast.
        _ => a >= 224,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, high, low] = address.segments();
    match (a, b, c, d, e, f) {
        // An IPv4 address in other clothes is what that is: mapped, and by NAT64 (RFC 6052), which some
        // networks reach all of IPv4 through.
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => {
            let [[w, x], [y, z]] = [high.to_be_bytes(), low.to_be_bytes()];
            return is_public_v4(Ipv4Addr::new(w, x, y, z));
        }
        _ => {}
    }
    // All that is given out so far is below 2000::/3.
    let is_given_out = a & 0xe000 == 0x2000;
    let is_special = match a {
        // Teredo and other assignments, documentation.
        0x2001 => b < 0x200 || b == 0xdb8,
        // 6to4.
        0x2002 => true,
        // Documentation (RFC 9637).
        0x3fff => b < 0x1000,
        _ => false,
    };
    is_given_out && !is_special
}

/// A network: an address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, or one address. `None` for what is neither, and for an address with bits beyond
    /// the network.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        // One in other clothes would never be found.
        let address: IpAddr =
            address.parse().ok().filter(|address: &IpAddr| address.to_canonical() == *address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(text) => text.parse::<u8>().ok().filter(|bits| *bits <= most)?,
        };
        let network = Self { address, bits };
        (network.first_bits(address) == Some(number(address))).then_some(network)
    }

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.address.is_ipv4() == address.is_ipv4() && self.first_bits(address) == Some(number(self.address))
    }

    /// The bits of `address` that count, the others zero.
    fn first_bits(&self, address: IpAddr) -> Option<u128> {
        let width: u32 = if address.is_ipv4() { 32 } else { 128 };
        let beyond = width.checked_sub(u32::from(self.bits))?;
        // All of 128 bits cannot be shifted away.
        Some(number(address).checked_shr(beyond).unwrap_or(0).checked_shl(beyond).unwrap_or(0))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Where a call of the sidecar's own may go: to the internet over TLS, and to networks that were named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    named: Vec<Network>,
}

/// Why an address is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPermitted {
    /// It is on this machine, on a private network, or for special purposes.
    #[error("{0} is no public address, and allow_private does not name it")]
    Private(IpAddr),
    /// It is public, and there is no TLS.
    #[error("{0} is a public address, and the URL is plain http")]
    Plain(IpAddr),
    /// The name has no address.
    #[error("the name has no address")]
    Nowhere,
}

impl Permit {
    /// The internet, and these networks.
    #[must_use]
    pub const fn new(named: Vec<Network>) -> Self {
        Self { named }
    }

    /// The networks.
    #[must_use]
    pub fn named(&self) -> &[Network] {
        &self.named
    }

    /// Whether `address` may be called, over TLS or without.
    pub fn check(&self, address: IpAddr, is_secure: bool) -> Result<(), NotPermitted> {
        if self.named.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        match (is_public(address), is_secure) {
            (true, true) => Ok(()),
            (true, false) => Err(NotPermitted::Plain(address)),
            (false, _) => Err(NotPermitted::Private(address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixty addresses that may not be called, and neighbours of theirs that may.
    const REFUSED: [&str; 60] = [
        "127.0.0.1",
        "127.0.0.2",
        "127.255.255.254",
        "0.0.0.0",
        "0.0.0.1",
        "0.255.255.255",
        "10.0.0.0",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.0",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.255.255",
        "172.16.0.0",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.170",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.0",
        "192.168.0.1",
        "192.168.255.255",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:192.168.1.1",
        "::ffff:100.64.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:10::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "5f00::1",
    ];
    const TAKEN: [&str; 18] = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2606:4700::1111",
        "2a00:1450:4001::1",
    ];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn sixty_addresses_that_are_not_public_are_told_from_their_neighbours() {
        let nobody = Permit::default();
        for text in REFUSED {
            for secure in [true, false] {
                let refused = Err(NotPermitted::Private(ip(text)));
                assert_eq!(nobody.check(ip(text), secure), refused, "{text}");
            }
        }
        for text in TAKEN {
            assert_eq!(nobody.check(ip(text), true), Ok(()), "{text}");
            assert_eq!(nobody.check(ip(text), false), Err(NotPermitted::Plain(ip(text))), "{text}");
        }
    }

    #[test]
    fn what_is_named_may_be_called_and_its_neighbours_not() {
        let named = ["127.0.0.1", "10.20.0.0/16", "fd00::/8"].map(|text| Network::read(text).unwrap());
        let permit = Permit::new(named.to_vec());
        for text in ["127.0.0.1", "::ffff:127.0.0.1", "10.20.0.0", "10.20.255.255", "fd12::1"] {
            assert_eq!(permit.check(ip(text), false), Ok(()), "{text}");
        }
        for text in ["127.0.0.2", "10.21.0.0", "10.19.255.255", "fc00::1", "::1", "169.254.169.254"] {
            assert_eq!(permit.check(ip(text), true), Err(NotPermitted::Private(ip(text))), "{text}");
        }
    }

    #[test]
    fn networks_are_read_as_they_are_usually_written() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("::1", "::1/128"),
            ("fd00::/8", "fd00::/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(Network::read(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::/129",
            "10/8",
            "localhost",
            "10.0.0.0/-1",
            "1.2.3.4/",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(Network::read(text), None, "{text}");
        }
        let all = Network::read("0.0.0.0/0").unwrap();
        assert!(
            all.contains(ip("255.1.2.3")) && all.contains(ip("::ffff:1.2.3.4")) && !all.contains(ip("::1"))
        );
    }
}
