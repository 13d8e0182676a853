//! How spans leave: encoding, queue, retry, and what is counted. No I/O happens here.

pub mod delivery;
pub mod gzip;
pub mod otlp;
pub mod queue;
pub mod statistics;
pub mod zipkin;
