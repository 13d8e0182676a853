//! The configuration as it is written, key by key: what the README's table describes.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The whole configuration, `pluginConfig` in Istio.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// `service.name` of the resource. Default: from the node (Istio's canonical service label,
    /// its `WORKLOAD_NAME`, the node's cluster, else `unknown_service:envoy`). Example: `checkout`.
    pub service_name: Option<String>,
    /// More resource attributes; they win over what the node says. Default: none.
    /// Example: `{deployment.environment.name: production}`.
    #[serde(default)]
    pub resource_attributes: BTreeMap<String, String>,
    /// Which context formats are read and written.
    #[serde(default)]
    pub propagation: RawPropagation,
    /// Which requests are traced.
    #[serde(default)]
    pub sampling: RawSampling,
    /// Attributes of one's own on every span, as in Envoy's `CustomTag`. Default: none.
    #[serde(default)]
    pub custom_tags: Vec<RawCustomTag>,
    /// Where spans go. Default: nowhere; the filter then decides and propagates only.
    pub exporter: Option<RawExporter>,
}

/// Context formats, by their names in `OTEL_PROPAGATORS`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPropagation {
    /// Formats to read, in order; the first valid context wins. `b3` and `b3multi` both read both
    /// forms of B3. Default: `[tracecontext, b3, baggage]`.
    pub extract: Option<Vec<Format>>,
    /// Formats to write. `b3` is the single header, `b3multi` the `x-b3-*` headers.
    /// Default: `[tracecontext, baggage]`.
    pub inject: Option<Vec<Format>>,
}

/// A name in `propagation.extract` or `propagation.inject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    TraceContext,
    B3,
    B3Multi,
    Baggage,
    None,
}

/// The trace decision.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSampling {
    /// Share of root requests that are sampled where no rule says otherwise, from 0 to 1.
    /// Default: `1.0`. Example: `0.05`.
    pub ratio: Option<f64>,
    /// Rules in order; the first that matches decides. Default: none.
    #[serde(default)]
    pub rules: Vec<RawRule>,
}

/// One sampling rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRule {
    /// Name of the rule, unique and not empty; it stands on the spans that the rule forces.
    pub name: String,
    /// Which requests the rule is for; all given conditions hold, inside a list any one.
    /// Default: every request.
    #[serde(default)]
    pub r#match: RawMatch,
    /// What is decided: `force`, `drop`, `ignore` or `parent`. Default: `parent`.
    #[serde(default)]
    pub decision: RawDecision,
    /// With `parent`: share of root requests that are sampled, from 0 to 1.
    /// Default: `sampling.ratio`.
    pub ratio: Option<f64>,
}

/// What a rule decides.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawDecision {
    /// Sampled, whatever the parent said; the incoming trace id is kept.
    Force,
    /// No span here and an unsampled context upstream, whatever the parent said.
    Drop,
    /// As if the filter were absent.
    Ignore,
    /// The parent's decision; a root is sampled with `ratio`.
    #[default]
    Parent,
}

/// Conditions on a request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMatch {
    /// Conditions on the path without its query string. Example: `[{prefix: /healthz}]`.
    #[serde(default)]
    pub path: OneOrMany<RawStringMatch>,
    /// Methods, as plain strings or conditions. Example: `[POST, PUT]`.
    #[serde(default)]
    pub method: OneOrMany<RawMethodMatch>,
    /// Conditions on `:authority` (`Host`), with its port where it has one.
    #[serde(default)]
    pub authority: OneOrMany<RawStringMatch>,
    /// Conditions on request headers. Example: `[{name: x-debug-trace, exact: "true"}]`.
    #[serde(default)]
    pub headers: OneOrMany<RawHeaderMatch>,
    /// `inbound` or `outbound`; a gateway's requests are inbound. Default: both.
    pub direction: Option<RawDirection>,
}

/// The direction of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawDirection {
    Inbound,
    Outbound,
}

/// A condition on a string: one of the five kinds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawStringMatch {
    /// Equal to this.
    pub exact: Option<String>,
    /// Begins with this.
    pub prefix: Option<String>,
    /// Ends with this.
    pub suffix: Option<String>,
    /// Holds this somewhere.
    pub contains: Option<String>,
    /// The whole value matches this regular expression, as Envoy's `safe_regex` does.
    pub regex: Option<String>,
    /// ASCII letters match in either case. Default: `false`.
    #[serde(default)]
    pub ignore_case: bool,
}

/// A condition on the method: a plain string is an exact one.
#[derive(Debug)]
pub struct RawMethodMatch(pub RawStringMatch);

/// A condition on a header: one of the string conditions, or `present`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawHeaderMatch {
    /// Name of the header, in either case; `:path`, `:method`, `:authority` and `:scheme` too.
    pub name: String,
    /// The header is there (`true`) or not (`false`), whatever its value.
    pub present: Option<bool>,
    /// The condition must not hold; a header that is absent then matches. Default: `false`.
    #[serde(default)]
    pub invert: bool,
    /// Equal to this.
    pub exact: Option<String>,
    /// Begins with this.
    pub prefix: Option<String>,
    /// Ends with this.
    pub suffix: Option<String>,
    /// Holds this somewhere.
    pub contains: Option<String>,
    /// The whole value matches this regular expression.
    pub regex: Option<String>,
    /// ASCII letters match in either case. Default: `false`.
    #[serde(default)]
    pub ignore_case: bool,
}

/// An attribute of one's own: `tag` and exactly one source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCustomTag {
    /// Key of the attribute. Example: `user.id`.
    pub tag: String,
    /// A fixed value.
    pub literal: Option<RawLiteral>,
    /// The value of a request header.
    pub request_header: Option<RawNamedSource>,
    /// The value of an environment variable of the VM (`vm_config.environment_variables`).
    pub environment: Option<RawNamedSource>,
}

/// A fixed value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawLiteral {
    /// The value.
    pub value: String,
}

/// A value that is looked up by name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawNamedSource {
    /// Name of the header or variable.
    pub name: String,
    /// Value where there is none by that name. Default: the tag is left out.
    pub default_value: Option<String>,
}

/// Where spans go, and how many at once.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawExporter {
    /// An OTLP receiver.
    pub otlp: RawOtlp,
    /// The queue before it, for each worker.
    #[serde(default)]
    pub batch: RawBatch,
}

/// An OTLP receiver behind an Envoy cluster.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawOtlp {
    /// Name of the Envoy cluster. Example: `outbound|4318||otel-collector.observability.svc.cluster.local`.
    pub cluster: String,
    /// `http/protobuf`, as in `OTEL_EXPORTER_OTLP_PROTOCOL`. Default: `http/protobuf`.
    #[serde(default)]
    pub protocol: RawProtocol,
    /// Path of the receiver. Default: `/v1/traces`.
    pub path: Option<String>,
    /// Time the receiver has to answer, in milliseconds. Default: `10000`.
    pub timeout_ms: Option<u32>,
    /// More headers of the export request, from `literal` or `environment`. Default: none.
    #[serde(default)]
    pub headers: Vec<RawExportHeader>,
}

/// The transport of OTLP.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum RawProtocol {
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// A header of the export request: `name` and exactly one source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawExportHeader {
    /// Name of the header. Example: `authorization`.
    pub name: String,
    /// A fixed value.
    pub literal: Option<RawLiteral>,
    /// The value of an environment variable of the VM.
    pub environment: Option<RawNamedSource>,
}

/// Bounds of the export queue, for each worker.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawBatch {
    /// Spans that are queued or on their way at most; further ones are dropped and counted.
    /// Default: `2048`.
    pub max_queue_spans: Option<u32>,
    /// Spans in one export request at most; as many are sent at once. Default: `512`.
    pub max_batch_spans: Option<u32>,
    /// Longest time a span waits for its batch, in milliseconds. Default: `1000`.
    pub interval_ms: Option<u32>,
}

/// A value, or an array of such values.
#[derive(Debug)]
pub struct OneOrMany<T>(pub Vec<T>, pub Written);

/// How a [`OneOrMany`] was written, for the paths in errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    One,
    Many,
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new(), Written::Many)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a condition or an array of conditions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                let values = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(OneOrMany(values, Written::Many))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let value = T::deserialize(MapAccessDeserializer::new(map))?;
                Ok(OneOrMany(vec![value], Written::One))
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
                let value = T::deserialize(serde::de::value::StrDeserializer::new(value))?;
                Ok(OneOrMany(vec![value], Written::One))
            }
        }

        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for RawMethodMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrCondition;

        impl<'de> Visitor<'de> for NameOrCondition {
            type Value = RawStringMatch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a method or a condition")
            }

            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(RawStringMatch { exact: Some(value.to_owned()), ..RawStringMatch::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                RawStringMatch::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(NameOrCondition).map(RawMethodMatch)
    }
}
