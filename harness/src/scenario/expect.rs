//! The expected result of a case.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{AttributeValue, ExpectedHeaders, HeaderLines};

/// The expected result of a request. Everything is compared whole: one header, span or attribute too
/// few or too many is a difference. Texts can have captures: `${name}` matches one or more of
/// `[0-9a-f]` the first time, and the same text from then on; `$${` is a plain `${`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    /// All header lines that the upstream gets, in any order of names: a map, a list, or `unchanged`.
    /// Pseudo headers that are not named must be unchanged. Default: `unchanged`.
    pub(crate) upstream: ExpectedHeaders,
    /// All header lines that the client gets. Default: `unchanged`.
    pub(crate) client: ExpectedHeaders,
    /// Spans that the collector accepted, in order. Default: none.
    pub(crate) spans: Vec<ExpectedSpan>,
    /// Values of metrics after the case, counted from the VM's start. Other metrics are not compared.
    pub(crate) metrics: BTreeMap<String, i64>,
    /// Texts, each of which some line of the case's log contains. Default: not compared.
    pub(crate) log: Vec<String>,
    /// Calls that the filter made, in order. Default: not compared.
    pub(crate) calls: Option<Vec<ExpectedCall>>,
}

/// A span as the collector gets it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedSpan {
    pub(crate) name: String,
    /// `INTERNAL`, `SERVER`, `CLIENT`, `PRODUCER` or `CONSUMER`.
    pub(crate) kind: Kind,
    /// In hex.
    pub(crate) trace_id: String,
    /// In hex.
    pub(crate) span_id: String,
    /// In hex. Default: none.
    #[serde(default)]
    pub(crate) parent_span_id: String,
    /// Default: empty.
    #[serde(default)]
    pub(crate) trace_state: String,
    /// OTLP's flags: W3C's trace flags, 0x100 if it is known whether the parent is remote, and 0x200 if
    /// the parent is remote. Default: not compared.
    pub(crate) flags: Option<u32>,
    /// Start, in milliseconds since the scenario's `time`. Default: that of the request.
    pub(crate) start_ms: Option<u64>,
    /// Default: that of the request.
    pub(crate) duration_ms: Option<u64>,
    /// Default: unset.
    #[serde(default)]
    pub(crate) status: ExpectedStatus,
    /// All attributes. A number is not equal to the text of its digits. Default: none.
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, AttributeValue>,
    /// All attributes of the resource. Default: not compared.
    pub(crate) resource: Option<BTreeMap<String, AttributeValue>>,
    /// Name of the instrumentation scope. Default: not compared.
    pub(crate) scope: Option<String>,
    /// Default: none.
    #[serde(default)]
    pub(crate) events: Vec<ExpectedEvent>,
    /// Default: none.
    #[serde(default)]
    pub(crate) links: Vec<ExpectedLink>,
}

/// Kind of a span.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Kind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// Status of a span.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExpectedStatus {
    /// `UNSET`, `OK` or `ERROR`. Default: `UNSET`.
    pub(crate) code: StatusCode,
    /// Default: empty.
    pub(crate) message: String,
}

/// Status code of a span.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum StatusCode {
    #[default]
    Unset,
    Ok,
    Error,
}

/// An event of a span.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedEvent {
    pub(crate) name: String,
    /// All attributes. Default: none.
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, AttributeValue>,
}

/// A link of a span.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedLink {
    /// In hex.
    pub(crate) trace_id: String,
    /// In hex.
    pub(crate) span_id: String,
    /// Default: empty.
    #[serde(default)]
    pub(crate) trace_state: String,
    /// All attributes. Default: none.
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, AttributeValue>,
}

/// A call that the filter makes to the collector.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedCall {
    pub(crate) cluster: String,
    /// All header lines, pseudo headers included; for a gRPC call, its metadata.
    pub(crate) headers: HeaderLines,
    /// Default: not compared.
    pub(crate) timeout_ms: Option<u32>,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
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
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "UNSET",
            Self::Ok => "OK",
            Self::Error => "ERROR",
        }
    }
}
