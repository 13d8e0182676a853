//! The scenario file, which a user writes to replay requests, as YAML.
//!
//! A field without a default is required, and unknown keys are errors. `sidespan replay --help` shows
//! an example.

pub(crate) mod headers;

mod expect;
mod messages;
mod values;

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::host::Direction;

pub(crate) use expect::{Expect, ExpectedCall, ExpectedSpan};
pub(crate) use headers::{ExpectedHeaders, HeaderLines};
pub(crate) use messages::{Request, Response};
pub(crate) use values::{AttributeValue, Properties, ResponseFlags};

pub use values::Timestamp;

/// A scenario: one VM with one configuration, and the requests that it gets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// Path of a file with the configuration, relative to the scenario: the bare configuration, or an
    /// Istio `WasmPlugin`, of which `spec.pluginConfig` and the inline `spec.vmConfig.env` are used.
    /// Cannot be combined with `config`. Default: no configuration.
    pub(crate) plugin: Option<Spanned<String>>,
    /// The configuration itself, for example `{sampling: {ratio: 0}}`.
    pub(crate) config: Option<serde_json::Value>,
    /// The node in Envoy's bootstrap. Default: empty.
    #[serde(default)]
    pub(crate) node: Node,
    /// Environment variables of the VM (`vm_config.environment_variables`). Default: none.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    /// Whether Envoy has its CEL parser, with which the filter reads several attributes at once.
    /// Default: true.
    #[serde(default = "yes")]
    pub(crate) cel: bool,
    /// Names of the clusters that exist; a call to any other fails. Default: every name exists.
    pub(crate) clusters: Option<Vec<String>>,
    /// Seed of the filter's randomness: the same seed gives the same ids. Default: 0.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Time at which the clock starts. Default: `"2026-01-01T00:00:00Z"`.
    #[serde(default)]
    pub(crate) time: Timestamp,
    /// Text of an error that the filter must log when it refuses the configuration. Replaces `cases`.
    pub(crate) configuration_error: Option<Spanned<String>>,
    /// The requests, one after the other, all through the same VM.
    pub(crate) cases: Option<Vec<Case>>,
}

/// The node in Envoy's bootstrap.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// For example `sidecar~10.0.0.7~checkout-1.shop~shop.svc.cluster.local`. Default: empty.
    #[serde(default)]
    pub(crate) id: String,
    /// Default: empty.
    #[serde(default)]
    pub(crate) cluster: String,
    /// The attribute `xds.node.metadata`, for example `{NAMESPACE: shop}`. Default: empty.
    #[serde(default)]
    pub(crate) metadata: serde_json::Map<String, serde_json::Value>,
}

/// One request through the filter, and its expected result.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What the case shows, in a few words.
    pub(crate) name: String,
    /// Direction of the listener: `inbound`, `outbound` or `unspecified`. Default: `unspecified`.
    #[serde(default)]
    pub(crate) direction: Direction,
    /// Milliseconds by which the clock moves before the request. Ticks that become due are fired.
    /// Default: 0.
    #[serde(default)]
    pub(crate) clock_ms: u64,
    /// How often the request is sent; `expect` applies to the last time. Default: 1.
    #[serde(default = "once")]
    pub(crate) repeat: NonZeroU64,
    /// Whether the clock moves after the request until the filter has exported all spans. With `false`
    /// they are exported in a later case. Default: true.
    #[serde(default = "yes")]
    pub(crate) flush: bool,
    /// Responses of the collector, in this and all later cases. Default: as before; at first 200.
    pub(crate) collector: Option<CollectorBehavior>,
    /// The request. Default: `GET http://localhost/`.
    #[serde(default)]
    pub(crate) request: Request,
    /// The response. Default: 200 after 10 ms.
    #[serde(default)]
    pub(crate) response: Response,
    /// Envoy's attributes by path, in addition to those of the request and the response, or in their
    /// place. A part with a dot is in brackets: `{"metadata.filter_metadata[envoy.lb].canary": true}`.
    /// Null removes an attribute. Whole numbers are integers; maps and lists are the ABI's pairs, and a
    /// path can select a member of them. `request.*` is absent in the response phase; `response.*` and
    /// `upstream.*` are absent before it. Default: none.
    #[serde(default)]
    pub(crate) properties: Properties,
    /// The expected result. Default: headers unchanged, no spans.
    #[serde(default)]
    pub(crate) expect: Expect,
}

/// How the collector responds to the filter's calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CollectorBehavior {
    /// HTTP status; with 2xx the spans count as exported. Default: 200.
    pub(crate) status: u16,
    /// Status of a gRPC call; with 0 the spans count as exported. Default: 0.
    pub(crate) grpc_status: u32,
    /// Milliseconds until the response; from the call's timeout on, Envoy responds with 504. Default:
    /// 0.
    pub(crate) delay_ms: u64,
    /// Default: none.
    pub(crate) headers: HeaderLines,
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

impl Default for CollectorBehavior {
    fn default() -> Self {
        Self { status: 200, grpc_status: 0, delay_ms: 0, headers: HeaderLines::default() }
    }
}

fn once() -> NonZeroU64 {
    NonZeroU64::MIN
}

fn yes() -> bool {
    true
}
