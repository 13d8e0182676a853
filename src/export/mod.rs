//! How spans leave: encoding, queue, retries, the exporter's state machine, and statistics. Nothing
//! here does I/O.

pub mod delivery;
pub mod exporter;
pub mod gzip;
pub mod log;
pub mod otlp;
pub mod queue;
pub mod retry;
pub mod settings;
pub mod statistics;
pub mod tally;
pub mod zipkin;

pub use self::settings::{ExporterSettings, Protocol};
