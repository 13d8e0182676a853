//! Loads the filter's module as Envoy does, and replays requests against it.
//!
//! Each room uses only those below it:
//!
//! - [`explain`]: what the filter does with any request
//! - [`replay`]: scenarios, run case by case, and the report on them
//! - `compare`: expected and found results as trees
//! - `session`: a VM and its collector in virtual time
//! - `collector`: responses to the filter's calls
//! - [`plugin`]: the filter's configuration, from the files that users have
//! - [`scenario`]: the scenario file
//! - `yaml`: YAML files to types, with errors that name line and column
//! - [`otlp`]: exported spans, decoded
//! - [`host`]: the proxy-wasm host
//! - [`token`]: debug tokens, as the filter verifies them

#![warn(unreachable_pub)]

pub mod explain;

pub mod replay;

mod compare;

mod session;

mod collector;

pub mod plugin;

pub mod scenario;

mod yaml;

pub mod otlp;

pub mod host;

pub mod token;

#[cfg(test)]
mod rooms;
