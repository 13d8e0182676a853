//! Attributes of the addresses on both sides: client, server, network peer and upstream.
//!
//! <https://opentelemetry.io/docs/specs/semconv/general/attributes/>

use super::StreamFacts;
use super::attributes as key;
use super::encoding::SpanFields;
use super::privacy;
use crate::http::address::Address;
use crate::http::head::Head;
use crate::http::url;

/// Adds the server as the client names it, by `:authority`. The scheme's default port stands for a
/// missing one.
pub(crate) fn server_attributes(fields: &mut SpanFields, head: &Head<'_>) {
    let (host, port) = url::host_and_port(head.authority());
    if !host.is_empty() {
        fields.text(key::SERVER_ADDRESS, host);
        if let Some(port) = port.or_else(|| url::default_port(head.scheme())) {
            fields.integer(key::SERVER_PORT, u64::from(port));
        }
    }
}

/// Adds the client of an inbound request. The client is the network peer too, unless Envoy took the
/// address from `x-forwarded-for`, which it shows by port 0. Both are left out with
/// [`CLIENT_ADDRESS`](key::CLIENT_ADDRESS).
pub(crate) fn client_attributes(fields: &mut SpanFields, source_address: &[u8], is_masked: bool) {
    if fields.omitted.contains(key::CLIENT_ADDRESS) {
        return;
    }
    if let Some(mut client) = Address::parse(source_address) {
        let network;
        if is_masked {
            network = privacy::masked(client.ip);
            client.host = &network;
        }
        fields.text(key::CLIENT_ADDRESS, client.host.as_bytes());
        if client.port.is_some_and(|port| port != 0) {
            peer_attributes(fields, &client);
        }
    }
}

/// Adds the network peer of an outbound request: the upstream host.
pub(crate) fn callee_attributes(fields: &mut SpanFields, upstream_address: &[u8]) {
    if let Some(upstream) = Address::parse(upstream_address) {
        peer_attributes(fields, &upstream);
    }
}

/// Adds the cluster and the address of the upstream, under Envoy's own tag names.
pub(crate) fn upstream_attributes(fields: &mut SpanFields, facts: StreamFacts<'_>) {
    for (key, value) in [
        (key::UPSTREAM_CLUSTER, facts.upstream_cluster),
        (key::UPSTREAM_ADDRESS, facts.upstream_address),
    ] {
        if !value.is_empty() {
            fields.text(key, value);
        }
    }
}

fn peer_attributes(fields: &mut SpanFields, peer: &Address<'_>) {
    fields.text(key::NETWORK_PEER_ADDRESS, peer.host.as_bytes());
    if let Some(port) = peer.port.filter(|port| *port != 0) {
        fields.integer(key::NETWORK_PEER_PORT, u64::from(port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::conditions::Direction;
    use crate::span::testing::{FACTS, record};

    #[test]
    fn an_address_from_forwarded_headers_is_no_network_peer() {
        let facts = StreamFacts { source_address: b"203.0.113.7:0", ..FACTS };
        let (_, attributes) = record(&[], facts);
        assert_eq!(attributes.get("client.address").map(String::as_str), Some("203.0.113.7"));
        assert_eq!(attributes.get("network.peer.address"), None);
    }

    #[test]
    fn only_ip_addresses_are_recorded_as_addresses() {
        for address in [
            "envoy://internal_client_address/",
            "envoy://connect_originate/10.0.0.7:8080",
            "/run/shop.sock",
            "@10.0.0.7:80",
            "",
        ] {
            let inbound = StreamFacts { source_address: address.as_bytes(), ..FACTS };
            let (upstream_address, direction) = (address.as_bytes(), Direction::Outbound);
            let outbound = StreamFacts { upstream_address, direction, ..FACTS };
            for facts in [inbound, outbound] {
                let (_, attributes) = record(&[], facts);
                for key in ["client.address", "network.peer.address", "network.peer.port"] {
                    assert_eq!(attributes.get(key), None, "{key} of {address}");
                }
            }
            let (_, attributes) = record(&[], outbound);
            let raw = attributes.get("upstream_address").map_or("", String::as_str);
            assert_eq!(raw, address);
        }
    }
}
