//! Socket addresses as Envoy writes them.
//!
//! ```text
//! address = ipv4 [ ":" port ] / ipv6 / "[" ipv6 "]" [ ":" port ]
//! port    = 1*DIGIT                  ; at most 65535
//! ```
//!
//! Envoy also writes internal listeners (`envoy://name/endpoint`) and Unix sockets (`/run/a.sock`,
//! `@name`) in place of an address. They are refused, because a Unix socket can have any name:
//! `@10.0.0.1:80` is one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::http::digits;

/// An IP address with an optional port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    pub ip: IpAddr,
    /// The IP address as written, without brackets.
    pub host: &'a str,
    pub port: Option<u16>,
}

impl<'a> Address<'a> {
    /// Reads an address; returns `None` for anything else.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if let Some(bracketed) = text.strip_prefix('[') {
            let (host, port) = bracketed.split_once(']')?;
            return Self::of::<Ipv6Addr>(host, port);
        }
        match text.split_once(':') {
            None => Self::of::<Ipv4Addr>(text, ""),
            Some((host, _)) if host.contains('.') => {
                let (host, port) = text.split_at_checked(host.len())?;
                Self::of::<Ipv4Addr>(host, port)
            }
            Some(_) => Self::of::<Ipv6Addr>(text, ""),
        }
    }

    /// Reads an IP address, and a port with its colon or an empty text.
    fn of<Ip: FromStr + Into<IpAddr>>(host: &'a str, port: &str) -> Option<Self> {
        let ip = host.parse::<Ip>().ok()?.into();
        let port = match port {
            "" => None,
            port => Some(digits::decimal(port.strip_prefix(':')?.as_bytes())?),
        };
        Some(Self { ip, host, port })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, Option<u16>)>) {
        let found = Address::parse(text.as_bytes());
        assert_eq!(found.map(|address| (address.host, address.port)), expected, "{text:?}");
    }

    #[test]
    fn addresses_have_a_host_and_an_optional_port() {
        check("10.0.0.1", Some(("10.0.0.1", None)));
        check("10.0.0.1:80", Some(("10.0.0.1", Some(80))));
        check("10.0.0.1:0", Some(("10.0.0.1", Some(0))));
        check("::1", Some(("::1", None)));
        check("[::1]", Some(("::1", None)));
        check("[::1]:80", Some(("::1", Some(80))));
        check("[::ffff:10.0.0.1]:80", Some(("::ffff:10.0.0.1", Some(80))));
        check("1:2:3:4:5:6:10.0.0.1", Some(("1:2:3:4:5:6:10.0.0.1", None)));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            ":",
            ":80",
            "[]",
            "[]:80",
            "[10.0.0.1]:80",
            "[::1",
            "[::1]80",
            "[::1]:",
            "[::1]]:80",
            "[::1%1]:80",
            "::1]:80",
            "10.0.0",
            "10.0.0.1:",
            "10.0.0.1:http",
            "10.0.0.1:+80",
            "10.0.0.1:65536",
            "10.0.0.1:80:80",
            "10.0.0.1 :80",
            " 10.0.0.1:80",
            "010.0.0.1:1",
            "10.0.0.1/32",
            "localhost:80",
            "envoy://internal_client_address/",
            "envoy://10.0.0.1/a",
            "unix:@/pipe",
            "/run/10.0.0.1",
            "@10.0.0.1",
            "@10.0.0.1:80",
            "a@10.0.0.1:80",
            "@[::1]:80",
            "@::1",
            "\u{e9}",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn addresses_of_the_standard_library_are_read_back(socket: SocketAddr) {
            // Envoy writes no scope id.
            let socket = SocketAddr::new(socket.ip(), socket.port());
            let text = socket.to_string();
            let found = Address::parse(text.as_bytes()).unwrap();
            prop_assert_eq!((found.ip, found.port), (socket.ip(), Some(socket.port())));
            prop_assert_eq!(found.host, socket.ip().to_string());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, near in "[0-9a-f:.%/@\\[\\]]{0,30}") {
            let _ = (Address::parse(&bytes), Address::parse(near.as_bytes()));
        }
    }
}
