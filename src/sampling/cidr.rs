//! Ranges of addresses: <https://www.rfc-editor.org/rfc/rfc4632#section-3.1>,
//! <https://www.rfc-editor.org/rfc/rfc4291#section-2.3>.
//!
//! ```text
//! range  = ( ipv4 / ipv6 ) [ "/" length ]    ; without a length, that one address
//! length = 1*3DIGIT
//! ```

use std::net::IpAddr;

use crate::http::address::Address;
use crate::http::digits;

/// A range of IPv4 or IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The first address. IPv4 addresses are those of the IPv6 range `::ffff:0:0/96`.
    first: u128,
    /// The bits that all addresses of the range share.
    mask: u128,
}

impl Cidr {
    /// Parses a range. Bits behind the prefix are ignored; they need not be zero.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((_, length)) if length.len() > 3 => return None,
            Some((address, length)) => (address, Some(digits::decimal(length.as_bytes())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width: u32 = if address.is_ipv4() { 32 } else { 128 };
        let free = width.checked_sub(length.unwrap_or(width))?;
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        Some(Self { first: bits(address) & mask, mask })
    }

    /// Tells whether a peer's address, with or without its port, is in the range. Text that is no address
    /// is in no range.
    pub fn contains(&self, peer: &[u8]) -> bool {
        Address::parse(peer).is_some_and(|peer| bits(peer.ip) & self.mask == self.first)
    }
}

/// Returns the bits of an IPv6 address, or of an IPv4 address mapped to IPv6.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(range: &str, address: &str, expected: bool) {
        let range = Cidr::parse(range).unwrap();
        assert_eq!(range.contains(address.as_bytes()), expected, "{address} in {range:?}");
    }

    #[test]
    fn an_address_is_in_the_ranges_that_share_its_prefix() {
        check("10.0.0.0/8", "10.255.0.1:80", true);
        check("10.0.0.0/8", "10.255.0.1", true);
        check("::1", "::1", true);
        check("::1", "[::1]", true);
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        check("10.9.9.9/8", "10.255.0.1:80", true);
        check("10.0.0.0/8", "11.0.0.1:80", false);
        check("10.0.0.0/8", "[::ffff:10.0.0.1]:80", true);
        check("::ffff:10.0.0.0/104", "10.0.0.1:80", true);
        check("10.0.0.0/8", "[fd00::a00:1]:80", false);
        check("10.0.0.1", "10.0.0.1:0", true);
        check("10.0.0.1", "10.0.0.2:0", false);
        check("10.0.0.1/32", "10.0.0.1:0", true);
        check("0.0.0.0/0", "192.0.2.1:1", true);
        check("0.0.0.0/0", "[::1]:1", false);
        check("::/0", "[2001:db8::1]:1", true);
        check("::/0", "192.0.2.1:1", true);
        check("fd00::/8", "[fdff::1]:443", true);
        check("fd00::/8", "[fe80::1]:443", false);
        check("::1/128", "[::1]:443", true);
        check("2001:db8::/33", "[2001:db8:8000::1]:443", false);
    }

    #[test]
    fn text_that_is_no_address_is_in_no_range() {
        for address in [
            "",
            ":80",
            "unix:@/pipe",
            "@10.0.0.1",
            "@10.0.0.1:80",
            "a@10.0.0.1:80",
            "@[::1]:80",
            "@::1",
            "/run/10.0.0.1",
            "envoy://10.0.0.1/a",
            "10.0.0",
            "a",
            "010.0.0.1:1",
            "é",
            "10.0.0.1:",
            "10.0.0.1:http",
            "10.0.0.1:+80",
            "10.0.0.1:655360",
            "10.0.0.1:80:80",
            "10.0.0.1 :80",
            " 10.0.0.1:80",
            "10.0.0.1/32",
            "[10.0.0.1]:80",
            "[10.0.0.1",
            "[::1",
            "[::1]80",
            "[::1]:",
            "[::1]]:80",
            "[]:80",
            "::1]:80",
        ] {
            check("0.0.0.0/0", address, false);
            check("::/0", address, false);
        }
    }

    #[test]
    fn text_that_is_no_range_is_refused() {
        for wrong in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "256.0.0.0/8",
            "10.0.0.0 /8",
            "10.0.0.0/ 8",
            "[::1]/128",
            "::1%eth0/128",
            "localhost",
            "10.0.0.0/0008",
            "10.0.0.1:80/8",
            "g::/8",
        ] {
            assert_eq!(Cidr::parse(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_range_contains_the_addresses_that_share_its_prefix(address: u32, other: u32, length in 0u32..=32) {
            let range = Cidr::parse(&format!("{}/{length}", Ipv4Addr::from(address))).unwrap();
            let shares_prefix = (address ^ other).leading_zeros() >= length;
            let found = range.contains(format!("{}:80", Ipv4Addr::from(other)).as_bytes());
            prop_assert_eq!(found, shares_prefix);
        }

        #[test]
        fn a_range_contains_the_ipv6_sockets_that_share_its_prefix(address: u128, other: u128, length in 0u32..=128, port: u16) {
            let range = Cidr::parse(&format!("{}/{length}", Ipv6Addr::from(address))).unwrap();
            for other in [other, address ^ other.checked_shr(length).unwrap_or(0)] {
                let shares_prefix = (address ^ other).leading_zeros() >= length;
                let socket = std::net::SocketAddr::new(Ipv6Addr::from(other).into(), port);
                prop_assert_eq!(range.contains(socket.to_string().as_bytes()), shares_prefix, "{}", socket);
            }
        }

        #[test]
        fn no_bytes_panic(range: String, address: Vec<u8>, near in "[0-9a-f:.%/@\\[\\]]{0,30}") {
            let _ = Cidr::parse(&near);
            let range = Cidr::parse(&range).unwrap_or(Cidr { first: 0, mask: 0 });
            let _ = range.contains(&address);
            let _ = range.contains(near.as_bytes());
        }
    }
}
