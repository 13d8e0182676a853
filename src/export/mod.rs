//! Exports finished spans to a receiver, without I/O of its own: encoding, queue, retries, the exporter's
//! state machine, and statistics.

pub(crate) mod delivery;
pub(crate) mod exporter;
pub mod gzip;
pub(crate) mod log;
pub(crate) mod otlp;
pub(crate) mod queue;
pub(crate) mod retry;
pub(crate) mod settings;
pub(crate) mod statistics;
pub(crate) mod tally;
pub mod zipkin;

pub(crate) use self::settings::{ExporterSettings, Protocol};
