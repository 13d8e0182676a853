//! Decides, propagates, tags and exports spans for one Envoy.
//!
//! Everything but `plugin` is a pure core: values in, values out, no clock, no randomness, no
//! logging. `plugin` is the side that Envoy calls.

pub mod address;
pub mod attributes;
pub mod cel;
pub mod cidr;
pub mod config;
pub mod context;
pub mod decision;
pub mod delivery;
pub mod digits;
pub mod edits;
pub mod grpc;
pub mod gzip;
pub mod head;
pub mod late;
pub mod limit;
pub mod matching;

pub mod otlp;
pub mod path;
#[cfg(target_arch = "wasm32")]
mod plugin;
pub mod propagation;
pub mod queue;
pub mod ratio;
pub mod redaction;
pub mod regex;
pub mod request;
pub mod resource;
pub mod response;
pub mod response_flags;
pub mod rules;
pub mod span;
pub mod statistics;
pub mod tags;
pub mod token;
pub mod trust;
pub mod url;
pub mod zipkin;
