//! Envoy's attributes: their paths, and how a host encodes their values.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes>
//!
//! A value arrives as bytes without a type (`serializeValue` in Envoy's
//! `source/extensions/common/wasm/context.cc`): text as it is, numbers as 64 bits in little endian, a
//! boolean as one byte, lists and maps as pairs. So the attribute's path must tell the type.

use super::value::TagValue;
use crate::http::address::Address;
use crate::http::grpc;
use crate::http::response_flags;
use crate::sampling::conditions::Direction;

/// The attributes and CEL expressions that tags read, each once.
#[derive(Debug, Clone, Default)]
pub struct Properties {
    sources: Vec<PropertySource>,
    /// For each property, the indices of its sources on inbound and on outbound requests.
    properties: Vec<[usize; 2]>,
}

/// A value that Envoy evaluates: an attribute or a CEL expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropertySource {
    /// The path of an attribute, with a zero byte between its parts.
    Path(String),
    /// A CEL expression, whose value is text.
    Cel(String),
}

/// A value of [`Properties`] that a tag reads: an attribute or a CEL expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Property {
    /// The index that [`Properties::add`] returned.
    index: usize,
    encoding: Encoding,
    /// The type to record; `None` keeps the type of the value.
    record_as: Option<Type>,
}

/// The type of an attribute's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Text,
    Int,
    Double,
    Bool,
}

/// How a host encodes a value, and how Envoy's access logs would write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Plain(Type),
    /// A value of dynamic or static metadata: text, a double or a boolean.
    Metadata,
    /// `response.grpc_status`. A request that is not gRPC has none.
    GrpcStatus(GrpcStatusFormat),
    /// `response.flags`, recorded by their short names.
    Flags,
    /// A duration, recorded in whole milliseconds.
    Millis,
    /// A socket address, recorded without its port. Any other address, such as an internal listener's
    /// name, counts as absent.
    Host,
}

/// How a status of gRPC is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcStatusFormat {
    /// `InvalidArgument`
    Camel,
    /// `INVALID_ARGUMENT`
    Snake,
    /// `3`
    Number,
}

impl Properties {
    /// Adds a property, whose source may depend on the direction. Returns its index.
    pub fn add(&mut self, inbound: PropertySource, outbound: PropertySource) -> usize {
        let sources = [inbound, outbound].map(|source| self.add_source(source));
        let known = self.properties.iter().position(|other| *other == sources);
        known.unwrap_or_else(|| {
            self.properties.push(sources);
            self.properties.len() - 1
        })
    }

    fn add_source(&mut self, source: PropertySource) -> usize {
        let known = self.sources.iter().position(|other| *other == source);
        known.unwrap_or_else(|| {
            self.sources.push(source);
            self.sources.len() - 1
        })
    }

    /// Returns what to read.
    pub fn sources(&self) -> &[PropertySource] {
        &self.sources
    }

    /// Returns the value of each property. `source_values` has the value of each source.
    pub fn values<'v>(&self, direction: Direction, source_values: &[&'v [u8]]) -> Vec<&'v [u8]> {
        let source = |[inbound, outbound]: &[usize; 2]| match direction {
            Direction::Inbound => *inbound,
            Direction::Outbound => *outbound,
        };
        let value = |property| source_values.get(source(property)).copied().unwrap_or_default();
        self.properties.iter().map(value).collect()
    }
}

impl Property {
    pub fn new(index: usize, encoding: Encoding, record_as: Option<Type>) -> Self {
        Self { index, encoding, record_as }
    }

    /// Tells whether only a gRPC request has the property.
    pub fn is_of_grpc(&self) -> bool {
        matches!(self.encoding, Encoding::GrpcStatus(_))
    }

    /// Reads the property among [`Properties::values`]. A value that is empty, or that does not have
    /// the expected encoding, counts as absent.
    pub fn find<'a>(&self, values: &[&'a [u8]]) -> Option<TagValue<'a>> {
        let value = values.get(self.index).filter(|value| !value.is_empty())?;
        let value = self.encoding.decode(value)?;
        Some(match (self.record_as, value) {
            (Some(Type::Text), value) => TagValue::Text(value.into_text()),
            (Some(Type::Int), TagValue::Double(number)) => TagValue::Int(number as i64),
            (Some(Type::Double), TagValue::Int(number)) => TagValue::Double(number as f64),
            (_, value) => value,
        })
    }
}

impl Encoding {
    /// Returns the encoding of an attribute by its path. A path that tells nothing has the encoding of
    /// the `configured` type, else of text.
    pub fn of(path: &str, configured: Option<Type>) -> Self {
        let dotted = path.replace('\0', ".");
        if dotted.starts_with("metadata.")
            || METADATA_PREFIXES.iter().any(|prefix| dotted.starts_with(prefix))
        {
            return match configured {
                Some(Type::Int | Type::Double) => Self::Plain(Type::Double),
                Some(Type::Bool) => Self::Plain(Type::Bool),
                Some(Type::Text) | None => Self::Metadata,
            };
        }
        Self::Plain(if INTEGERS.contains(&dotted.as_str()) {
            Type::Int
        } else if dotted == "connection.mtls" {
            Type::Bool
        } else {
            configured.unwrap_or(Type::Text)
        })
    }

    fn decode(self, value: &[u8]) -> Option<TagValue<'_>> {
        let bits = || value.try_into().map(u64::from_le_bytes).ok();
        Some(match self {
            Self::Plain(Type::Text) => TagValue::Text(value.into()),
            Self::Plain(Type::Int) => TagValue::Int(bits()?.cast_signed()),
            Self::Plain(Type::Double) => TagValue::Double(f64::from_bits(bits()?)),
            Self::Plain(Type::Bool) => match value {
                [0] => TagValue::Bool(false),
                [1] => TagValue::Bool(true),
                _ => return None,
            },
            Self::Metadata => return metadata(value),
            Self::GrpcStatus(format) => format.write(bits()?.cast_signed()),
            Self::Flags => TagValue::Text(response_flags::names(bits()?).into_bytes().into()),
            Self::Millis => TagValue::Int(bits()?.cast_signed() / NANOS_PER_MILLI),
            Self::Host => TagValue::Text(Address::parse(value)?.host.as_bytes().into()),
        })
    }
}

impl GrpcStatusFormat {
    fn write(self, status: i64) -> TagValue<'static> {
        let name = grpc::status_name(status.cast_unsigned());
        let Some(name) = name.filter(|_| self != Self::Number) else {
            return TagValue::Int(status);
        };
        let name = match name {
            // Envoy spells it with one L.
            "CANCELLED" if self == Self::Camel => "CANCELED",
            name => name,
        };
        if self == Self::Snake || name == "OK" {
            return TagValue::Text(name.as_bytes().into());
        }
        let mut camel = Vec::new();
        let mut begins_word = true;
        for byte in name.bytes() {
            if byte != b'_' {
                camel.push(if begins_word { byte } else { byte.to_ascii_lowercase() });
            }
            begins_word = byte == b'_';
        }
        TagValue::Text(camel.into())
    }
}

/// Guesses the type of a value of metadata. Eight bytes are a number if they have a control character
/// or are not UTF-8: whole numbers up to 2^44 have a zero byte, and nearly all fractions are not UTF-8.
/// Text has no control characters.
fn metadata(value: &[u8]) -> Option<TagValue<'_>> {
    let control = value.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
    match value {
        [0] => Some(TagValue::Bool(false)),
        [1] => Some(TagValue::Bool(true)),
        value if value.len() == 8 && (control || std::str::from_utf8(value).is_err()) => {
            Encoding::Plain(Type::Double).decode(value)
        }
        // A list or an object.
        _ if value.contains(&0) => None,
        text => Some(TagValue::Text(text.into())),
    }
}

const NANOS_PER_MILLI: i64 = 1_000_000;

const METADATA_PREFIXES: [&str; 6] = [
    "xds.cluster_metadata.",
    "xds.listener_metadata.",
    "xds.node.metadata.",
    "xds.route_metadata.",
    "xds.upstream_host_metadata.",
    "xds.virtual_host_metadata.",
];

/// Attributes that Envoy encodes as 64-bit integers; durations and times are nanoseconds.
const INTEGERS: [&str; 21] = [
    "connection.id",
    "destination.port",
    "request.duration",
    "request.headers_bytes",
    "request.size",
    "request.time",
    "request.total_size",
    "response.backend_latency",
    "response.code",
    "response.flags",
    "response.grpc_status",
    "response.headers_bytes",
    "response.size",
    "response.total_size",
    "source.port",
    "upstream.cx_pool_ready_duration",
    "upstream.num_endpoints",
    "upstream.port",
    "upstream.request_attempt_count",
    "xds.listener_direction",
    "xds.upstream_host_priority",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(path: &str, configured: Option<Type>, value: &[u8], expected: Option<TagValue<'_>>) {
        let encoding = Encoding::of(&path.replace('.', "\0"), configured);
        let found = Property::new(0, encoding, configured).find(&[value]);
        assert_eq!(found, expected, "{path}: {value:?}");
    }

    fn text(text: &str) -> Option<TagValue<'_>> {
        Some(TagValue::Text(text.as_bytes().into()))
    }

    #[test]
    fn known_attributes_have_their_types() {
        let seven = 7u64.to_le_bytes();
        check("response.code", None, &seven, Some(TagValue::Int(7)));
        check("source.port", None, &seven, Some(TagValue::Int(7)));
        check("response.code", Some(Type::Text), &seven, text("7"));
        check("response.code", Some(Type::Double), &seven, Some(TagValue::Double(7.0)));
        check("connection.mtls", None, &[1], Some(TagValue::Bool(true)));
        check("connection.mtls", Some(Type::Text), &[0], text("false"));
        check("request.protocol", None, b"HTTP/2", text("HTTP/2"));
        check("filter_state.mine", None, &seven, text("\u{7}\0\0\0\0\0\0\0"));
        check("filter_state.mine", Some(Type::Int), &seven, Some(TagValue::Int(7)));
        check("filter_state.mine", Some(Type::Int), &[0xff; 8], Some(TagValue::Int(-1)));
    }

    #[test]
    fn a_status_of_grpc_is_named() {
        use GrpcStatusFormat::{Camel, Number, Snake};
        for (format, status, expected) in [
            (Camel, 0, "OK"),
            (Camel, 1, "Canceled"),
            (Camel, 3, "InvalidArgument"),
            (Camel, 16, "Unauthenticated"),
            (Camel, 17, "17"),
            (Camel, -1, "-1"),
            (Snake, 0, "OK"),
            (Snake, 1, "CANCELLED"),
            (Snake, 4, "DEADLINE_EXCEEDED"),
            (Snake, -1, "-1"),
            (Number, 3, "3"),
        ] {
            let property = Property::new(0, Encoding::GrpcStatus(format), None);
            let value = i64::to_le_bytes(status);
            let found = property.find(&[&value]).map(TagValue::into_text);
            assert_eq!(found.as_deref(), Some(expected.as_bytes()), "{format:?} {status}");
        }
    }

    #[test]
    fn an_ip_address_is_recorded_without_its_port() {
        let host = |value| Property::new(0, Encoding::Host, None).find(&[value]);
        assert_eq!(host(b"10.0.0.1:80"), text("10.0.0.1"));
        assert_eq!(host(b"[fd00::1]:80"), text("fd00::1"));
        assert_eq!(host(b"envoy://internal_client_address/"), None);
        assert_eq!(host(b"@10.0.0.1:80"), None);
    }

    #[test]
    fn values_in_another_encoding_are_absent() {
        check("response.code", None, b"", None);
        check("response.code", None, b"200", None);
        check("connection.mtls", None, &[2], None);
        check("connection.mtls", None, &[1, 0], None);
        check("request.protocol", None, b"", None);
        check("metadata.filter_metadata.a.b", Some(Type::Double), b"1", None);
        assert_eq!(Property::new(1, Encoding::Plain(Type::Text), None).find(&[b"a"]), None);
    }

    #[test]
    fn the_type_of_metadata_is_guessed_from_its_bytes() {
        let path = "metadata.filter_metadata.a.b";
        check(path, None, &[1], Some(TagValue::Bool(true)));
        check(path, None, &[0], Some(TagValue::Bool(false)));
        check(path, None, b"a", text("a"));
        check(path, None, b"checkout", text("checkout"));
        check(path, None, "Stra\u{df}e\n".as_bytes(), text("Stra\u{df}e\n"));
        check(path, None, &3.5f64.to_le_bytes(), Some(TagValue::Double(3.5)));
        check(path, Some(Type::Int), &3.5f64.to_le_bytes(), Some(TagValue::Int(3)));
        check(path, Some(Type::Text), &300f64.to_le_bytes(), text("300"));
        check(path, Some(Type::Double), b"UUUUUUY@", Some(TagValue::Double(304.0 / 3.0)));
        check(path, Some(Type::Bool), &[1], Some(TagValue::Bool(true)));
        check(path, None, b"\x01\0\0\0\x01\0\0\0\0\0\0\0a\0\0", None);
        check("xds.node.metadata.NAME", None, &0f64.to_le_bytes(), Some(TagValue::Double(0.0)));
    }

    proptest! {
        #[test]
        fn whole_numbers_of_metadata_are_numbers(number in 0u64..1 << 44) {
            let bytes = (number as f64).to_le_bytes();
            prop_assert_eq!(metadata(&bytes), Some(TagValue::Double(number as f64)));
        }

        #[test]
        fn text_of_metadata_is_text(text in "[^\\x00-\\x1f\\x7f]{1,12}") {
            let expected = TagValue::Text(text.as_bytes().into());
            prop_assert_eq!(metadata(text.as_bytes()), Some(expected));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, of_metadata: bool) {
            let path = if of_metadata { "metadata.a" } else { "response.flags" };
            let _ = Property::new(0, Encoding::of(path, None), None).find(&[&bytes]);
        }
    }
}
