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
use crate::head::{self, Head};
use crate::otlp::Attributes;

use self::format::Part;
use self::property::Properties;
use self::redact::Transformation;
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
    pub properties: Properties,
    /// What those at the end ask for: bits of [`Phase`].
    asks: u8,
}

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

/// What is known of a request when tags are looked up. What no tag asks for may be left empty.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'f, 'a> {
    pub request: &'f Head<'a>,
    pub response: &'f Head<'a>,
    pub trailers: &'f Head<'a>,
    /// The values of [`Properties::values`], in that order; one that is absent is empty.
    pub properties: &'f [&'a [u8]],
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
    pub fn new(marks: Attributes, constant: Attributes) -> Self {
        let (request, end) = (Vec::new(), Vec::new());
        Self { marks, constant, request, end, properties: Properties::default(), asks: 0 }
    }

    /// Adds a tag to those of the request, or of its end, when its value is known.
    pub fn push(&mut self, tag: Tag) {
        let asks = tag.value.asks();
        if asks & !Phase::Request.bit() == 0 {
            self.request.push(tag);
        } else {
            self.asks |= asks;
            self.end.push(tag);
        }
    }

    /// Adds the tags that the request's headers say.
    pub fn at_request(&self, attributes: &mut Attributes, request: &Head<'_>) {
        attributes.append(&self.constant);
        let none = &head::EMPTY;
        let facts = Facts { request, response: none, trailers: none, properties: &[] };
        add_all(&self.request, attributes, &facts);
    }

    /// Adds the tags whose values are known at the request's end.
    pub fn at_end(&self, attributes: &mut Attributes, facts: &Facts<'_, '_>) {
        add_all(&self.end, attributes, facts);
    }

    /// Returns the names of the request headers that tags are made of; a name may come twice.
    pub fn request_headers(&self) -> impl Iterator<Item = &str> {
        let sources = self.request.iter().chain(&self.end).flat_map(|tag| tag.value.sources());
        sources.filter_map(Source::request_header)
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

fn add_all(tags: &[Tag], attributes: &mut Attributes, facts: &Facts<'_, '_>) {
    for tag in tags {
        tag.add(attributes, facts);
    }
}

impl Tag {
    fn add(&self, attributes: &mut Attributes, facts: &Facts<'_, '_>) {
        let found = match &self.value {
            Value::Source(source) => source.find(facts),
            Value::Format(parts) => Some(Found::Text(format::text(parts, facts).into())),
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
                _ => b"",
            })
            .collect();
        let values = tags.properties.values(Direction::Outbound, &values);
        let facts = Facts {
            request: &request,
            response: &response,
            trailers: &trailers,
            properties: &values,
        };
        let ids = SpanIds {
            trace_id: TraceId::from(1),
            span_id: SpanId::from(2),
            parent_span_id: None,
            flags: TraceFlags::SAMPLED,
            trace_state: b"",
        };
        let mut fields = SpanFields::start(ids, 1, AttributeLimits::default());
        tags.at_request(&mut fields.tags, &request);
        tags.at_end(&mut fields.tags, &facts);
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
        assert_eq!(asked(r#""value": "%REQ(X)%%RESP(X)%""#), [true, true, false, false]);
        assert_eq!(asked(r#""value": "%TRAILER(X)%%PROTOCOL%""#), [false, false, true, true]);
    }
}
