//! The configuration as it is written, key by key: what the README's table describes.

use super::ConfigError;
use super::decode::{Decode, Entries, Fields, OneOrMany, names, objects};
use super::json::Json;

objects! {
    /// The whole configuration, `pluginConfig` in Istio.
    pub struct RawConfig {
        /// `service.name` of the resource. Default: from the node (Istio's canonical service label,
        /// its `WORKLOAD_NAME`, the node's cluster, else `unknown_service:envoy`). Example: `checkout`.
        pub service_name: Option<String>,
        /// More resource attributes; they win over what the node says. Default: none.
        /// Example: `{deployment.environment.name: production}`.
        pub resource_attributes: Entries,
        /// Which context formats are read and written.
        pub propagation: RawPropagation,
        /// Which requests are traced.
        pub sampling: RawSampling,
        /// Attributes of one's own on every span, as in Envoy's `CustomTag`. Default: none.
        pub custom_tags: Vec<RawCustomTag>,
        /// Where spans go. Default: nowhere; the filter then decides and propagates only.
        pub exporter: Option<RawExporter>,
    }

    /// Context formats, by their names in `OTEL_PROPAGATORS` where they have one.
    pub struct RawPropagation {
        /// Formats to read, in order; the first valid context wins. `b3` and `b3multi` both read both
        /// forms of B3. Default: `[tracecontext, b3, baggage]`.
        pub extract: Option<Vec<Format>>,
        /// Formats to write. `b3` is the single header, `b3multi` the `x-b3-*` headers.
        /// Default: `[tracecontext, baggage]`.
        pub inject: Option<Vec<Format>>,
        /// Bounds of the `baggage` header. Default: none; it goes on as it came.
        pub baggage: RawBaggage,
    }

    /// Bounds of the `baggage` header; members behind them are dropped and counted.
    pub struct RawBaggage {
        /// Members that go on at most, from 64 up. Default: any number. Example: `64`.
        pub max_members: Option<u32>,
        /// Bytes that go on at most, whole members with their properties, from 8192 up. Default: any
        /// number. Example: `8192`.
        pub max_bytes: Option<u32>,
    }

    /// The trace decision.
    pub struct RawSampling {
        /// Share of root requests that are sampled where no rule says otherwise, from 0 to 1.
        /// Default: `1.0`. Example: `0.05`.
        pub ratio: Option<f64>,
        /// Rules in order; the first that matches decides. Default: none.
        pub rules: Vec<RawRule>,
    }

    /// One sampling rule.
    pub struct RawRule {
        /// Name of the rule, unique and not empty; it stands on the spans that the rule forces.
        pub name: String,
        /// Which requests the rule is for; all given conditions hold, inside a list any one.
        /// Default: every request.
        pub r#match: RawMatch,
        /// What is decided: `force`, `drop`, `ignore` or `parent`. Default: `parent`.
        pub decision: Option<RawDecision>,
        /// With `parent`: share of root requests that are sampled, from 0 to 1.
        /// Default: `sampling.ratio`.
        pub ratio: Option<f64>,
    }

    /// Conditions on a request.
    pub struct RawMatch {
        /// Conditions on the path without its query string. Example: `[{prefix: /healthz}]`.
        pub path: OneOrMany<RawStringMatch>,
        /// Methods, as plain strings or conditions. Example: `[POST, PUT]`.
        pub method: OneOrMany<RawMethodMatch>,
        /// Conditions on `:authority` (`Host`), with its port where it has one.
        pub authority: OneOrMany<RawStringMatch>,
        /// Conditions on request headers. Example: `[{name: x-debug-trace, exact: "true"}]`.
        pub headers: OneOrMany<RawHeaderMatch>,
        /// `inbound` or `outbound`; a gateway's requests are inbound. Default: both.
        pub direction: Option<RawDirection>,
    }

    /// A condition on a string: one of the five kinds.
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
        pub ignore_case: bool,
    }

    /// An attribute of one's own: `tag` and exactly one source.
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
    pub struct RawLiteral {
        /// The value.
        pub value: String,
    }

    /// A value that is looked up by name.
    pub struct RawNamedSource {
        /// Name of the header or variable.
        pub name: String,
        /// Value where there is none by that name. Default: a tag is left out, a header refused.
        pub default_value: Option<String>,
    }

    /// Where spans go, and how many at once.
    pub struct RawExporter {
        /// An OTLP receiver.
        pub otlp: RawOtlp,
        /// The queue before it, for each worker.
        pub batch: RawBatch,
    }

    /// An OTLP receiver behind an Envoy cluster.
    pub struct RawOtlp {
        /// Name of the Envoy cluster. Example: `outbound|4318||otel-collector.observability.svc.cluster.local`.
        pub cluster: String,
        /// `http/protobuf`, as in `OTEL_EXPORTER_OTLP_PROTOCOL`. Default: `http/protobuf`.
        pub protocol: Option<RawProtocol>,
        /// Path of the receiver. Default: `/v1/traces`.
        pub path: Option<String>,
        /// Time the receiver has to answer, in milliseconds. Default: `10000`.
        pub timeout_ms: Option<u32>,
        /// More headers of the export request, from `literal` or `environment`. Default: none.
        pub headers: Vec<RawExportHeader>,
    }

    /// A header of the export request: `name` and exactly one source.
    pub struct RawExportHeader {
        /// Name of the header. Example: `authorization`.
        pub name: String,
        /// A fixed value.
        pub literal: Option<RawLiteral>,
        /// The value of an environment variable of the VM.
        pub environment: Option<RawNamedSource>,
    }

    /// Bounds of the export queue, for each worker.
    pub struct RawBatch {
        /// Spans that are queued or on their way at most; further ones are dropped and counted.
        /// Default: `2048`.
        pub max_queue_spans: Option<u32>,
        /// Spans in one export request at most; as many are sent at once. Default: `512`.
        pub max_batch_spans: Option<u32>,
        /// How often a batch that is not full is sent, in milliseconds, unless one is under way.
        /// Default: `1000`.
        pub interval_ms: Option<u32>,
    }
}

names! {
    /// A name in `propagation.extract` or `propagation.inject`.
    pub enum Format {
        TraceContext = "tracecontext",
        B3 = "b3",
        B3Multi = "b3multi",
        Jaeger = "jaeger",
        XRay = "xray",
        OtTrace = "ottrace",
        Datadog = "datadog",
        GrpcTraceBin = "grpc-trace-bin",
        Baggage = "baggage",
        None = "none",
    }

    /// What a rule decides.
    pub enum RawDecision {
        /// Sampled, whatever the parent said; the incoming trace id is kept.
        Force = "force",
        /// No span here and an unsampled context upstream, whatever the parent said.
        Drop = "drop",
        /// As if the filter were absent.
        Ignore = "ignore",
        /// The parent's decision; a root is sampled with `ratio`.
        Parent = "parent",
    }

    /// The direction of a listener.
    pub enum RawDirection {
        Inbound = "inbound",
        Outbound = "outbound",
    }

    /// The transport of OTLP.
    pub enum RawProtocol {
        HttpProtobuf = "http/protobuf",
    }
}

/// A condition on the method: a plain string is an exact one.
#[derive(Debug)]
pub struct RawMethodMatch(pub RawStringMatch);

impl Decode for RawMethodMatch {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        let json = match json {
            Json::Text(_) => Json::Object(vec![("exact".to_owned(), json)]),
            other => other,
        };
        RawStringMatch::decode(json).map(Self)
    }
}

/// A condition on a header: its name, and a string condition or `present`.
#[derive(Debug)]
pub struct RawHeaderMatch {
    /// Name of the header, in either case; `:path`, `:method`, `:authority` and `:scheme` too.
    pub name: String,
    /// The header is there (`true`) or not (`false`), whatever its value.
    pub present: Option<bool>,
    /// The condition must not hold; a header that is absent then matches. Default: `false`.
    pub invert: bool,
    /// The condition on the value, whose keys stand beside the others.
    pub value: Option<RawStringMatch>,
}

impl RawHeaderMatch {
    /// The keys that the object may have: its own, and those of [`RawStringMatch`].
    pub const KEYS: &[&str] = &[
        "name",
        "present",
        "invert",
        "exact",
        "prefix",
        "suffix",
        "contains",
        "regex",
        "ignore_case",
    ];
}

impl Decode for RawHeaderMatch {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        let mut fields = Fields::of(json, Self::KEYS)?;
        Ok(Self {
            name: fields.take("name")?,
            present: fields.take("present")?,
            invert: fields.take("invert")?,
            value: fields.rest().map(RawStringMatch::decode).transpose()?,
        })
    }
}
