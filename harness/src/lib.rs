//! Loads the sidespan module as Envoy does, and replays requests against it.
//!
//! [`host`] is the proxy-wasm host. [`scenario`] is the file that a user writes; [`replay`] runs
//! it in the host against a [`collector`] and [`compare`]s, whole, what came out. [`explain`] says of
//! any request what the filter does with it, and [`token`] mints what a request may have to bring.

pub mod captures;
pub mod collector;
pub mod compare;
pub mod explain;
pub mod headers;
pub mod host;
pub mod messages;
pub mod otlp;
pub mod plugin;
pub mod replay;
pub mod report;
pub mod scenario;
pub mod session;
pub mod token;
pub mod tree;
pub mod values;
pub mod yaml;
