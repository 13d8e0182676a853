//! The scenario file: what a user writes to replay requests, as YAML.
//!
//! Everything that is not said to be optional must be there; a key that is not listed is refused
//! with its line. `sidespan replay --help` shows an example.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use serde::Deserialize;
use serde_saphyr::Spanned;

pub use crate::headers::{ExpectedHeaders, Header, HeaderLines, HeaderValue};
use crate::host::Direction;
pub use crate::values::{AttributeValue, Properties, ResponseFlags, Timestamp};

/// A scenario: one VM with one configuration, and the requests that it gets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// File with the configuration, relative to the scenario: an Istio `WasmPlugin`, of which
    /// `spec.pluginConfig` and the inline `spec.vmConfig.env` are used, or the bare
    /// configuration. Not together with `config`; with neither the configuration is empty.
    pub plugin: Option<Spanned<String>>,
    /// The configuration itself, for example `{sampling: {ratio: 0}}`.
    pub config: Option<serde_json::Value>,
    /// The node of Envoy's bootstrap. Default: empty.
    #[serde(default)]
    pub node: Node,
    /// Environment variables of the VM (`vm_config.environment_variables`). Default: none.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Whether Envoy has its CEL parser, with which the filter reads several attributes at once.
    /// Default: true.
    #[serde(default = "yes")]
    pub cel: bool,
    /// Names of the clusters that exist; a call to any other fails. Default: any name.
    pub clusters: Option<Vec<String>>,
    /// Seed of the filter's randomness: the same seed gives the same ids. Default: 0.
    #[serde(default)]
    pub seed: u64,
    /// Time at which the clock starts. Default: `"2026-01-01T00:00:00Z"`.
    #[serde(default)]
    pub time: Timestamp,
    /// Text that the filter must log as an error while it refuses the configuration. Instead of
    /// `cases`.
    pub configuration_error: Option<Spanned<String>>,
    /// The requests, one after the other, all through the same VM.
    pub cases: Option<Vec<Case>>,
}

/// Node of Envoy's bootstrap.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Such as `sidecar~10.0.0.7~checkout-1.shop~shop.svc.cluster.local`. Default: empty.
    #[serde(default)]
    pub id: String,
    /// Default: empty.
    #[serde(default)]
    pub cluster: String,
    /// What `xds.node.metadata` shows, such as `{NAMESPACE: shop}`. Default: empty.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// One request through the filter, and what must come of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the case shows, in a few words.
    pub name: String,
    /// Direction of the listener: `inbound`, `outbound` or `unspecified`, the default.
    #[serde(default)]
    pub direction: Direction,
    /// Milliseconds by which the clock moves before the request; ticks that are due are fired.
    /// Default: 0.
    #[serde(default)]
    pub clock_ms: u64,
    /// How often the request is sent; `expect` is compared with the last one. Default: 1.
    #[serde(default = "once")]
    pub repeat: NonZeroU64,
    /// Whether the clock moves on after the request until the filter has exported what it
    /// recorded. With `false` the spans come out in a later case. Default: true.
    #[serde(default = "yes")]
    pub flush: bool,
    /// How the collector answers from here on. Default: as before, at first with 200.
    pub collector: Option<Collector>,
    /// The request. Default: `GET http://localhost/`.
    #[serde(default)]
    pub request: Request,
    /// The response. Default: 200 after 10 ms.
    #[serde(default)]
    pub response: Response,
    /// More of Envoy's attributes, by path, or others than the request and the response make; a
    /// part with a dot is in brackets: `{"metadata.filter_metadata[envoy.lb].canary": true}`. Null
    /// takes one away. Whole numbers are integers, maps and lists are the ABI's pairs, of which a
    /// path may name a part. `request.*` is not there in the response phase, `response.*` and
    /// `upstream.*` from then on alone. Default: none.
    #[serde(default)]
    pub properties: Properties,
    /// What must come of it. Default: headers unchanged, no spans.
    #[serde(default)]
    pub expect: Expect,
}

/// A request as it reaches the filter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// Default: `GET`.
    pub method: String,
    /// Default: `http`.
    pub scheme: String,
    /// Default: `localhost`.
    pub authority: String,
    /// Path with its query. Default: `/`.
    pub path: String,
    /// Default: `HTTP/1.1`.
    pub protocol: String,
    /// The downstream's `ip:port`. Default: `10.0.0.9:40000`.
    pub source_address: String,
    /// The listener's `ip:port`. Default: `10.0.0.7:8080`.
    pub destination_address: String,
    /// URI in the client's certificate, such as `spiffe://cluster.local/ns/shop/sa/web`. Default:
    /// none, and no mTLS.
    pub uri_san_peer_certificate: Option<String>,
    /// URI in the listener's own certificate. Default: none.
    pub uri_san_local_certificate: Option<String>,
    /// Name of the route that matched, null where none did. Default: empty, a route without a name.
    pub route_name: Option<String>,
    /// Name of the cluster that the route chose, null where there is none. Default: empty.
    pub cluster_name: Option<String>,
    /// Header lines: a map, or a list of `{name, value}` or `{name, value_hex}`. Default: none.
    pub headers: HeaderLines,
    /// Default: none.
    pub body: String,
    /// Default: none.
    pub trailers: HeaderLines,
}

/// A response as it comes back to the filter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Response {
    /// 0: no response came. Default: 200.
    pub status: u16,
    /// Envoy's response flags: short names such as `"UF,URX"`, or bits. Default: none.
    pub flags: ResponseFlags,
    /// Default: `via_upstream`.
    pub code_details: String,
    /// The upstream's `ip:port`, empty where none was chosen. Default: `10.0.0.8:8080`.
    pub upstream_address: String,
    /// URI in the upstream's certificate. Default: none.
    pub upstream_uri_san_peer_certificate: Option<String>,
    /// URI in the certificate that the upstream was shown. Default: none.
    pub upstream_uri_san_local_certificate: Option<String>,
    /// How often the request was sent upstream. Default: 1.
    pub attempts: u64,
    /// Milliseconds from the first byte sent upstream to the last of the response. Default: all of
    /// `duration_ms` where `code_details` is `via_upstream`, else Envoy does not know it.
    pub backend_latency_ms: Option<u64>,
    /// Milliseconds from the request's headers to the end of the stream. Default: 10.
    pub duration_ms: u64,
    /// Default: none.
    pub headers: HeaderLines,
    /// Default: none.
    pub body: String,
    /// Default: none.
    pub trailers: HeaderLines,
}

/// How the filter's calls are answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Collector {
    /// HTTP status. Spans count as exported where it is 2xx. Default: 200.
    pub status: u16,
    /// Status of a gRPC call. Default: 0.
    pub grpc_status: u32,
    /// Milliseconds until the answer; from the call's timeout on it is a 504. Default: 0.
    pub delay_ms: u64,
    /// Default: none.
    pub headers: HeaderLines,
}

/// What must come of a request. Everything is compared whole: one header, span or attribute too
/// few or too many is a difference. Texts may have captures: `${name}` stands for a run of
/// `[0-9a-f]` and for the same one from then on; `$${` is a plain `${`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// All header lines that the upstream gets, in any order of names: a map, a list, or
    /// `unchanged`, the default. Pseudo headers that are not named must be unchanged.
    pub upstream: ExpectedHeaders,
    /// All header lines that the client gets. Default: `unchanged`.
    pub client: ExpectedHeaders,
    /// Spans that the collector took, in order. Default: none.
    pub spans: Vec<ExpectedSpan>,
    /// Values of metrics after the case, since the VM's start; others are not compared.
    pub metrics: BTreeMap<String, i64>,
    /// Texts, each of which a line of the log during the case contains. Default: not compared.
    pub log: Vec<String>,
    /// Calls that the filter made, in order. Default: not compared.
    pub calls: Option<Vec<ExpectedCall>>,
}

/// A span as the collector gets it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedSpan {
    pub name: String,
    /// `INTERNAL`, `SERVER`, `CLIENT`, `PRODUCER` or `CONSUMER`.
    pub kind: Kind,
    /// In hex.
    pub trace_id: String,
    /// In hex.
    pub span_id: String,
    /// In hex. Default: none.
    #[serde(default)]
    pub parent_span_id: String,
    /// Default: empty.
    #[serde(default)]
    pub trace_state: String,
    /// OTLP's flags: W3C's, 0x100 where remoteness is known, 0x200 where the parent is remote.
    /// Default: not compared.
    pub flags: Option<u32>,
    /// Start, in milliseconds since the scenario's `time`. Default: that of the request.
    pub start_ms: Option<u64>,
    /// Default: that of the request.
    pub duration_ms: Option<u64>,
    /// Default: unset.
    #[serde(default)]
    pub status: ExpectedStatus,
    /// All attributes; numbers and texts differ. Default: none.
    #[serde(default)]
    pub attributes: BTreeMap<String, AttributeValue>,
    /// All attributes of the resource. Default: not compared.
    pub resource: Option<BTreeMap<String, AttributeValue>>,
    /// Name of the instrumentation scope. Default: not compared.
    pub scope: Option<String>,
    /// Default: none.
    #[serde(default)]
    pub events: Vec<ExpectedEvent>,
    /// Default: none.
    #[serde(default)]
    pub links: Vec<ExpectedLink>,
}

/// Kind of a span.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// Status code of a span.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StatusCode {
    Unset,
    Ok,
    Error,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "INTERNAL",
            Self::Server => "SERVER",
            Self::Client => "CLIENT",
            Self::Producer => "PRODUCER",
            Self::Consumer => "CONSUMER",
        }
    }
}

impl StatusCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "UNSET",
            Self::Ok => "OK",
            Self::Error => "ERROR",
        }
    }
}

/// Status of a span.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectedStatus {
    /// `UNSET`, `OK` or `ERROR`. Default: `UNSET`.
    pub code: StatusCode,
    /// Default: empty.
    pub message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedEvent {
    pub name: String,
    #[serde(default)]
    pub attributes: BTreeMap<String, AttributeValue>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedLink {
    pub trace_id: String,
    pub span_id: String,
    #[serde(default)]
    pub trace_state: String,
    #[serde(default)]
    pub attributes: BTreeMap<String, AttributeValue>,
}

/// A call of the filter to the collector.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedCall {
    pub cluster: String,
    /// All header lines, pseudo headers too (a gRPC call: its metadata).
    pub headers: HeaderLines,
    /// Default: not compared.
    pub timeout_ms: Option<u32>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: String::new(),
            direction: Direction::default(),
            clock_ms: 0,
            repeat: once(),
            flush: yes(),
            collector: None,
            request: Request::default(),
            response: Response::default(),
            properties: Properties::default(),
            expect: Expect::default(),
        }
    }
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: "GET".into(),
            scheme: "http".into(),
            authority: "localhost".into(),
            path: "/".into(),
            protocol: "HTTP/1.1".into(),
            source_address: "10.0.0.9:40000".into(),
            destination_address: "10.0.0.7:8080".into(),
            uri_san_peer_certificate: None,
            uri_san_local_certificate: None,
            route_name: Some(String::new()),
            cluster_name: Some(String::new()),
            headers: HeaderLines::default(),
            body: String::new(),
            trailers: HeaderLines::default(),
        }
    }
}

impl Default for Response {
    fn default() -> Self {
        Self {
            status: 200,
            flags: ResponseFlags::default(),
            code_details: "via_upstream".into(),
            upstream_address: "10.0.0.8:8080".into(),
            upstream_uri_san_peer_certificate: None,
            upstream_uri_san_local_certificate: None,
            attempts: 1,
            backend_latency_ms: None,
            duration_ms: 10,
            headers: HeaderLines::default(),
            body: String::new(),
            trailers: HeaderLines::default(),
        }
    }
}

impl Default for Collector {
    fn default() -> Self {
        Self { status: 200, grpc_status: 0, delay_ms: 0, headers: HeaderLines::default() }
    }
}

impl Default for ExpectedStatus {
    fn default() -> Self {
        Self { code: StatusCode::Unset, message: String::new() }
    }
}

fn once() -> NonZeroU64 {
    NonZeroU64::MIN
}

fn yes() -> bool {
    true
}
