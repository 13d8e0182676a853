//! Decides, propagates, tags and exports spans for one Envoy.
//!
//! `plugin` is the side that Envoy calls. All other rooms are a pure core: values in, values out, no
//! clock, no randomness, no logging. Each room uses only those below it:
//!
//! - `plugin`: proxy-wasm contexts, hostcalls and memory; compiled for wasm32 only
//! - [`filter`]: one request, from its headers to what becomes of it
//! - [`config`]: JSON text to settings
//! - [`export`]: how spans leave
//! - [`span`]: what a span says
//! - [`sampling`]: whether a request is traced
//! - [`propagation`]: trace contexts in headers
//! - [`http`]: what a request says

#[cfg(target_arch = "wasm32")]
mod plugin;

pub mod filter;

pub mod config;

pub mod export;

pub mod span;

pub mod sampling;

pub mod propagation;

pub mod http;
