//! The configuration: JSON bytes in, everything a request needs precompiled out.

mod compile;
mod decode;
mod error;
mod json;
pub mod raw;

use std::time::Duration;

use crate::delivery::RetryPolicy;
use crate::late::ExportOn;
use crate::limit::Limit;
use crate::otlp::AttributeLimits;
use crate::propagation::Propagation;
use crate::queue::Limits;
use crate::ratio::Ratio;
use crate::request::TokenHeader;
use crate::response::Response;
use crate::rules::Rules;
use crate::tags::Tags;

use decode::Decode;
use json::Json;
use raw::RawConfig;

pub use error::ConfigError;

/// A configuration in force.
#[derive(Debug, Clone)]
pub struct Config {
    pub service_name: Option<String>,
    pub resource_attributes: Vec<(String, String)>,
    pub propagation: Propagation,
    /// Share of roots that are sampled where no rule says otherwise.
    pub ratio: Ratio,
    pub rules: Rules,
    /// Spans that are made at most, of all reasons.
    pub limit: Option<Limit>,
    pub export_on: Option<ExportOn>,
    /// Headers that hold tokens, by the places that conditions name.
    pub tokens: Vec<TokenHeader>,
    /// Headers that are removed before the upstream.
    pub strip: Vec<String>,
    pub tags: Tags,
    pub attribute_limits: AttributeLimits,
    pub response: Response,
    pub exporter: Option<Exporter>,
}

/// Where spans go, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exporter {
    pub protocol: Protocol,
    pub cluster: String,
    /// What the receiver is called in `:authority`.
    pub authority: String,
    pub path: String,
    pub timeout: Duration,
    /// Name and value of each header besides those that the protocol asks for.
    pub headers: Vec<(String, String)>,
    /// Whether bodies are compressed, where the host can.
    pub gzip: bool,
    pub limits: Limits,
    pub retry: RetryPolicy,
    /// How often a batch that is not full is sent.
    pub interval: Duration,
}

/// How spans are written for a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    OtlpHttp,
    OtlpGrpc,
    Zipkin,
}

impl Config {
    /// Reads a configuration. `environment` looks a variable of the VM up.
    ///
    /// The first thing that is wrong is returned, with its path, what was expected there and what
    /// was found. An empty input is the empty object, which is valid.
    pub fn parse(
        json: &[u8],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        compile::config(RawConfig::decode(Json::parse(json)?)?, environment)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::Form;
    use crate::propagation::baggage;
    use crate::trust::Trust;

    fn environment(name: &str) -> Option<String> {
        (name == "POD_NAME").then(|| "checkout-1".to_owned())
    }

    fn parse(json: &str) -> Result<Config, ConfigError> {
        Config::parse(json.as_bytes(), &environment)
    }

    #[track_caller]
    fn check_refused(json: &str, expected: &str) {
        let error = parse(json).map(|_| json.to_owned()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{json}");
    }

    /// A rule at place 1 with this member beside its name.
    fn rule(member: &str) -> String {
        format!(r#"{{"sampling": {{"rules": [{{"name": "a"}}, {{"name": "b", {member}}}]}}}}"#)
    }

    fn tag(member: &str) -> String {
        format!(r#"{{"custom_tags": [{{"tag": "a", {member}}}]}}"#)
    }

    fn exporter(member: &str) -> String {
        format!(r#"{{"exporter": {{"otlp": {{"cluster": "c", {member}}}}}}}"#)
    }

    fn retry(member: &str) -> String {
        format!(r#"{{"exporter": {{"otlp": {{"cluster": "c"}}, "retry": {{{member}}}}}}}"#)
    }

    fn batch(member: &str) -> String {
        format!(r#"{{"exporter": {{"otlp": {{"cluster": "c"}}, "batch": {{{member}}}}}}}"#)
    }

    #[test]
    fn nothing_configured_is_valid() {
        for nothing in ["", " \n", "{}", r#"{"sampling": {}, "propagation": {}, "exporter": null}"#]
        {
            let config = parse(nothing).unwrap();
            let read = vec![Form::TraceContext, Form::B3Single, Form::B3Multi];
            assert_eq!(config.propagation.extract, read);
            assert_eq!(config.propagation.inject, Some(vec![Form::TraceContext]));
            assert_eq!(config.propagation.trust, Trust::Accept);
            assert_eq!(config.ratio, Ratio::ALWAYS);
            assert_eq!(config.exporter, None);
        }
    }

    #[test]
    fn b3_has_two_forms_and_other_formats_one() {
        let config = parse(
            r#"{"propagation": {
                "extract": ["b3multi", "jaeger", "b3", "xray"],
                "inject": ["datadog", "ottrace", "baggage", "grpc-trace-bin", "b3multi"]}}"#,
        );
        let read = vec![Form::B3Single, Form::B3Multi, Form::Jaeger, Form::XRay];
        let written = vec![Form::Datadog, Form::OtTrace, Form::GrpcTraceBin, Form::B3Multi];
        let propagation = config.unwrap().propagation;
        assert_eq!((propagation.extract, propagation.inject), (read, Some(written)));
    }

    #[test]
    fn baggage_is_limited_where_a_limit_is_given() {
        for (limits, expected) in [
            ("{}", None),
            (r#"{"max_members": 64}"#, Some((64, usize::MAX))),
            (r#"{"max_bytes": 9000}"#, Some((usize::MAX, 9000))),
            (r#"{"max_members": 65, "max_bytes": 8192}"#, Some((65, 8192))),
        ] {
            let config = parse(&format!(r#"{{"propagation": {{"baggage": {limits}}}}}"#)).unwrap();
            let limits = |(max_members, max_bytes)| baggage::Limits { max_members, max_bytes };
            assert_eq!(config.propagation.baggage, expected.map(limits));
        }
    }

    #[test]
    fn exporter_defaults_are_those_of_opentelemetry() {
        let config = parse(r#"{"exporter": {"otlp": {"cluster": "c"}}}"#).unwrap();
        let expected = Exporter {
            protocol: Protocol::OtlpHttp,
            cluster: "c".to_owned(),
            authority: "c".to_owned(),
            path: "/v1/traces".to_owned(),
            timeout: Duration::from_secs(10),
            headers: vec![],
            gzip: false,
            limits: Limits {
                max_queue_spans: 2048,
                max_queue_bytes: 8 << 20,
                max_batch_spans: 512,
                max_batch_bytes: 2 << 20,
            },
            retry: RetryPolicy {
                initial_interval: Duration::from_secs(1),
                max_interval: Duration::from_secs(30),
                max_elapsed_time: Duration::from_secs(300),
            },
            interval: Duration::from_secs(1),
        };
        assert_eq!(config.exporter, Some(expected.clone()));
        let config = parse(&exporter(r#""protocol": "grpc""#)).unwrap();
        let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export".to_owned();
        let grpc = Exporter { protocol: Protocol::OtlpGrpc, path, ..expected.clone() };
        assert_eq!(config.exporter, Some(grpc));
        let config = parse(r#"{"exporter": {"zipkin": {"cluster": "c"}}}"#).unwrap();
        let path = "/api/v2/spans".to_owned();
        let zipkin = Exporter { protocol: Protocol::Zipkin, path, ..expected.clone() };
        assert_eq!(config.exporter, Some(zipkin));
        for (compression, gzip) in [("gzip", true), ("none", false)] {
            let config = parse(&exporter(&format!(r#""compression": "{compression}""#))).unwrap();
            assert_eq!(config.exporter, Some(Exporter { gzip, ..expected.clone() }));
        }
    }

    #[test]
    fn values_come_from_the_environment() {
        let config = parse(&exporter(
            r#""headers": [{"name": "X-Pod", "environment": {"name": "POD_NAME"}},
                           {"name": "x-b", "environment": {"name": "NONE", "default_value": "d"}},
                           {"name": "x-c", "literal": {"value": "l"}}]"#,
        ));
        let headers = config.unwrap().exporter.unwrap().headers;
        let expected = [("x-pod", "checkout-1"), ("x-b", "d"), ("x-c", "l")];
        assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn receivers_are_called_by_what_a_host_may_be() {
        for (cluster, expected) in [
            ("otel-collector", "otel-collector"),
            ("10.0.0.1:4318", "10.0.0.1:4318"),
            ("outbound|4318||otel.obs.svc.cluster.local", "otel.obs.svc.cluster.local:4318"),
            ("outbound|4318|v1|otel", "otel:4318"),
            ("a/b c", "otlp"),
            ("a|b", "otlp"),
        ] {
            let json = format!(r#"{{"exporter": {{"otlp": {{"cluster": "{cluster}"}}}}}}"#);
            assert_eq!(parse(&json).unwrap().exporter.unwrap().authority, expected);
        }
    }

    #[test]
    fn values_on_every_span_are_short() {
        let value = "a".repeat(1025);
        check_refused(
            &tag(&format!(r#""literal": {{"value": "{value}"}}"#)),
            "custom_tags[0].literal.value: expected a value of at most 1024 characters, but found \
             1025 characters",
        );
    }

    #[test]
    fn whole_numbers_may_be_written_as_doubles() {
        let config = parse(&batch(r#""interval_ms": 5e1, "max_queue_spans": 10.0"#)).unwrap();
        let exporter = config.exporter.unwrap();
        assert_eq!(exporter.interval, Duration::from_millis(50));
        assert_eq!((exporter.limits.max_queue_spans, exporter.limits.max_batch_spans), (10, 10));
    }

    #[test]
    fn what_is_not_an_object_of_known_keys_is_refused() {
        check_refused("[]", "expected an object, but found an array");
        check_refused("1.5", "expected an object, but found 1.5");
        check_refused("{", "expected a string, but found the end at line 1 column 2");
        check_refused(
            "{}{}",
            "expected the end of the configuration, but found \"{\" at line 1 column 3",
        );
        check_refused(
            r#"{"service_name": "a", "service_name": "b"}"#,
            "expected one JSON object, but found the key \"service_name\" twice at line 1 column 37",
        );
        check_refused(
            r#"{"responses": {}}"#,
            "responses: expected a known key, one of `service_name`, `resource_attributes`, \
             `propagation`, `sampling`, `custom_tags`, `allow_sensitive_headers`, \
             `attribute_limits`, `exporter`, `response`, but found \"responses\"",
        );
    }

    #[test]
    fn wrong_tags_are_refused_with_their_path() {
        let sources = "one of `literal`, `environment`, `request_header`, `header`, \
             `response_header`, `response_trailer`, `query_parameter`, `cookie`, `baggage`, \
             `property`, `identity`, `metadata`, `value`, `formatter`";
        let secret = "expected a header without credentials, or one of `allow_sensitive_headers`, \
             but found";
        let header = |source: &str| format!(r#""{source}": {{"name": "Authorization"}}"#);
        for (member, expected) in [
            (
                r#""literal": {"value": "a"}, "environment": {"name": "A"}"#.to_owned(),
                format!(": expected {sources}, but found several of them"),
            ),
            (
                r#""literal": null, "redact": "hash""#.to_owned(),
                format!(": expected {sources}, but found none of them"),
            ),
            (
                r#""literal": {"value": ""}"#.to_owned(),
                ".literal.value: expected a non-empty string, but found \"\"".to_owned(),
            ),
            (header("request_header"), format!(".request_header.name: {secret} \"authorization\"")),
            (header("responseHeader"), format!(".responseHeader.name: {secret} \"authorization\"")),
            (
                header("response_trailer"),
                format!(".response_trailer.name: {secret} \"authorization\""),
            ),
            (header("header"), format!(".header.name: {secret} \"authorization\"")),
            (
                r#""value": "a %REQ(X?Cookie):3%""#.to_owned(),
                format!(".value: {secret} \"cookie\""),
            ),
            (
                r#""formatter": {"value": "%RESP(SET-COOKIE)%"}"#.to_owned(),
                format!(".formatter.value: {secret} \"set-cookie\""),
            ),
            (
                r#""property": {"path": "request.headers.X-Api-Key"}"#.to_owned(),
                format!(".property.path: {secret} \"x-api-key\""),
            ),
            (
                r#""property": {"path": ["response", "headers", "set-cookie"]}"#.to_owned(),
                format!(".property.path: {secret} \"set-cookie\""),
            ),
            (
                r#""property": {"path": "request.headers"}"#.to_owned(),
                ".property.path: expected the path of one value, but found \"request.headers\""
                    .to_owned(),
            ),
            (
                r#""property": {"path": "response"}"#.to_owned(),
                ".property.path: expected the path of one value, but found \"response\"".to_owned(),
            ),
            (
                r#""property": {"path": "a..b"}"#.to_owned(),
                ".property.path: expected a path such as `xds.route_name`, or its parts, but \
                 found \"a..b\""
                    .to_owned(),
            ),
            (
                r#""property": {"path": "request.headers[x-user]"}"#.to_owned(),
                ".property.path: expected a path such as `xds.route_name`, or its parts, but \
                 found \"request.headers[x-user]\""
                    .to_owned(),
            ),
            (
                r#""property": {"path": []}"#.to_owned(),
                ".property.path: expected at least one, but found an empty array".to_owned(),
            ),
            (
                r#""property": {"path": "a", "type": "integer"}"#.to_owned(),
                ".property.type: expected one of `string`, `int`, `double`, `bool`, but found \
                 \"integer\""
                    .to_owned(),
            ),
            (
                r#""identity": "peer""#.to_owned(),
                ".identity: expected one of `source`, `destination`, but found \"peer\"".to_owned(),
            ),
            (
                r#""cookie": {"name": ""}"#.to_owned(),
                ".cookie.name: expected a non-empty string, but found \"\"".to_owned(),
            ),
            (
                r#""baggage": {"nam": "a"}"#.to_owned(),
                ".baggage.nam: expected a known key, one of `name`, `default_value`, but found \
                 \"nam\""
                    .to_owned(),
            ),
            (
                r#""metadata": {"kind": {"host": {}}, "metadata_key": {"key": "a"}}"#.to_owned(),
                ".metadata.metadata_key: expected a namespace, and a key in it, but found \"a\""
                    .to_owned(),
            ),
            (
                r#""metadata": {"kind": {"peer": {}}, "metadata_key": {"key": "a"}}"#.to_owned(),
                ".metadata.kind: expected one of `request`, `route`, `cluster`, `host`, but found \
                 \"peer\""
                    .to_owned(),
            ),
            (
                r#""metadata": {"kind": {}, "metadata_key": {"key": "a"}}"#.to_owned(),
                ".metadata.kind: expected an object with one key, such as `request: {}`, but \
                 found an object"
                    .to_owned(),
            ),
            (
                r#""value": "50% off""#.to_owned(),
                ".value: expected text with commands such as %REQ(X?Y):12%, and %% for a %, but \
                 found \"% off\""
                    .to_owned(),
            ),
            (
                r#""value": """#.to_owned(),
                ".value: expected a non-empty string, but found \"\"".to_owned(),
            ),
            (
                r#""value": "%DYNAMIC_METADATA(a)%""#.to_owned(),
                ".value: expected a namespace, and a key in it, but found \"a\"".to_owned(),
            ),
            (
                r#""value": "%REQ()%""#.to_owned(),
                ".value: expected the name of a header, but found \"\"".to_owned(),
            ),
            (
                r#""cookie": {"name": "a"}, "max_length": 0"#.to_owned(),
                ".max_length: expected a whole number from 1 up, but found 0".to_owned(),
            ),
            (
                r#""cookie": {"name": "a"}, "redact": "drop""#.to_owned(),
                ".redact: expected one of `hash`, `mask`, but found \"drop\"".to_owned(),
            ),
            (
                r#""cookie": {"name": "a"}, "max_length": 3, "maxLength": 3"#.to_owned(),
                ".max_length: expected the key once, in one spelling, but found \"max_length\""
                    .to_owned(),
            ),
        ] {
            check_refused(&tag(&member), &format!("custom_tags[0]{expected}"));
        }
    }

    #[test]
    fn unknown_commands_are_refused_with_those_that_are_known() {
        for command in ["START_TIME", "REQUEST(X)", "PROTOCOL()"] {
            let error = parse(&tag(&format!(r#""value": "%{command}%""#))).unwrap_err().to_string();
            let name = command.split('(').next().unwrap();
            assert!(
                error.starts_with("custom_tags[0].value: expected a known command, one of `REQ`,"),
                "{error}"
            );
            assert!(error.ends_with(&format!("but found \"{name}\"")), "{error}");
        }
    }

    #[test]
    fn tags_by_name_are_refused_with_their_name() {
        for (tags, expected) in [
            (
                r#"{"url.path": {"literal": {"value": "c"}}}"#,
                "custom_tags.url.path: expected a tag that the filter does not set itself, but \
                 found \"url.path\"",
            ),
            (
                r#"{"a": {"header": {"name": "cookie"}}}"#,
                "custom_tags.a.header.name: expected a header without credentials, or one of \
                 `allow_sensitive_headers`, but found \"cookie\"",
            ),
            (
                r#"{"a": {"environment": {"defaultValue": "b"}}}"#,
                "customTags.a.environment.name: expected a value, which is required, but found none",
            ),
            (r#"{"a": 1}"#, "customTags.a: expected an object, but found 1"),
            (r#""a""#, "customTags: expected an array, or an object by name, but found \"a\""),
            (
                r#"[], "custom_tags": []"#,
                "custom_tags: expected the key once, in one spelling, but found \"custom_tags\"",
            ),
        ] {
            check_refused(&format!(r#"{{"customTags": {tags}}}"#), expected);
        }
        let error = parse(r#"{"customTags": {"a": {"tag": "b"}}}"#).unwrap_err().to_string();
        assert!(error.starts_with("customTags.a.tag: expected a known key, one of `redact`,"));
    }

    #[test]
    fn limits_have_bounds() {
        let limits = |members: &str| format!(r#"{{"attribute_limits": {{{members}}}}}"#);
        let default = AttributeLimits { count: 128, value_length: 1024 };
        assert_eq!(parse("").unwrap().attribute_limits, default);
        let json = limits(r#""attribute_count_limit": 0, "attributeValueLengthLimit": 32"#);
        let least = AttributeLimits { count: 0, value_length: 32 };
        assert_eq!(parse(&json).unwrap().attribute_limits, least);
        for (key, value, bounds) in [
            ("attribute_count_limit", 1025, "0 to 1024"),
            ("attribute_value_length_limit", 31, "32 to 16384"),
            ("attribute_value_length_limit", 16385, "32 to 16384"),
        ] {
            check_refused(
                &limits(&format!(r#""{key}": {value}"#)),
                &format!(
                    "attribute_limits.{key}: expected a whole number from {bounds}, but found \
                     {value}"
                ),
            );
        }
    }

    #[test]
    fn responses_are_refused_with_their_path() {
        for (members, expected) in [
            (
                r#""trace_id_header": "x y""#,
                "trace_id_header: expected the name of a header, but found \"x y\"",
            ),
            (
                r#""trace_id_header": """#,
                "trace_id_header: expected the name of a header, but found \"\"",
            ),
            (
                r#""trace_id_header": ":path""#,
                "trace_id_header: expected a header that says nothing else of the response, but \
                 found \":path\"",
            ),
            (
                r#""trace_id_header": "Content-Length""#,
                "trace_id_header: expected a header that says nothing else of the response, but \
                 found \"content-length\"",
            ),
            (
                r#""trace_id_header": "Set-Cookie""#,
                "trace_id_header: expected a header that says nothing else of the response, but \
                 found \"set-cookie\"",
            ),
            (
                r#""trace_id_header": "traceresponse""#,
                "trace_id_header: expected a header that says nothing else of the response, but \
                 found \"traceresponse\"",
            ),
            (
                r#""when": "never""#,
                "when: expected one of `always`, `sampled`, `forced`, but found \"never\"",
            ),
            (
                r#""server_timing": "yes""#,
                "server_timing: expected true or false, but found \"yes\"",
            ),
        ] {
            check_refused(
                &format!(r#"{{"response": {{{members}}}}}"#),
                &format!("response.{expected}"),
            );
        }
        let config = parse(r#"{"response": {"traceIdHeader": "X-Trace-Id"}}"#).unwrap();
        assert_eq!(config.response.trace_id_header.as_deref(), Some("x-trace-id"));
    }

    #[test]
    fn sensitive_headers_may_be_allowed_by_name() {
        let tag = r#""custom_tags": [{"tag": "a", "request_header": {"name": "Cookie"}}]"#;
        let allowed = |names: &str| format!(r#"{{"allow_sensitive_headers": [{names}], {tag}}}"#);
        assert!(parse(&allowed(r#""authorization", "COOKIE", "x-other""#)).is_ok());
        assert!(parse(&allowed(r#""authorization""#)).is_err());
    }

    #[test]
    fn wrong_values_are_refused_with_their_path() {
        for (json, expected) in [
            (r#"{"service_name": 1}"#.to_owned(), "service_name: expected a string, but found 1"),
            (
                r#"{"service_name": ""}"#.to_owned(),
                "service_name: expected a non-empty string, but found \"\"",
            ),
            (
                r#"{"resource_attributes": {"a.b": true}}"#.to_owned(),
                "resource_attributes.a.b: expected a string, but found true",
            ),
            (
                r#"{"propagation": {"extract": ["b3", "zipkin"]}}"#.to_owned(),
                "propagation.extract[1]: expected one of `tracecontext`, `b3`, `b3multi`, \
                 `jaeger`, `xray`, `ottrace`, `datadog`, `grpc-trace-bin`, `baggage`, `none`, but \
                 found \"zipkin\"",
            ),
            (
                r#"{"propagation": {"baggage": {"max_members": 63}}}"#.to_owned(),
                "propagation.baggage.max_members: expected a whole number from 64 up, but found 63",
            ),
            (
                r#"{"propagation": {"baggage": {"max_bytes": 8191}}}"#.to_owned(),
                "propagation.baggage.max_bytes: expected a whole number from 8192 up, but found \
                 8191",
            ),
            (
                r#"{"propagation": {"baggage": {"max_entries": 64}}}"#.to_owned(),
                "propagation.baggage.max_entries: expected a known key, one of `max_members`, \
                 `max_bytes`, but found \"max_entries\"",
            ),
            (
                r#"{"propagation": {"inject": ["b3", "b3"]}}"#.to_owned(),
                "propagation.inject[1]: expected each format once, but found it again",
            ),
            (
                r#"{"propagation": {"inject": ["b3", "none"]}}"#.to_owned(),
                "propagation.inject: expected `none` alone or other formats, but found both",
            ),
            (
                r#"{"propagation": {"egress": [{"except": "a"}]}}"#.to_owned(),
                "propagation.egress[0].except: expected a known key, one of `authority`, `action`, \
                 but found \"except\"",
            ),
            (
                r#"{"sampling": {"ratio": 1.5}}"#.to_owned(),
                "sampling.ratio: expected a number from 0 to 1, but found 1.5",
            ),
            (
                r#"{"sampling": {"ratio": "1"}}"#.to_owned(),
                "sampling.ratio: expected a number from 0 to 1, but found \"1\"",
            ),
            (
                r#"{"sampling": {"export": {}}}"#.to_owned(),
                "sampling.export: expected a known key, one of `ratio`, `precision`, `rules`, \
                 `limit`, `export_on`, but found \"export\"",
            ),
            (
                r#"{"sampling": {"rules": [{}]}}"#.to_owned(),
                "sampling.rules[0].name: expected a value, which is required, but found none",
            ),
            (
                r#"{"sampling": {"rules": [{"name": ""}]}}"#.to_owned(),
                "sampling.rules[0].name: expected a non-empty string, but found \"\"",
            ),
            (
                r#"{"sampling": {"rules": [{"name": "a"}, {"name": "a"}]}}"#.to_owned(),
                "sampling.rules[1].name: expected a name that no other rule has, but found \
                 \"a\", which is the name of rules[0]",
            ),
            (
                rule(r#""limits": {}"#),
                "sampling.rules[1].limits: expected a known key, one of `name`, `match`, \
                 `decision`, `ratio`, `limit`, but found \"limits\"",
            ),
            (
                rule(r#""decision": "sample""#),
                "sampling.rules[1].decision: expected one of `force`, `drop`, `ignore`, \
                 `parent`, but found \"sample\"",
            ),
            (
                rule(r#""decision": "force", "ratio": 0.5"#),
                "sampling.rules[1].ratio: expected no ratio, since it goes with the decision \
                 `parent` alone, but found one",
            ),
            (
                rule(r#""ratio": -1"#),
                "sampling.rules[1].ratio: expected a number from 0 to 1, but found -1",
            ),
            (
                rule(r#""match": {"path": {"regex": "("}}"#),
                "sampling.rules[1].match.path.regex: expected a valid regular expression, but \
                 found \"(\"",
            ),
            (
                rule(r#""match": {"path": [{"regex": "a)|(b"}]}"#),
                "sampling.rules[1].match.path[0].regex: expected a valid regular expression, \
                 but found \"a)|(b\"",
            ),
            (
                rule(r#""match": {"path": [{"regex": "(a{1000}){1000}"}]}"#),
                "sampling.rules[1].match.path[0].regex: expected a valid regular expression, \
                 but found \"(a{1000}){1000}\"",
            ),
            (
                rule(r#""match": {"path": ["/a"]}"#),
                "sampling.rules[1].match.path[0]: expected an object, but found a string",
            ),
            (
                rule(r#""match": {"path": []}"#),
                "sampling.rules[1].match.path: expected at least one, but found an empty array",
            ),
            (
                rule(r#""match": {"path": [{}]}"#),
                "sampling.rules[1].match.path[0]: expected one of `exact`, `prefix`, `suffix`, \
                 `contains`, `regex`, but found none of them",
            ),
            (
                rule(r#""match": {"path": [{"exact": "/", "prefix": "/"}]}"#),
                "sampling.rules[1].match.path[0]: expected one of `exact`, `prefix`, `suffix`, \
                 `contains`, `regex`, but found both `exact` and `prefix`",
            ),
            (
                rule(r#""match": {"method": 1}"#),
                "sampling.rules[1].match.method: expected an object, but found 1",
            ),
            (
                rule(r#""match": {"headers": [{"exact": "1"}]}"#),
                "sampling.rules[1].match.headers[0].name: expected a value, which is required, \
                 but found none",
            ),
            (
                rule(r#""match": {"headers": [{"name": "x y", "exact": "1"}]}"#),
                "sampling.rules[1].match.headers[0].name: expected the name of a header, but \
                 found \"x y\"",
            ),
            (
                rule(r#""match": {"headers": [{"name": "", "exact": "1"}]}"#),
                "sampling.rules[1].match.headers[0].name: expected the name of a header, but \
                 found \"\"",
            ),
            (
                rule(r#""match": {"headers": {"name": ":status", "exact": "1"}}"#),
                "sampling.rules[1].match.headers.name: expected the name of a header, but \
                 found \":status\"",
            ),
            (
                rule(r#""match": {"headers": {"name": "x", "exact": true}}"#),
                "sampling.rules[1].match.headers.exact: expected a string, but found true",
            ),
            (
                rule(r#""match": {"headers": {"name": "x"}}"#),
                "sampling.rules[1].match.headers: expected one of `exact`, `prefix`, `suffix`, \
                 `contains`, `regex`, `present`, `token`, but found none of them",
            ),
            (
                rule(r#""match": {"headers": {"name": "x", "present": true, "exact": "1"}}"#),
                "sampling.rules[1].match.headers: expected `present`, `token` or a condition on the \
                 value, but found several of them",
            ),
            (
                rule(r#""match": {"direction": "in"}"#),
                "sampling.rules[1].match.direction: expected one of `inbound`, `outbound`, but \
                 found \"in\"",
            ),
            (
                tag(r#""request_header": {"name": "x\n"}"#),
                "custom_tags[0].request_header.name: expected the name of a header, but found \
                 \"x\\n\"",
            ),
            (
                tag(r#""environment": {"name": ""}"#),
                "custom_tags[0].environment.name: expected a non-empty string, but found \"\"",
            ),
            (
                r#"{"custom_tags": [{"tag": "", "literal": {"value": "a"}}]}"#.to_owned(),
                "custom_tags[0].tag: expected a non-empty string, but found \"\"",
            ),
            (
                r#"{"custom_tags": [{"tag": "url.path", "literal": {"value": "a"}}]}"#.to_owned(),
                "custom_tags[0].tag: expected a tag that the filter does not set itself, but \
                 found \"url.path\"",
            ),
            (
                r#"{"custom_tags": [{"tag": "a", "literal": {"value": "a"}},
                                    {"tag": "a", "literal": {"value": "b"}}]}"#
                    .to_owned(),
                "custom_tags[1].tag: expected a tag that no other entry has, but found \"a\", \
                 which is the tag of custom_tags[0]",
            ),
            (
                r#"{"exporter": {}}"#.to_owned(),
                "exporter: expected `otlp` or `zipkin`, but found neither",
            ),
            (
                r#"{"exporter": {"otlp": {"cluster": "a"}, "zipkin": {"cluster": "b"}}}"#
                    .to_owned(),
                "exporter: expected `otlp` or `zipkin`, but found both",
            ),
            (
                r#"{"exporter": {"zipkin": {"cluster": "c", "protocol": "grpc"}}}"#.to_owned(),
                "exporter.zipkin.protocol: expected a known key, one of `cluster`, `path`, `timeout_ms`, `compression`, \
                 `headers`, but found \"protocol\"",
            ),
            (
                r#"{"exporter": {"zipkin": {"cluster": "c", "path": "v2"}}}"#.to_owned(),
                "exporter.zipkin.path: expected a path that begins with /, without spaces, but \
                 found \"v2\"",
            ),
            (
                exporter(r#""protocol": "grpc", "path": "/a""#),
                "exporter.otlp.path: expected none, since the protocol `grpc` has its own, but \
                 found \"/a\"",
            ),
            (
                r#"{"exporter": {"otlp": {"cluster": ""}}}"#.to_owned(),
                "exporter.otlp.cluster: expected a non-empty string, but found \"\"",
            ),
            (
                exporter(r#""protocol": "grpc", "compression": "gzip""#),
                "exporter.otlp.compression: expected `none`, since the protocol is `grpc`, but \
                 found \"gzip\"",
            ),
            (
                exporter(r#""compression": "zstd""#),
                "exporter.otlp.compression: expected one of `none`, `gzip`, but found \"zstd\"",
            ),
            (
                exporter(r#""protocol": "http/json""#),
                "exporter.otlp.protocol: expected one of `http/protobuf`, `grpc`, but found \
                 \"http/json\"",
            ),
            (
                exporter(r#""path": "v1""#),
                "exporter.otlp.path: expected a path that begins with /, without spaces, but found \
                 \"v1\"",
            ),
            (
                exporter(r#""timeout_ms": 0"#),
                "exporter.otlp.timeout_ms: expected a whole number from 1 up, but found 0",
            ),
            (
                exporter(r#""timeout_ms": 1.5"#),
                "exporter.otlp.timeout_ms: expected a whole number from 0 to 4294967295, but \
                 found 1.5",
            ),
            (
                exporter(r#""headers": [{"name": "a", "environment": {"name": "NONE"}}]"#),
                "exporter.otlp.headers[0].environment.name: expected an environment variable \
                 of the VM, or a default_value, but found \"NONE\"",
            ),
            (
                exporter(r#""headers": [{"name": "a", "literal": {"value": "secret\n"}}]"#),
                "exporter.otlp.headers[0].literal.value: expected a value without control \
                 characters, but found one, such as a newline",
            ),
            (
                exporter(r#""headers": [{"name": "Content-Type", "literal": {"value": "a"}}]"#),
                "exporter.otlp.headers[0].name: expected a header that neither the exporter nor \
                 another entry sets, but found \"content-type\"",
            ),
            (
                exporter(r#""headers": [{"name": ":path", "literal": {"value": "a"}}]"#),
                "exporter.otlp.headers[0].name: expected a header that neither the exporter nor \
                 another entry sets, but found \":path\"",
            ),
            (
                exporter(r#""headers": [{"name": "a", "literal": "secret"}]"#),
                "exporter.otlp.headers[0].literal: expected an object, but found a string",
            ),
            (
                exporter(r#""headers": [{"name": "a", "literal": {"value": 1234567}}]"#),
                "exporter.otlp.headers[0].literal.value: expected a string, but found something \
                 else, which is not shown",
            ),
            (
                exporter(r#""headers": ["a: secret"]"#),
                "exporter.otlp.headers[0]: expected an object, but found a string",
            ),
            (
                exporter(r#""headers": "a=secret""#),
                "exporter.otlp.headers: expected an array, but found a string",
            ),
            (
                exporter(r#""headers": [{"name": "a"}]"#),
                "exporter.otlp.headers[0]: expected `literal` or `environment`, but found \
                 neither",
            ),
            (
                batch(r#""max_batch_spans": 0"#),
                "exporter.batch.max_batch_spans: expected a whole number from 1 up, but found 0",
            ),
            (
                batch(r#""max_batch_spans": 9, "max_queue_spans": 8"#),
                "exporter.batch.max_batch_spans: expected at most max_queue_spans, which is 8, \
                 but found 9",
            ),
            (
                batch(r#""max_batch_bytes": 9, "max_queue_bytes": 8"#),
                "exporter.batch.max_batch_bytes: expected at most max_queue_bytes, which is 8, \
                 but found 9",
            ),
            (
                batch(r#""interval_ms": 1"#),
                "exporter.batch.interval_ms: expected a whole number from 10 up, but found 1",
            ),
            (
                retry(r#""max_interval_ms": 0"#),
                "exporter.retry.max_interval_ms: expected a whole number from 1 up, but found 0",
            ),
            (
                retry(r#""initial_interval_ms": 0"#),
                "exporter.retry.initial_interval_ms: expected a whole number from 1 up, but found 0",
            ),
            (
                retry(r#""initial_interval_ms": 40000"#),
                "exporter.retry.initial_interval_ms: expected at most max_interval_ms, which is \
                 30000, but found 40000",
            ),
        ] {
            check_refused(&json, expected);
        }
    }

    /// A rule whose header holds a token with these members.
    fn token(members: &str) -> String {
        rule(&format!(r#""match": {{"headers": [{{"name": "x-t", "token": {{{members}}}}}]}}"#))
    }

    fn key(members: &str) -> String {
        token(&format!(r#""keys": [{{"id": "a", {members}}}]"#))
    }

    fn under(object: &str, members: &str) -> String {
        format!(r#"{{"{object}": {{{members}}}}}"#)
    }

    #[test]
    fn wrong_limits_and_boundaries_are_refused_with_their_path() {
        let (sampling, propagation) = (
            |members: &str| under("sampling", members),
            |members: &str| under("propagation", members),
        );
        let rate = "a number from 0.001 to 1000000";
        let one_of_ending = "sampling.export_on: expected one of `status`, `grpc_status`, \
            `response_flags`, `resets`, `min_duration_ms`, but found none of them";
        let no_limit =
            "no limit, since it goes with the decisions `force` and `parent`, but found one";
        for (json, expected) in [
            (
                sampling(r#""limit": {"per_second": 0}"#),
                format!("sampling.limit.per_second: expected {rate}, but found 0"),
            ),
            (
                sampling(r#""limit": {"per_second": "10"}"#),
                format!("sampling.limit.per_second: expected {rate}, but found \"10\""),
            ),
            (
                sampling(r#""limit": {}"#),
                "sampling.limit.per_second: expected a value, which is required, but found none"
                    .to_owned(),
            ),
            (
                rule(r#""limit": {"per_second": 1, "burst": 0}"#),
                "sampling.rules[1].limit.burst: expected a whole number from 1 to 1000000, but \
                 found 0"
                    .to_owned(),
            ),
            (
                rule(r#""decision": "drop", "limit": {"per_second": 1}"#),
                format!("sampling.rules[1].limit: expected {no_limit}"),
            ),
            (
                sampling(r#""precision": 15"#),
                "sampling.precision: expected a whole number from 1 to 14, but found 15".to_owned(),
            ),
            (sampling(r#""export_on": {}"#), one_of_ending.to_owned()),
            (
                sampling(r#""export_on": {"status": ["6xx"]}"#),
                "sampling.export_on.status[0]: expected a status code from 100 to 599, or a class \
                 from 1xx to 5xx, but found \"6xx\""
                    .to_owned(),
            ),
            (
                sampling(r#""export_on": {"status": [99.5]}"#),
                "sampling.export_on.status[0]: expected a status code from 100 to 599, or a class \
                 from 1xx to 5xx, but found 99.5"
                    .to_owned(),
            ),
            (
                sampling(r#""export_on": {"grpc_status": 17}"#),
                "sampling.export_on.grpc_status: expected a whole number from 0 to 16, but found \
                 17"
                .to_owned(),
            ),
            (
                sampling(r#""export_on": {"response_flags": ["UH", "uf"]}"#),
                "sampling.export_on.response_flags[1]: expected the short name of one of Envoy's \
                 response flags, but found \"uf\""
                    .to_owned(),
            ),
            (
                propagation(r#""trust": "never""#),
                "propagation.trust: expected one of `accept`, `restart`, `ignore_flags`, but \
                 found \"never\""
                    .to_owned(),
            ),
            (
                propagation(r#""trust_rules": [{"match": {}}]"#),
                "propagation.trust_rules[0].trust: expected a value, which is required, but found \
                 none"
                    .to_owned(),
            ),
            (
                propagation(
                    r#""trust_rules": [{"trust": "accept",
                        "match": {"source_ranges": ["::1", "10.0.0.0/33"]}}]"#,
                ),
                "propagation.trust_rules[0].match.source_ranges[1]: expected an address range, \
                 such as 10.0.0.0/8 or fd00::/8, but found \"10.0.0.0/33\""
                    .to_owned(),
            ),
            (
                propagation(r#""egress": [{"authority": {"exact": "a"}}]"#),
                "propagation.egress[0].action: expected a value, which is required, but found none"
                    .to_owned(),
            ),
            (
                propagation(r#""egress": [{"authority": [{}], "action": "strip"}]"#),
                "propagation.egress[0].authority[0]: expected one of `exact`, `prefix`, `suffix`, \
                 `contains`, `regex`, but found none of them"
                    .to_owned(),
            ),
            (
                rule(
                    r#""match": {"headers": {"name": "Baggage", "present": true, "strip": true}}"#,
                ),
                "sampling.rules[1].match.headers.name: expected a header that a request can do \
                 without and that holds no context, but found \"baggage\""
                    .to_owned(),
            ),
        ] {
            check_refused(&json, &expected);
        }
    }

    #[test]
    fn wrong_tokens_are_refused_and_no_secret_is_shown() {
        let at = "sampling.rules[1].match.headers[0].token";
        let secret = "0123456789abcdef0123456789abcde";
        let whole = format!("{secret}f");
        let two = format!(
            r#""keys": [{{"id": "a", "secret": "{whole}"}}, {{"id": "a", "secret": "{whole}"}}]"#
        );
        for (json, expected) in [
            (token(""), ".keys: expected at least one, but found an empty array"),
            (token(r#""keys": []"#), ".keys: expected at least one, but found an empty array"),
            (
                token(r#""keys": [], "max_ttl_s": 0"#),
                ".max_ttl_s: expected a whole number from 1 up, but found 0",
            ),
            (
                token(r#""keys": [{"id": "", "secret": "x"}]"#),
                ".keys[0].id: expected an id of 1 to 64 bytes, but found \"\"",
            ),
            (token(&two), ".keys[1].id: expected an id that no other key has, but found \"a\""),
            (
                key(&format!(r#""secret": "{secret}""#)),
                ".keys[0].secret: expected a key of at least 32 bytes, but found 31 bytes",
            ),
            (
                key(r#""environment": {"name": "POD_NAME"}"#),
                ".keys[0].environment: expected a key of at least 32 bytes, but found 10 bytes",
            ),
            (
                key(r#""environment": {"name": "NONE"}"#),
                ".keys[0].environment.name: expected an environment variable of the VM, but found \
                 \"NONE\"",
            ),
            (
                key(r#""secret": 1234567890123456"#),
                ".keys[0].secret: expected a string, but found something else, which is not shown",
            ),
            (
                key(&format!(r#""secret": ["{whole}"]"#)),
                ".keys[0].secret: expected a string, but found something else, which is not shown",
            ),
            (
                key(&format!(r#""secret": "{whole}", "environment": {{"name": "POD_NAME"}}"#)),
                ".keys[0]: expected `environment` or `secret`, but found both",
            ),
            (
                token(r#""keys": [{"id": "a"}]"#),
                ".keys[0]: expected `environment` or `secret`, but found neither",
            ),
        ] {
            check_refused(&json, &format!("{at}{expected}"));
        }
        let tokens = format!(r#"{{"keys": [{{"id": "a", "secret": "{whole}"}}]}}"#);
        let guarded = format!(
            r#"{{"custom_tags": [{{"tag": "a", "request_header": {{"name": "X-T"}}}}],
                "sampling": {{"rules": [{{"name": "r", "decision": "force",
                    "match": {{"headers": {{"name": "x-t", "token": {tokens}}}}}}}]}}}}"#
        );
        check_refused(
            &guarded,
            "custom_tags[0].request_header.name: expected a header without credentials, or one of \
             `allow_sensitive_headers`, but found \"x-t\"",
        );
        let shown = format!("{:?}", parse(&guarded.replace("X-T", "x-u")).unwrap());
        assert!(!shown.contains("0123456789"));
    }

    /// Every key that can be written, as the README's table names it. Conditions have a paragraph.
    fn keys() -> Vec<String> {
        let objects: [(&str, &[&str]); 27] = [
            ("", raw::RawConfig::KEYS),
            ("propagation.", raw::RawPropagation::KEYS),
            ("propagation.baggage.", raw::RawBaggage::KEYS),
            ("propagation.trust_rules[].", raw::RawTrustRule::KEYS),
            ("propagation.trust_rules[].match.", raw::RawTrustMatch::KEYS),
            ("propagation.egress[].", raw::RawEgressRule::KEYS),
            ("sampling.", raw::RawSampling::KEYS),
            ("sampling.limit.", raw::RawLimit::KEYS),
            ("sampling.export_on.", raw::RawExportOn::KEYS),
            ("sampling.rules[].", raw::RawRule::KEYS),
            ("sampling.rules[].match.", raw::RawMatch::KEYS),
            ("custom_tags[].", raw::RawCustomTag::KEYS),
            ("custom_tags[].literal.", raw::RawLiteral::KEYS),
            ("custom_tags[].request_header.", raw::RawNamedSource::KEYS),
            ("custom_tags[].environment.", raw::RawNamedSource::KEYS),
            ("custom_tags[].property.", raw::RawProperty::KEYS),
            ("custom_tags[].metadata.", raw::RawMetadata::KEYS),
            ("custom_tags[].formatter.", raw::RawLiteral::KEYS),
            ("attribute_limits.", raw::RawAttributeLimits::KEYS),
            ("response.", raw::RawResponse::KEYS),
            ("exporter.", raw::RawExporter::KEYS),
            ("exporter.otlp.", raw::RawOtlp::KEYS),
            ("exporter.otlp.headers[].", raw::RawExportHeader::KEYS),
            ("exporter.otlp.headers[].environment.", raw::RawNamedSource::KEYS),
            ("exporter.zipkin.", raw::RawZipkin::KEYS),
            ("exporter.batch.", raw::RawBatch::KEYS),
            ("exporter.retry.", raw::RawRetry::KEYS),
        ];
        let of = |(prefix, keys): (&str, &[&str])| {
            keys.iter().map(|key| format!("{prefix}{key}")).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = objects.into_iter().flat_map(of).collect();
        all.push("exporter.otlp.headers[].literal.value".to_owned());
        all
    }

    #[test]
    fn the_readme_lists_the_keys_there_are() {
        let readme = include_str!("../../README.md");
        let section = readme.split("\n## ").find(|part| part.starts_with("Configuration")).unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let listed: Vec<_> = rows.map(|row| row.split('`').next().unwrap()).collect();
        let keys = keys();
        let unknown: Vec<_> = listed.iter().filter(|key| !keys.iter().any(|k| k == *key)).collect();
        assert_eq!(unknown, Vec::<&&str>::new(), "in the README alone");
        let is_container = |key: &str| {
            keys.iter().any(|k| k.strip_prefix(key).is_some_and(|r| r.starts_with(['.', '['])))
        };
        let missing: Vec<_> = keys
            .iter()
            .filter(|key| !is_container(key) && !listed.contains(&key.as_str()))
            .collect();
        assert_eq!(missing, Vec::<&String>::new(), "not in the README");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Config::parse(&bytes, &environment);
        }

        #[test]
        fn no_structure_panics(text in r#"[\[\]{}:,"a-z0-9. -]{0,40}"#) {
            let _ = parse(&text);
        }
    }
}
