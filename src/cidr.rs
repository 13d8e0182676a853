//! Ranges of addresses: <https://www.rfc-editor.org/rfc/rfc4632#section-3.1>,
//! <https://www.rfc-editor.org/rfc/rfc4291#section-2.3>.
//!
//! ```text
//! range = address [ "/" length ]     ; without a length, that one address
//! peer  = address / ipv4 ":" port / "[" ipv6 "]" [ ":" port ]
//! ```

/// A range of addresses of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// As one of IPv6, which all of IPv4 is a range of (`::ffff:0:0/96`).
    first: u128,
    /// A bit for each that is alike in the whole range.
    mask: u128,
}

impl Cidr {
    /// Reads a range. Bits behind its length need not be zero, and mean nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(number(length)?)),
            None => (text, None),
        };
        let (bits, width) = bits(address)?;
        let length = length.unwrap_or(width);
        if length > width {
            return None;
        }
        let free = width - length;
        let mask = if free == 128 { 0 } else { u128::MAX << free };
        Some(Self { first: bits & mask, mask })
    }

    /// Tells whether a peer's address is in the range. What is no address is in none: a client on
    /// the same machine names its Unix socket as it likes, `@10.0.0.1` for one.
    pub fn holds(&self, peer: &[u8]) -> bool {
        let found = std::str::from_utf8(peer).ok().and_then(host).and_then(bits);
        found.is_some_and(|(bits, _)| bits & self.mask == self.first)
    }
}

/// Returns how many bits an address has, 32 or 128; none for what is no address.
pub fn width(address: &[u8]) -> Option<u32> {
    let (_, width) = bits(std::str::from_utf8(address).ok()?)?;
    Some(width)
}

/// Returns a peer without its port, and without the brackets of IPv6.
fn host(peer: &str) -> Option<&str> {
    let (host, port) = if let Some(bracketed) = peer.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        if !host.contains(':') {
            return None;
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, port),
            None if rest.is_empty() => return Some(host),
            None => return None,
        }
    } else {
        match peer.split_once(':') {
            Some((host, port)) if host.contains('.') => (host, port),
            _ => return Some(peer),
        }
    };
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    if digits { Some(host) } else { None }
}

/// Returns an address as one of IPv6, and how many bits its own family has. The standard library's
/// parser takes 3 KB of the module, and this 1 KB.
fn bits(text: &str) -> Option<(u128, u32)> {
    if !text.contains(':') {
        return Some((V4_MAPPED | u128::from(v4_bits(text)?), 32));
    }
    // Groups before the run of zeros, and those behind it.
    let (mut bits, mut groups, mut before_gap) = (0u128, 0, None);
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("::") {
            if before_gap.replace((bits, groups)).is_some() {
                return None;
            }
            (bits, rest) = (0, after);
            if rest.is_empty() {
                break;
            }
        } else if groups > 0 {
            rest = rest.strip_prefix(':')?;
        }
        let (group, after) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
        if group.contains('.') && after.is_empty() {
            (bits, groups) = (bits << 32 | u128::from(v4_bits(group)?), groups + 2);
        } else {
            let hex =
                (1..=4).contains(&group.len()) && group.bytes().all(|it| it.is_ascii_hexdigit());
            let value = u16::from_str_radix(group, 16).ok().filter(|_| hex)?;
            (bits, groups) = (bits << 16 | u128::from(value), groups + 1);
        }
        rest = after;
        if rest.is_empty() || groups > 8 {
            break;
        }
    }
    match before_gap {
        None => (groups == 8).then_some((bits, 128)),
        // A gap stands for one group at least.
        Some((high, before)) if groups < 8 => {
            let high = if before == 0 { 0 } else { high << (128 - 16 * before) };
            Some((high | bits, 128))
        }
        Some(_) => None,
    }
}

/// Reads four numbers up to 255, without leading zeros.
fn v4_bits(text: &str) -> Option<u32> {
    let (mut bits, mut parts) = (0, 0);
    for part in text.split('.') {
        let value = number(part).filter(|value| *value < 256)?;
        if part.len() > 1 && part.starts_with('0') {
            return None;
        }
        (bits, parts) = (bits << 8 | value, parts + 1);
        if parts > 4 {
            return None;
        }
    }
    (parts == 4).then_some(bits)
}

/// Reads one to three digits, without a sign.
fn number(text: &str) -> Option<u32> {
    let digits = text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// `::ffff:0:0/96`, where all of IPv4 is.
const V4_MAPPED: u128 = 0xffff << 32;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(range: &str, address: &str, expected: bool) {
        let range = Cidr::parse(range).unwrap();
        assert_eq!(range.holds(address.as_bytes()), expected, "{address} in {range:?}");
    }

    #[test]
    fn addresses_are_in_ranges() {
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
    fn what_is_no_address_is_in_no_range() {
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
    fn only_ranges_are_ranges() {
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

    /// What the standard library says of an address.
    fn expected(text: &str) -> Option<(u128, u32)> {
        match text.parse().ok()? {
            IpAddr::V4(address) => Some((address.to_ipv6_mapped().to_bits(), 32)),
            IpAddr::V6(address) => Some((address.to_bits(), 128)),
        }
    }

    #[test]
    fn addresses_are_those_of_the_standard_library() {
        for text in [
            "",
            ":",
            "::",
            ":::",
            "::1",
            "1::",
            "1::2",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7",
            "::1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7::",
            "1:2:3:4:5:6:7:8::",
            "::1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7:8:9",
            "1::2::3",
            "::1.2.3.4",
            "::ffff:1.2.3.4",
            "1:2:3:4:5:6:1.2.3.4",
            "1:2:3:4:5:6:7:1.2.3.4",
            "::1.2.3",
            "::1.2.3.4:5",
            "1.2.3.4::",
            "1.2.3.4",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "01.2.3.4",
            "1.2.3.",
            ".1.2.3",
            "1..2.3",
            "+1.2.3.4",
            "::+1",
            "::12345",
            "::g",
            "1:",
            ":1",
            "1:2:3:4:5:6:7:",
            ":1:2:3:4:5:6:7",
            "FD00::aB",
            "0.0.0.0",
            "1:2:3:4:5:6::1.2.3.4",
            "1:2:3:4:5::1.2.3.4",
            "0::0",
            "::%eth0",
            " ::1",
            "1:2:3:4::5:6:7:8",
        ] {
            assert_eq!(bits(text), expected(text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_address_is_read_as_the_standard_library_does(text in "[0-9a-f:.]{0,24}|(::)?([0-9a-f]{1,4}:){0,8}(:?[0-9a-f]{0,4}){0,8}") {
            prop_assert_eq!(bits(&text), expected(&text), "{}", text);
        }

        #[test]
        fn a_range_holds_what_begins_like_it(address: u32, other: u32, length in 0u32..=32) {
            let range = Cidr::parse(&format!("{}/{length}", Ipv4Addr::from(address))).unwrap();
            let alike = (address ^ other).leading_zeros() >= length;
            let found = range.holds(format!("{}:80", Ipv4Addr::from(other)).as_bytes());
            prop_assert_eq!(found, alike);
        }

        #[test]
        fn sockets_of_ipv6_are_found(address: u128, other: u128, length in 0u32..=128, port: u16) {
            let range = Cidr::parse(&format!("{}/{length}", Ipv6Addr::from(address))).unwrap();
            for other in [other, address ^ other.checked_shr(length).unwrap_or(0)] {
                let alike = (address ^ other).leading_zeros() >= length;
                let socket = std::net::SocketAddr::new(Ipv6Addr::from(other).into(), port);
                prop_assert_eq!(range.holds(socket.to_string().as_bytes()), alike, "{}", socket);
            }
        }

        #[test]
        fn no_bytes_panic(range: String, address: Vec<u8>, near in "[0-9a-f:.%/@\\[\\]]{0,30}") {
            let _ = Cidr::parse(&near);
            let range = Cidr::parse(&range).unwrap_or(Cidr { first: 0, mask: 0 });
            let _ = range.holds(&address);
            let _ = range.holds(near.as_bytes());
        }
    }
}
