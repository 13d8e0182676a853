//! Decides which requests of an Envoy are traced, propagates their contexts, and exports their spans.
//!
//! `plugin` is the side that Envoy calls. All other rooms are a pure core: values in, values out, without a
//! clock and without logging. Its only randomness is a seed, which is an argument. Each room uses only those
//! below it:
//!
//! - `plugin`: proxy-wasm contexts, hostcalls and memory; compiled for wasm32 only
//! - `filter`: one request: decides, propagates, records
//! - `config`: JSON text to settings
//! - `export`: queues spans, and sends them to a receiver
//! - `span`: the attributes of a span, and its encoding
//! - `sampling`: whether a request is traced
//! - `propagation`: trace contexts in headers
//! - `http`: header lines, URLs, paths and gRPC statuses
//!
//! Only what the fuzz targets use is public, so the compiler finds dead code.

// Without `plugin`, the compiler takes most of the core for dead.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code, unused_imports))]
#![cfg_attr(feature = "fuzzing", warn(unreachable_pub))]

#[cfg(target_arch = "wasm32")]
mod plugin;

mod filter;

mod config;

mod export;

mod span;

mod sampling;

mod propagation;

mod http;

#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    //! The parts of the filter that the fuzz targets call.

    pub use crate::config::Config;
    pub use crate::export::delivery::{Delivery, Response, Verdict};
    pub use crate::export::gzip;
    pub use crate::export::otlp::append_span;
    pub use crate::export::zipkin;
    pub use crate::http::edits::{Edits, HeaderEdit};
    pub use crate::http::head::Head;
    pub use crate::http::path;
    pub use crate::http::redaction::SecretKeys;
    pub use crate::http::url;
    pub use crate::propagation::Propagation;
    pub use crate::propagation::baggage;
    pub use crate::propagation::context::Context;
    pub use crate::propagation::extracted::parse_trace_id;
    pub use crate::propagation::ot;
    pub use crate::propagation::tracestate;
    pub use crate::sampling::cidr::Cidr;
    pub use crate::sampling::regex::Regex;
    pub use crate::sampling::token::{Key, TokenCheck};
    pub use crate::span::tags::format;
    pub use crate::span::tags::property::{Encoding, Property};
    pub use crate::span::tags::redact::{Redaction, Transformation};
    pub use crate::span::tags::source::{Lookup, Source};
}
