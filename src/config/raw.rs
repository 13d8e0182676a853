//! The configuration as it is written, key by key: what the README's table describes.

use super::ConfigError;
use super::decode::{Decode, Entries, Fields, OneOrMany, is_key, names, objects};
use super::error::one_of;
use super::json::{self, Json};

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
        /// Attributes of one's own on every span: a list as Envoy's `CustomTag`, or an object by
        /// name as in Istio's Telemetry. Default: none.
        pub custom_tags: RawCustomTags,
        /// Headers that hold credentials and that tags may record all the same. Default: none.
        /// Example: `[x-forwarded-client-cert]`.
        pub allow_sensitive_headers: Vec<String>,
        /// How many attributes a span has, and how long they are.
        pub attribute_limits: RawAttributeLimits,
        /// Where spans go. Default: nowhere; the filter then decides and propagates only.
        pub exporter: Option<RawExporter>,
        /// What the client is told of the trace, in headers of the response. Default: nothing.
        pub response: RawResponse,
    }

    /// Headers of the response.
    pub struct RawResponse {
        /// Name of a header that gets the trace id, 32 hex digits. Default: none.
        /// Example: `x-trace-id`.
        pub trace_id_header: Option<String>,
        /// W3C's `traceresponse`. Default: `false`.
        pub traceresponse: bool,
        /// The same in `server-timing`, where scripts in browsers find it. Default: `false`.
        pub server_timing: bool,
        /// Which requests are answered so: `always`, `sampled` or `forced`. Default: `always`.
        pub when: Option<RawWhen>,
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
        /// What becomes of a context that comes in: `accept`, `restart` or `ignore_flags`.
        /// Default: `accept`.
        pub trust: Option<RawTrust>,
        /// The same for some requests, in order; the first that matches decides. Default: none.
        pub trust_rules: Vec<RawTrustRule>,
        /// Where contexts and baggage do not go, in order; the first that matches decides. Default:
        /// none; they go everywhere.
        pub egress: Vec<RawEgressRule>,
        /// Sets W3C's random flag on new traces, which OpenTelemetry's SDK for Go before 1.42
        /// refuses. Default: `false`.
        pub random_flag: bool,
    }

    /// Whose contexts are trusted how far.
    pub struct RawTrustRule {
        /// Which requests the rule is for; all given conditions hold, inside a list any one.
        /// Default: every request.
        pub r#match: RawTrustMatch,
        /// What becomes of the context: `accept`, `restart` or `ignore_flags`.
        pub trust: RawTrust,
    }

    /// Conditions on who sends a request.
    pub struct RawTrustMatch {
        /// `inbound` or `outbound`; a gateway's requests are inbound. Default: both.
        pub direction: Option<RawDirection>,
        /// Ranges of the client's address as Envoy knows it (`source.address`), in CIDR notation.
        /// Example: `[10.0.0.0/8, "fd00::/8"]`.
        pub source_ranges: OneOrMany<String>,
        /// Conditions on request headers.
        pub headers: OneOrMany<RawHeaderMatch>,
    }

    /// What leaves with requests to an authority.
    pub struct RawEgressRule {
        /// Conditions on `:authority` (`Host`), with its port where it has one. Default: every one.
        pub authority: OneOrMany<RawStringMatch>,
        /// `strip`: no context and no baggage, in no format; `keep`: as everywhere.
        pub action: RawEgress,
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
        pub ratio: Option<RawShare>,
        /// Hex digits of the threshold that a ratio becomes, from 1 to 14. Default: `4`.
        pub precision: Option<u32>,
        /// Rules in order; the first that matches decides. Default: none.
        pub rules: Vec<RawRule>,
        /// Spans of this filter at most; a request beyond is not sampled. Default: any number.
        pub limit: Option<RawLimit>,
        /// Requests whose span is exported although they are not sampled. Default: none.
        pub export_on: Option<RawExportOn>,
    }

    /// A rate that holds for all workers of an Envoy together.
    pub struct RawLimit {
        /// How many a second, from 0.001 to 1000000. Example: `10`.
        pub per_second: RawRate,
        /// How many at once, from 1 to 1000000. Default: `per_second`, rounded up.
        pub burst: Option<u32>,
    }

    /// How a request ends that is exported late; any one condition is enough.
    pub struct RawExportOn {
        /// Status codes and classes. Example: `["5xx", 429]`.
        pub status: OneOrMany<RawStatus>,
        /// gRPC status codes, from 0 to 16. Example: `[2, 13, 14]`.
        pub grpc_status: OneOrMany<u32>,
        /// Envoy's response flags by their short names. Example: `[UH, UF]`.
        pub response_flags: OneOrMany<String>,
        /// Streams that were cut short, by a time limit or by either side. Default: `false`.
        pub resets: bool,
        /// Duration in milliseconds from which on a request is exported. Example: `1000`.
        pub min_duration_ms: Option<u32>,
        /// Late spans at most; those beyond are left out and counted. Default: any number.
        pub limit: Option<RawLimit>,
        /// Bytes of request headers that a worker keeps at most, until it is known how requests
        /// end. A request beyond gets no late span, and is counted. Default: `8388608`.
        pub max_held_bytes: Option<u32>,
    }

    /// A signed token that a header must hold.
    pub struct RawToken {
        /// Keys whose tokens are valid, at least one.
        pub keys: Vec<RawTokenKey>,
        /// Seconds that a token may still live, from 1. Default: `3600`.
        pub max_ttl_s: Option<u32>,
    }

    /// A key that signs tokens: `id` and exactly one source of at least 32 bytes.
    pub struct RawTokenKey {
        /// Name of the key, which tokens hold, up to 64 bytes. Example: `ops`.
        pub id: String,
        /// The environment variable of the VM that holds the key.
        pub environment: Option<RawVariable>,
        /// The key itself.
        pub secret: Option<RawSecret>,
    }

    /// A variable of the VM's environment.
    pub struct RawVariable {
        /// Its name. Example: `DEBUG_KEY`.
        pub name: String,
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
        pub ratio: Option<RawShare>,
        /// With `force` and `parent`: what the rule samples at most; a request beyond falls to the
        /// next rule. Default: any number.
        pub limit: Option<RawLimit>,
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

    /// Limits as in OpenTelemetry's declarative configuration.
    pub struct RawAttributeLimits {
        /// Attributes of a span, from 0 to 1024. The span's own are always there; custom tags
        /// beyond the limit are left out and counted. Default: `128`.
        pub attribute_count_limit: Option<u32>,
        /// Characters of a string value, from 32 to 16384; longer ones are cut and counted.
        /// Default: `1024`.
        pub attribute_value_length_limit: Option<u32>,
    }

    /// One of Envoy's attributes.
    pub struct RawProperty {
        /// Its path, dotted or as a list of parts. Example: `xds.route_name`.
        pub path: OneOrMany<String>,
        /// Value where the attribute is absent. Default: the tag is left out.
        pub default_value: Option<String>,
        /// What it is recorded as: `string`, `int`, `double` or `bool`. Default: what it is, for
        /// the attributes that Envoy documents; `string` for others.
        pub r#type: Option<RawPropertyType>,
    }

    /// A value of Envoy's metadata.
    pub struct RawMetadata {
        /// Whose metadata: exactly one key of `request`, `route`, `cluster` and `host`.
        pub kind: RawMetadataKind,
        /// Where in it.
        pub metadata_key: RawMetadataKey,
        /// Value where there is none. Default: the tag is left out.
        pub default_value: Option<String>,
    }

    /// The place of a value in metadata.
    pub struct RawMetadataKey {
        /// The namespace. Example: `envoy.filters.http.jwt_authn`.
        pub key: String,
        /// The keys in it, from outermost to innermost.
        pub path: Vec<RawMetadataSegment>,
    }

    /// One step into metadata.
    pub struct RawMetadataSegment {
        /// Its key.
        pub key: String,
    }

    /// A fixed value.
    pub struct RawLiteral {
        /// The value.
        pub value: String,
    }

    /// A value that is looked up by name.
    pub struct RawNamedSource {
        /// Name of the header, variable, parameter, cookie or member.
        pub name: String,
        /// Value where there is none by that name. Default: a tag is left out, a header refused.
        pub default_value: Option<String>,
    }

    /// Where spans go: `otlp` or `zipkin`; how many at once, and when again.
    pub struct RawExporter {
        /// An OTLP receiver.
        pub otlp: Option<RawOtlp>,
        /// A receiver of Zipkin v2 JSON.
        pub zipkin: Option<RawZipkin>,
        /// The queue before it, for each worker.
        pub batch: RawBatch,
        /// When a batch that was not taken is sent again.
        pub retry: RawRetry,
    }

    /// An OTLP receiver behind an Envoy cluster.
    pub struct RawOtlp {
        /// Name of the Envoy cluster. Example: `outbound|4318||otel-collector.observability.svc.cluster.local`.
        pub cluster: String,
        /// `http/protobuf` or `grpc`, as in `OTEL_EXPORTER_OTLP_PROTOCOL`; the cluster of `grpc`
        /// must speak HTTP/2. Default: `http/protobuf`.
        pub protocol: Option<RawProtocol>,
        /// Path of the receiver; `grpc` has its own. Default: `/v1/traces`.
        pub path: Option<String>,
        /// Time the receiver has to answer, in milliseconds. Default: `10000`.
        pub timeout_ms: Option<u32>,
        /// `gzip` or `none`, as in `OTEL_EXPORTER_OTLP_COMPRESSION`; `grpc` has none. Default: `none`.
        pub compression: Option<RawCompression>,
        /// More headers of the export request, from `literal` or `environment`. Default: none.
        pub headers: Vec<RawExportHeader>,
    }

    /// A receiver of Zipkin v2 JSON behind an Envoy cluster.
    pub struct RawZipkin {
        /// Name of the Envoy cluster. Example: `outbound|9411||zipkin.observability.svc.cluster.local`.
        pub cluster: String,
        /// Path of the receiver. Default: `/api/v2/spans`.
        pub path: Option<String>,
        /// Time the receiver has to answer, in milliseconds. Default: `10000`.
        pub timeout_ms: Option<u32>,
        /// `gzip` or `none`. Default: `none`.
        pub compression: Option<RawCompression>,
        /// More headers of the export request, from `literal` or `environment`. Default: none.
        pub headers: Vec<RawExportHeader>,
    }

    /// A header of the export request: `name` and exactly one source.
    pub struct RawExportHeader {
        /// Name of the header. Example: `authorization`.
        pub name: String,
        /// A fixed value.
        pub literal: Option<RawSecretLiteral>,
        /// The value of an environment variable of the VM.
        pub environment: Option<RawNamedSource>,
    }

    /// A fixed value that may be a credential.
    pub struct RawSecretLiteral {
        /// The value.
        pub value: RawSecret,
    }

    /// Bounds of the export queue, for each worker.
    pub struct RawBatch {
        /// Spans that are queued or on their way at most; further ones are dropped and counted.
        /// Default: `2048`.
        pub max_queue_spans: Option<u32>,
        /// Their bytes at most, encoded as OTLP; further ones are dropped and counted.
        /// Default: `8388608`.
        pub max_queue_bytes: Option<u32>,
        /// Spans in one export request at most; as many are sent at once. Default: `512`.
        pub max_batch_spans: Option<u32>,
        /// Bytes of spans in one export request at most, unless one span has more.
        /// Default: `2097152`.
        pub max_batch_bytes: Option<u32>,
        /// How often a batch that is not full is sent, in milliseconds, unless one is under way.
        /// Default: `1000`.
        pub interval_ms: Option<u32>,
    }

    /// When a batch that was not taken is sent again: the Collector's `retry_on_failure`.
    pub struct RawRetry {
        /// Before the first retry, in milliseconds, give or take half; half as much again before
        /// each next. Default: `1000`.
        pub initial_interval_ms: Option<u32>,
        /// The longest of those, in milliseconds. Default: `30000`.
        pub max_interval_ms: Option<u32>,
        /// Since the batch was first sent, in milliseconds: a failure after it is the last, and its
        /// spans are dropped and counted. `0` never gives up. Default: `300000`.
        pub max_elapsed_time_ms: Option<u32>,
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

    /// What becomes of a context that comes in.
    #[derive(Default)]
    pub enum RawTrust {
        /// It is followed.
        #[default]
        Accept = "accept",
        /// A new trace starts, whose span links to the old one.
        Restart = "restart",
        /// Its ids are kept, and sampling is decided anew.
        IgnoreFlags = "ignore_flags",
    }

    /// What leaves with a request.
    #[derive(Default)]
    pub enum RawEgress {
        #[default]
        Keep = "keep",
        /// No context and no baggage.
        Strip = "strip",
    }

    /// The direction of a listener.
    pub enum RawDirection {
        Inbound = "inbound",
        Outbound = "outbound",
    }

    /// What a property is recorded as.
    pub enum RawPropertyType {
        String = "string",
        Int = "int",
        Double = "double",
        Bool = "bool",
    }

    /// One end of a connection.
    pub enum RawIdentity {
        /// Who calls.
        Source = "source",
        /// Who is called.
        Destination = "destination",
    }

    /// Whose metadata it is.
    #[derive(Default)]
    pub enum RawMetadataOf {
        /// Dynamic metadata of the request.
        #[default]
        Request = "request",
        /// Metadata of its route.
        Route = "route",
        /// Metadata of its upstream cluster.
        Cluster = "cluster",
        /// Metadata of its upstream host.
        Host = "host",
    }

    /// How a value is made unreadable.
    pub enum RawRedaction {
        /// The first 16 bytes of its SHA-256, in hex.
        Hash = "hash",
        /// A `*` for each character but the last four.
        Mask = "mask",
    }

    /// Which requests get headers of the response.
    pub enum RawWhen {
        Always = "always",
        /// Those that are sampled.
        Sampled = "sampled",
        /// Those that a rule forced.
        Forced = "forced",
    }

    /// The transport of OTLP.
    #[derive(Default)]
    pub enum RawProtocol {
        #[default]
        HttpProtobuf = "http/protobuf",
        Grpc = "grpc",
    }

    /// How the body of an export request is compressed.
    #[derive(Default)]
    pub enum RawCompression {
        #[default]
        None = "none",
        Gzip = "gzip",
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
    /// The header holds a signed token.
    pub token: Option<RawToken>,
    /// The header is removed before the upstream. Default: `true` with `token`, else `false`.
    pub strip: Option<bool>,
    /// The condition on the value, whose keys stand beside the others.
    pub value: Option<RawStringMatch>,
}

impl RawHeaderMatch {
    /// The keys that the object may have: its own, and those of [`RawStringMatch`].
    pub const KEYS: &[&str] = &[
        "name",
        "present",
        "invert",
        "token",
        "strip",
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
        let (name, present, invert) =
            (fields.take("name"), fields.take("present"), fields.take("invert"));
        let (token, strip) = (fields.take("token"), fields.take("strip"));
        let condition = fields.take_rest();
        let value = match condition.is_empty() {
            true => None,
            false => Some(RawStringMatch::decode(Json::Object(condition))?),
        };
        fields.finish(Self { name, present, invert, token, strip, value })
    }
}

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawShare(pub f64);

impl Decode for RawShare {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        match &json {
            Json::Number(written) => {
                json::number(written).filter(|share| (0.0..=1.0).contains(share)).map(Self)
            }
            _ => None,
        }
        .ok_or_else(|| json.unlike("a number from 0 to 1"))
    }
}

/// Events a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawRate(pub f64);

impl Decode for RawRate {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        match &json {
            Json::Number(written) => json::number(written)
                .filter(|rate| (MIN_PER_SECOND..=MAX_PER_SECOND).contains(rate))
                .map(Self),
            _ => None,
        }
        .ok_or_else(|| json.unlike("a number from 0.001 to 1000000"))
    }
}

/// A status code, or the first digit of a class of them: its codes from the first to the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RawStatus {
    pub first: u16,
    pub last: u16,
}

impl Decode for RawStatus {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        let (first, last) = match &json {
            Json::Text(class) => match class.as_bytes() {
                [digit @ b'1'..=b'5', b'x', b'x'] => {
                    let first = u16::from(digit - b'0') * 100;
                    (first, first + 99)
                }
                _ => (0, 0),
            },
            Json::Number(written) => {
                let code = json::number(written).filter(|code| code.fract() == 0.0);
                let code = code.map_or(0, |code| code as u16);
                (code, code)
            }
            _ => (0, 0),
        };
        if (100..=599).contains(&first) {
            return Ok(Self { first, last });
        }
        Err(json.unlike("a status code from 100 to 599, or a class from 1xx to 5xx"))
    }
}

/// What no log may show, nor any error.
#[derive(Default)]
pub struct RawSecret(pub String);

impl Decode for RawSecret {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        match json {
            Json::Text(secret) => Ok(Self(secret)),
            _ => Err(ConfigError::new("a string", "something else, which is not shown")),
        }
    }
}

impl std::fmt::Debug for RawSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

/// Whose metadata it is: an object with this one key, and an empty object under it.
#[derive(Debug, Default)]
pub struct RawMetadataKind(pub RawMetadataOf);

impl Decode for RawMetadataKind {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        match json {
            Json::Object(mut entries) if entries.len() == 1 => match entries.pop() {
                Some((key, Json::Object(none))) if none.is_empty() => {
                    RawMetadataOf::decode(Json::Text(key)).map(Self)
                }
                Some((key, other)) => Err(other.unlike("an object without keys").under(&key)),
                None => Err(Json::Null.unlike("an object")),
            },
            other => Err(other.unlike("an object with one key, such as `request: {}`")),
        }
    }
}

/// The custom tags: a list, or an object by name.
#[derive(Debug, Default)]
pub struct RawCustomTags {
    pub tags: Vec<RawCustomTag>,
    pub by_name: bool,
}

impl Decode for RawCustomTags {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        let (entries, by_name) = match json {
            Json::Array(list) => {
                let mut entries = Vec::new();
                for json in list {
                    entries.push((String::new(), json));
                }
                (entries, false)
            }
            Json::Object(entries) => (entries, true),
            other => return Err(other.unlike("an array, or an object by name")),
        };
        let mut tags = Vec::new();
        for (place, (name, json)) in entries.into_iter().enumerate() {
            match RawCustomTag::decode(by_name.then_some(&name), json) {
                Ok(tag) => tags.push(tag),
                Err(error) if by_name => return Err(error.under(&name)),
                Err(error) => return Err(error.at(place)),
            }
        }
        Ok(Self { tags, by_name })
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

/// An attribute of one's own: its key, exactly one source, and what is done to the value.
#[derive(Debug)]
pub struct RawCustomTag {
    /// Key of the attribute; in an object by name, the name. Example: `user.id`.
    pub tag: String,
    /// How the value is made unreadable: `hash` or `mask`. Default: it is recorded as it is.
    pub redact: Option<RawRedaction>,
    /// Characters of the value that are recorded, from 1. Default: the attribute limit.
    pub max_length: Option<u32>,
    /// The key of the source, as it is written.
    pub key: String,
    pub source: RawSource,
}

/// Where the value comes from.
#[derive(Debug)]
pub enum RawSource {
    Literal(RawLiteral),
    /// What is looked up by name, where the key of the source says.
    Named(NamedSource, RawNamedSource),
    Property(RawProperty),
    Identity(RawIdentity),
    Metadata(RawMetadata),
    /// Envoy's format string.
    Value(String),
    /// The same in Istio's spelling.
    Formatter(RawLiteral),
}

/// What values are looked up by name in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedSource {
    Environment,
    RequestHeader,
    ResponseHeader,
    ResponseTrailer,
    QueryParameter,
    Cookie,
    Baggage,
}

impl RawCustomTag {
    /// The keys that the object may have.
    pub const KEYS: &[&str] = &[
        "tag",
        "redact",
        "max_length",
        "literal",
        "environment",
        "request_header",
        "header",
        "response_header",
        "response_trailer",
        "query_parameter",
        "cookie",
        "baggage",
        "property",
        "identity",
        "metadata",
        "value",
        "formatter",
    ];

    /// The keys among them of which there is one.
    pub fn sources() -> &'static [&'static str] {
        Self::KEYS.get(3..).unwrap_or_default()
    }

    /// The keys among them with [`RawNamedSource`]; `header` is Istio's for a request header.
    const NAMED: [(&str, NamedSource); 8] = [
        ("environment", NamedSource::Environment),
        ("request_header", NamedSource::RequestHeader),
        ("header", NamedSource::RequestHeader),
        ("response_header", NamedSource::ResponseHeader),
        ("response_trailer", NamedSource::ResponseTrailer),
        ("query_parameter", NamedSource::QueryParameter),
        ("cookie", NamedSource::Cookie),
        ("baggage", NamedSource::Baggage),
    ];

    /// Reads a tag, whose name stands above it or in it.
    fn decode(name: Option<&String>, json: Json) -> Result<Self, ConfigError> {
        let unnamed = Self::KEYS.get(1..).unwrap_or_default();
        let mut fields = Fields::of(json, if name.is_some() { unnamed } else { Self::KEYS })?;
        let tag = match name {
            Some(name) => name.clone(),
            None => fields.take("tag"),
        };
        let (redact, max_length) = (fields.take("redact"), fields.take("max_length"));
        let (mut source, mut several) = (None, false);
        for (key, json) in fields.take_rest() {
            if !matches!(json, Json::Null) {
                several |= source.is_some();
                source = Some((key, json));
            }
        }
        fields.finish(())?;
        let Some((key, json)) = source.filter(|_| !several) else {
            let found = if several { "several of them" } else { "none of them" };
            return Err(ConfigError::new(one_of(Self::sources()), found));
        };
        let source = RawSource::decode(&key, json).map_err(|error| error.under(&key))?;
        Ok(Self { tag, redact, max_length, key, source })
    }
}

impl RawSource {
    fn decode(key: &str, json: Json) -> Result<Self, ConfigError> {
        let named = RawCustomTag::NAMED.iter().find(|(known, _)| is_key(known, key));
        if let Some((_, source)) = named {
            return RawNamedSource::decode(json).map(|raw| Self::Named(*source, raw));
        }
        match key {
            "literal" => RawLiteral::decode(json).map(Self::Literal),
            "property" => RawProperty::decode(json).map(Self::Property),
            "identity" => RawIdentity::decode(json).map(Self::Identity),
            "metadata" => RawMetadata::decode(json).map(Self::Metadata),
            "formatter" => RawLiteral::decode(json).map(Self::Formatter),
            _ => String::decode(json).map(Self::Value),
        }
    }
}

const MIN_PER_SECOND: f64 = 0.001;
const MAX_PER_SECOND: f64 = 1e6;
