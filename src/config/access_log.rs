//! `access_log`: the trace context for Envoy's access logs.

use serde::Deserialize;

/// What Envoy's access logs can show of the trace.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawAccessLog {
    /// Whether trace id, span id and flags are put into filter state, where format strings find
    /// them: `%FILTER_STATE(wasm.sidespan.trace_id:PLAIN)%`, and the same with `span_id` and
    /// `trace_flags`. Default: `false`.
    #[serde(alias = "filterState")]
    pub filter_state: bool,
}
