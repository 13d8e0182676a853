//! Attributes of the operator's own: where each value comes from, and what is done to it before it
//! is recorded.
//!
//! As with Envoy's own custom tags, the default stands for a value that is missing, and an empty
//! value makes no tag:
//! <https://www.envoyproxy.io/docs/envoy/latest/api-v3/type/tracing/v3/custom_tag.proto>

pub mod format;
pub mod property;
pub mod redact;
pub mod sensitive;
pub mod source;

use std::borrow::Cow;

use crate::digits;
use crate::head::Head;
use crate::otlp::{Attributes, printable};

use self::format::Part;
use self::property::Properties;
use self::redact::{Redaction, Transformation};
use self::source::{Phase, Source};

/// All tags, and what of Envoy they ask for.
#[derive(Debug, Clone)]
pub struct Tags {
    /// The span's own that never change.
    pub marks: Attributes,
    /// Those that never change.
    pub constant: Attributes,
    request: Vec<Tag>,
    end: Vec<Tag>,
    /// Sources of tags at the end that are read when the request arrives.
    early: Vec<EarlySource>,
    /// Characters of an attribute's value.
    max_chars: usize,
    pub properties: Properties,
    /// What those at the end ask for: bits of [`Phase`].
    asks: u8,
}

/// A source that [`Source::Early`] stands for.
#[derive(Debug, Clone)]
struct EarlySource {
    source: Source,
    /// Bytes of the value that are kept.
    max_bytes: usize,
}

/// Values that were read when the request arrived, for tags that are finished at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EarlyValues(Vec<Option<Vec<u8>>>);

/// An attribute whose value is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    pub key: String,
    pub value: Value,
    /// Recorded as it is where there is no value.
    pub default_value: Option<String>,
    pub transformation: Transformation,
}

/// What makes up a tag's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Source(Source),
    /// Texts and sources in a row; a source without a value is empty.
    Format(Vec<Part>),
}

/// What is known of a request at its end. What no tag asks for may be left empty.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'f, 'a> {
    pub response: &'f Head<'a>,
    pub trailers: &'f Head<'a>,
    /// The values of [`Properties::values`], in that order; one that is absent is empty.
    pub properties: &'f [&'a [u8]],
}

/// What sources are looked up in: the request when it arrives, or all else at its end.
#[derive(Debug, Clone, Copy)]
pub enum Lookup<'f, 'a> {
    AtRequest(&'f Head<'a>),
    AtEnd(&'a EarlyValues, &'f Facts<'f, 'a>),
}

/// A value that was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    Text(Cow<'a, [u8]>),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl Tags {
    /// Starts with the span's own constants, and no tags.
    pub fn new(marks: Attributes, constant: Attributes, max_chars: usize) -> Self {
        Self {
            marks,
            constant,
            request: Vec::new(),
            end: Vec::new(),
            early: Vec::new(),
            max_chars,
            properties: Properties::default(),
            asks: 0,
        }
    }

    /// Adds a tag to those of the request, or of its end, when its value is known. Request headers
    /// are read when the request arrives in either case.
    pub fn push(&mut self, mut tag: Tag) {
        let asks = tag.value.asks() & !Phase::Request.bit();
        if asks == 0 {
            self.request.push(tag);
            return;
        }
        self.asks |= asks;
        let max_bytes = match tag.transformation.redact {
            Some(Redaction::Hash) => MAX_HASHED_BYTES,
            _ => MAX_CHAR_BYTES * (self.max_chars + UNCUT_CHARS),
        };
        for source in tag.value.sources_mut() {
            if source.phase() == Phase::Request {
                let index = self.early.len();
                let source = std::mem::replace(source, Source::Early(index));
                self.early.push(EarlySource { source, max_bytes });
            }
        }
        self.end.push(tag);
    }

    /// Adds the tags that the request's headers say, and returns what later tags need of them.
    pub fn at_request(&self, attributes: &mut Attributes, request: &Head<'_>) -> EarlyValues {
        attributes.append(&self.constant);
        let lookup = Lookup::AtRequest(request);
        add_all(&self.request, attributes, lookup);
        let value = |early: &EarlySource| {
            let value = early.source.find(lookup)?.into_text();
            Some(value.get(..early.max_bytes).unwrap_or(&value).to_vec())
        };
        EarlyValues(self.early.iter().map(value).collect())
    }

    /// Adds the tags whose values are known at the request's end. `early` is what
    /// [`Tags::at_request`] returned.
    pub fn at_end(&self, attributes: &mut Attributes, early: &EarlyValues, facts: &Facts<'_, '_>) {
        add_all(&self.end, attributes, Lookup::AtEnd(early, facts));
    }

    /// Returns the names of the request headers that tags are made of; a name may come twice.
    pub fn request_headers(&self) -> impl Iterator<Item = &str> {
        let of_request = self.request.iter().flat_map(|tag| tag.value.sources());
        let of_end = self.early.iter().map(|early| &early.source);
        of_request.chain(of_end).filter_map(Source::request_header)
    }

    /// Whether a tag needs anything at the request's end.
    pub fn ask_at_end(&self) -> bool {
        self.asks != 0
    }

    /// Whether a tag needs headers of this phase at the request's end.
    pub fn asks(&self, phase: Phase) -> bool {
        self.asks & phase.bit() != 0
    }
}

fn add_all(tags: &[Tag], attributes: &mut Attributes, lookup: Lookup<'_, '_>) {
    for tag in tags {
        tag.add(attributes, lookup);
    }
}

impl Tag {
    fn add(&self, attributes: &mut Attributes, lookup: Lookup<'_, '_>) {
        let found = match &self.value {
            Value::Source(source) => source.find(lookup),
            Value::Format(parts) => Some(Found::Text(format::text(parts, lookup).into())),
        };
        match found {
            None => {
                let default = self.default_value.as_deref().unwrap_or_default();
                add_text(attributes, &self.key, default.as_bytes());
            }
            Some(found) if self.transformation != Transformation::default() => {
                let value = found.into_text();
                let (text, cut) = self.transformation.apply(&value);
                if cut {
                    attributes.count_truncated();
                }
                add_text(attributes, &self.key, text.as_bytes());
            }
            // Envoy lets no control character through in a header; all else may have some.
            Some(Found::Text(text)) if !self.value.is_header() => {
                add_text(attributes, &self.key, printable(&text).as_bytes());
            }
            Some(Found::Text(text)) => add_text(attributes, &self.key, &text),
            Some(Found::Int(number)) => attributes.integer(&self.key, number.cast_unsigned()),
            Some(Found::Double(number)) => attributes.number(&self.key, number),
            Some(Found::Bool(truth)) => attributes.boolean(&self.key, truth),
        }
    }
}

fn add_text(attributes: &mut Attributes, key: &str, text: &[u8]) {
    if !text.is_empty() {
        attributes.text(key, text);
    }
}

impl Value {
    /// Whether it is a header as it was sent, or a part of one.
    fn is_header(&self) -> bool {
        use Source::{Cookie, RequestHeader, ResponseHeader, ResponseTrailer};
        let Self::Source(source) = self else { return false };
        matches!(source, RequestHeader(_) | ResponseHeader(_) | ResponseTrailer(_) | Cookie(_))
    }

    fn sources(&self) -> Vec<&Source> {
        match self {
            Self::Source(source) => vec![source],
            Self::Format(parts) => parts.iter().flat_map(Part::sources).collect(),
        }
    }

    /// What the value is read from, a bit for each [`Phase`].
    fn asks(&self) -> u8 {
        match self {
            Self::Source(source) => source.phase().bit(),
            Self::Format(parts) => {
                let mut asked = 0;
                for part in parts {
                    for source in part.sources() {
                        asked |= source.phase().bit();
                    }
                }
                asked
            }
        }
    }

    fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        let (source, parts) = match self {
            Self::Source(source) => (Some(source), &mut [][..]),
            Self::Format(parts) => (None, parts.as_mut_slice()),
        };
        source.into_iter().chain(parts.iter_mut().flat_map(Part::sources_mut))
    }
}

impl<'a> Found<'a> {
    /// Returns the value as text.
    pub fn into_text(self) -> Cow<'a, [u8]> {
        let text = match self {
            Self::Text(text) => return text,
            Self::Int(number) => number.to_string(),
            Self::Bool(true) => return Cow::Borrowed(b"true"),
            Self::Bool(false) => return Cow::Borrowed(b"false"),
            Self::Double(number) => digits::float(number),
        };
        Cow::Owned(text.into_bytes())
    }
}

/// Bytes of a character in UTF-8.
const MAX_CHAR_BYTES: usize = 4;
/// Characters that are kept beyond the limit, so that a cut is counted, and a mask hides as much.
const UNCUT_CHARS: usize = 8;
/// A hash is over all that a tag reads of a value.
const MAX_HASHED_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use opentelemetry::trace::{SpanId, SpanKind, Status, TraceFlags, TraceId};
    use opentelemetry_proto::tonic::common::v1::any_value;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    use crate::config::Config;
    use crate::otlp::{AttributeLimits, SpanFields, SpanIds};
    use crate::propagation::testing::head;
    use crate::rules::Direction;

    /// The attributes that these tags make of a request, as text, but for those that are typed.
    fn recorded(tags: &str) -> BTreeMap<String, any_value::Value> {
        let environment = |name: &str| (name == "POD").then(|| "pod-1".to_owned());
        let json = format!(r#"{{"custom_tags": {tags}}}"#);
        let tags = Config::parse(json.as_bytes(), &environment).unwrap().tags;
        let request = head(&[
            (":path", "/cart?order=o%207&empty="),
            ("x-user", "ada"),
            ("x-empty", ""),
            ("cookie", "tier=gold"),
            ("baggage", "account=4711"),
        ]);
        let response = head(&[("x-order", "o-1"), ("x-empty", "")]);
        let trailers = head(&[("grpc-status", "5")]);
        let code = 404u64.to_le_bytes();
        let millis = 1_234_567_890u64.to_le_bytes();
        let flags = (1u64 << 8).to_le_bytes();
        let values: Vec<&[u8]> = tags
            .properties
            .paths()
            .iter()
            .map(|path| match path.replace('\0', "/").as_str() {
                "response/code" => code.as_slice(),
                "request/duration" => &millis,
                "response/flags" => &flags,
                "upstream/address" => b"10.0.0.1:80",
                "upstream/uri_san_local_certificate" => b"spiffe://mesh/caller",
                "upstream/uri_san_peer_certificate" => b"spiffe://mesh/called",
                "metadata/filter_metadata/a.b/c/d" => b"deep",
                "xds/upstream_host_metadata/filter_metadata/lb/canary" => &[1],
                // As a later filter has set it.
                "request/headers/x-user" => b"grace",
                _ => b"",
            })
            .collect();
        let values = tags.properties.values(Direction::Outbound, &values);
        let facts = Facts { response: &response, trailers: &trailers, properties: &values };
        let ids = SpanIds {
            trace_id: TraceId::from(1),
            span_id: SpanId::from(2),
            parent_span_id: None,
            flags: TraceFlags::SAMPLED,
            trace_state: b"",
        };
        let mut fields = SpanFields::start(ids, 1, AttributeLimits::default());
        let early = tags.at_request(&mut fields.tags, &request);
        tags.at_end(&mut fields.tags, &early, &facts);
        let encoded = fields.end(b"GET", &SpanKind::Client, 2, &Status::Unset);
        let span = Span::decode(encoded.bytes.as_slice()).unwrap();
        let pairs = span.attributes.into_iter();
        pairs.map(|pair| (pair.key, pair.value.unwrap().value.unwrap())).collect()
    }

    #[track_caller]
    fn check_value(member: &str, expected: Option<any_value::Value>) {
        let found = recorded(&format!(r#"[{{"tag": "a", {member}}}]"#));
        let expected = expected.into_iter().map(|value| ("a".to_owned(), value)).collect();
        assert_eq!(found, expected, "{member}");
    }

    #[track_caller]
    fn check(member: &str, expected: &str) {
        let text = any_value::Value::StringValue(expected.to_owned());
        check_value(member, (!expected.is_empty()).then_some(text));
    }

    #[test]
    fn every_source_has_its_value() {
        check(r#""literal": {"value": "v"}"#, "v");
        check(r#""environment": {"name": "POD"}"#, "pod-1");
        check(r#""request_header": {"name": "X-User"}"#, "ada");
        check(r#""header": {"name": "x-user"}"#, "ada");
        check(r#""response_header": {"name": "x-order"}"#, "o-1");
        check(r#""response_trailer": {"name": "grpc-status"}"#, "5");
        check(r#""query_parameter": {"name": "order"}"#, "o 7");
        check(r#""cookie": {"name": "tier"}"#, "gold");
        check(r#""baggage": {"name": "account"}"#, "4711");
        check(r#""property": {"path": ["upstream", "address"]}"#, "10.0.0.1:80");
        check(r#""identity": "source""#, "spiffe://mesh/caller");
        check(r#""identity": "destination""#, "spiffe://mesh/called");
        check(
            r#""metadata": {"kind": {"request": {}},
                "metadataKey": {"key": "a.b", "path": [{"key": "c"}, {"key": "d"}]}}"#,
            "deep",
        );
        check(
            r#""metadata": {"kind": {"host": {}},
                "metadata_key": {"key": "lb", "path": [{"key": "canary"}]}}"#,
            "true",
        );
        let code = Some(any_value::Value::IntValue(404));
        check_value(r#""property": {"path": "response.code"}"#, code);
        check(r#""property": {"path": "response.code", "type": "string"}"#, "404");
    }

    #[test]
    fn defaults_stand_for_what_is_missing_and_not_for_what_is_empty() {
        for source in ["request_header", "response_header", "query_parameter", "baggage", "cookie"]
        {
            check(&format!(r#""{source}": {{"name": "none", "default_value": "d"}}"#), "d");
            check(&format!(r#""{source}": {{"name": "none"}}"#), "");
        }
        check(r#""request_header": {"name": "x-empty", "default_value": "d"}"#, "");
        check(r#""response_header": {"name": "x-empty", "default_value": "d"}"#, "");
        check(r#""query_parameter": {"name": "empty", "default_value": "d"}"#, "");
        check(r#""environment": {"name": "NONE", "default_value": "d"}"#, "d");
        check(r#""environment": {"name": "NONE"}"#, "");
        check(r#""property": {"path": "xds.route_name", "default_value": "d"}"#, "d");
        check(
            r#""metadata": {"kind": {"route": {}}, "default_value": "d",
                "metadata_key": {"key": "a", "path": [{"key": "b"}]}}"#,
            "d",
        );
    }

    #[test]
    fn formats_join_texts_and_values() {
        for (format, expected) in [
            ("plain 100%%", "plain 100%"),
            ("%REQ(X-USER)%-%RESP(X-ORDER)%", "ada-o-1"),
            ("%REQ(X-NONE?X-USER):2%", "ad"),
            ("%REQ(X-NONE?:PATH):5%", "/cart"),
            ("%REQ(X-NONE)%", ""),
            ("[%REQ(X-NONE)%]", "[]"),
            ("%RESPONSE_CODE%/%RESPONSE_FLAGS%/%DURATION%", "404/NR/1234"),
            ("%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.1"),
            ("%TRAILER(grpc-status)%", "5"),
            ("%ENVIRONMENT(POD):3%", "pod"),
            ("%DYNAMIC_METADATA(a.b:c:d):2%", "de"),
            ("%UPSTREAM_METADATA(lb:canary)%", "true"),
            ("%PROTOCOL%", ""),
        ] {
            check(&format!(r#""value": "{format}""#), expected);
            check(&format!(r#""formatter": {{"value": "{format}"}}"#), expected);
        }
    }

    /// The same operator has the same value, whatever it is joined with.
    #[test]
    fn request_headers_are_those_that_arrived() {
        check(r#""value": "%REQ(X-USER)%""#, "ada");
        check(r#""value": "%REQ(X-USER)%/%RESPONSE_CODE%""#, "ada/404");
        check(r#""value": "%RESP(X-NONE)%%REQ(X-NONE?X-USER)%%REQ(X-EMPTY)%""#, "ada");
        check(r#""value": "%REQ(X-USER):2%%RESP(X-ORDER)%", "redact": "mask""#, "*****");
        check(r#""request_header": {"name": "x-user", "read": "start"}"#, "ada");
    }

    #[test]
    fn request_headers_may_be_read_at_the_end() {
        check(r#""request_header": {"name": "X-User", "read": "end"}"#, "grace");
        check(r#""header": {"name": "x-a", "default_value": "d", "read": "end"}"#, "d");
        check(r#""value": "%REQ(X-NONE?X-USER):3%", "read": "end""#, "gra");
        check(
            r#""formatter": {"value": "%REQ(X-USER)%-%RESP(X-ORDER)%", "read": "end"}"#,
            "grace-o-1",
        );
    }

    /// What is kept of a request is bounded, and enough for the limit on values and for a hash.
    #[test]
    fn early_values_are_bounded() {
        let lens = |tag: &str, value: &str| {
            let json = format!(
                r#"{{"attribute_limits": {{"attribute_value_length_limit": 32}},
                     "custom_tags": [{{"tag": "a", {tag}, "value": "%REQ(X)%%RESPONSE_CODE%"}}]}}"#
            );
            let tags = Config::parse(json.as_bytes(), &|_| None).unwrap().tags;
            let EarlyValues(values) =
                tags.at_request(&mut Attributes::new(32), &head(&[("x", value)]));
            values.into_iter().map(|value| value.map(|value| value.len())).collect::<Vec<_>>()
        };
        let (short, long) = ("a".repeat(33), "a".repeat(100_000));
        assert_eq!(lens(r#""redact": null"#, &short), [Some(33)]);
        assert_eq!(lens(r#""redact": null"#, &long), [Some(160)]);
        assert_eq!(lens(r#""redact": "mask""#, &long), [Some(160)]);
        assert_eq!(lens(r#""redact": "hash""#, &long), [Some(8_192)]);
    }

    #[test]
    fn values_are_redacted_and_cut_and_defaults_are_not() {
        let account = r#""baggage": {"name": "account"}"#;
        check(&format!(r#"{account}, "redact": "mask""#), "****");
        check(&format!(r#"{account}, "maxLength": 3"#), "471");
        check(&format!(r#"{account}, "redact": "hash""#), "de650d61f5bd166a91f8ccec3158297d");
        check(r#""property": {"path": "response.code"}, "redact": "mask""#, "***");
        let none = r#""cookie": {"name": "none", "default_value": "unknown"}"#;
        check(&format!(r#"{none}, "redact": "hash""#), "unknown");
        check(r#""literal": {"value": "secret"}, "redact": "mask""#, "******");
        check(r#""request_header": {"name": "x-empty"}, "redact": "hash""#, "");
    }

    #[test]
    fn tags_by_name_are_those_of_a_list() {
        let by_name = r#"{"user": {"header": {"name": "x-user", "defaultValue": "-"}},
                          "pod": {"environment": {"name": "POD"}},
                          "env": {"literal": {"value": "prod"}},
                          "code": {"formatter": {"value": "%RESPONSE_CODE%"}}}"#;
        let list = r#"[{"tag": "user", "requestHeader": {"name": "x-user", "defaultValue": "-"}},
                       {"tag": "pod", "environment": {"name": "POD"}},
                       {"tag": "env", "literal": {"value": "prod"}},
                       {"tag": "code", "value": "%RESPONSE_CODE%"}]"#;
        let expected = [("code", "404"), ("env", "prod"), ("pod", "pod-1"), ("user", "ada")];
        let expected: BTreeMap<_, _> = expected
            .map(|(key, text)| (key.to_owned(), any_value::Value::StringValue(text.to_owned())))
            .into();
        assert_eq!((recorded(by_name), recorded(list)), (expected.clone(), expected));
    }

    #[test]
    fn only_what_tags_ask_for_is_read() {
        let asked = |tag: &str| {
            let json = format!(r#"{{"custom_tags": [{{"tag": "a", {tag}}}]}}"#);
            let tags = Config::parse(json.as_bytes(), &|_| None).unwrap().tags;
            let phases = [Phase::Request, Phase::Response, Phase::Trailers, Phase::Properties];
            phases.map(|phase| tags.asks(phase))
        };
        assert_eq!(asked(r#""request_header": {"name": "x"}"#), [false; 4]);
        assert_eq!(asked(r#""value": "%REQ(X)%""#), [false; 4]);
        assert_eq!(asked(r#""response_header": {"name": "x"}"#), [false, true, false, false]);
        assert_eq!(asked(r#""value": "%REQ(X)%%RESP(X)%""#), [false, true, false, false]);
        assert_eq!(asked(r#""value": "%TRAILER(X)%%PROTOCOL%""#), [false, false, true, true]);
    }
}
