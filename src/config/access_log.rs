//! `access_log`: the trace context for Envoy's access logs.

use serde::Deserialize;

/// How Envoy's access logs can name the trace.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAccessLog {
    /// Whether the filter writes trace id, span id and trace flags to the filter state. Access logs
    /// read them by `%FILTER_STATE(wasm.sidespan.trace_id:PLAIN)%`, and likewise with `span_id` and
    /// `trace_flags`. Default: `false`.
    #[serde(alias = "filterState")]
    pub filter_state: bool,
}
