//! `exporter`: the receiver, and the bounds of the queue before it.

use std::time::Duration;

use super::super::Exporter;
use super::super::error::{ConfigError, quoted};
use super::super::raw::{RawBatch, RawExportHeader, RawExporter};
use super::{Environment, Result, at_least, header_name, non_empty};
use crate::queue::Limits;

pub fn exporter(raw: RawExporter, environment: Environment<'_>) -> Result<Exporter> {
    let (limits, interval) = batch(&raw.batch).map_err(|error| error.under("batch"))?;
    let under = |error: ConfigError, key: &str| error.under(key).under("otlp");
    let path = raw.otlp.path.unwrap_or_else(|| DEFAULT_OTLP_PATH.to_owned());
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        let error = ConfigError::new("a path that begins with /, without spaces", quoted(&path));
        return Err(under(error, "path"));
    }
    let timeout_ms = raw.otlp.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
    let timeout_ms = at_least(1, timeout_ms).map_err(|error| under(error, "timeout_ms"))?;
    let mut headers = Vec::with_capacity(raw.otlp.headers.len());
    for (place, raw) in raw.otlp.headers.into_iter().enumerate() {
        let header = export_header(raw, &headers, environment);
        headers.push(header.map_err(|error| under(error.at(place), "headers"))?);
    }
    let cluster = non_empty(raw.otlp.cluster).map_err(|error| under(error, "cluster"))?;
    Ok(Exporter {
        authority: authority(&cluster),
        cluster,
        path,
        timeout: Duration::from_millis(timeout_ms.into()),
        headers,
        limits,
        interval,
    })
}

fn batch(raw: &RawBatch) -> Result<(Limits, Duration)> {
    let queue = at_least(1, raw.max_queue_spans.unwrap_or(DEFAULT_MAX_QUEUE_SPANS));
    let max_queue_spans = queue.map_err(|error| error.under("max_queue_spans"))?;
    let default = DEFAULT_MAX_BATCH_SPANS.min(max_queue_spans);
    let batch = at_least(1, raw.max_batch_spans.unwrap_or(default));
    let max_batch_spans = batch.map_err(|error| error.under("max_batch_spans"))?;
    if max_batch_spans > max_queue_spans {
        let expected = format!("at most max_queue_spans, which is {max_queue_spans}");
        return Err(
            ConfigError::new(expected, max_batch_spans.to_string()).under("max_batch_spans")
        );
    }
    let interval = at_least(MIN_INTERVAL_MS, raw.interval_ms.unwrap_or(DEFAULT_INTERVAL_MS));
    let interval_ms = interval.map_err(|error| error.under("interval_ms"))?;
    let limits = Limits { max_queue_spans, max_batch_spans };
    Ok((limits, Duration::from_millis(interval_ms.into())))
}

fn export_header(
    raw: RawExportHeader,
    known: &[(String, String)],
    environment: Environment<'_>,
) -> Result<(String, String)> {
    let name = header_name(&raw.name).map_err(|error| error.under("name"))?;
    let set_already = EXPORT_HEADERS.contains(&name.as_str());
    if name.starts_with(':') || set_already || known.iter().any(|(other, _)| *other == name) {
        let expected = "a header that neither the exporter nor another entry sets";
        return Err(ConfigError::new(expected, quoted(&name)).under("name"));
    }
    let (value, source, key) = match (raw.literal, raw.environment) {
        (Some(literal), None) => (literal.value.0, "literal", "value"),
        (None, Some(source)) => {
            let value = environment(&source.name).or(source.default_value).ok_or_else(|| {
                let expected = "an environment variable of the VM, or a default_value";
                ConfigError::new(expected, quoted(&source.name)).under("name").under("environment")
            })?;
            (value, "environment", "name")
        }
        (None, None) => return Err(ConfigError::new("`literal` or `environment`", "neither")),
        (Some(_), Some(_)) => return Err(ConfigError::new("`literal` or `environment`", "both")),
    };
    if value.bytes().any(|byte| byte.is_ascii_control()) {
        // The value may be a secret: it is not shown.
        let error =
            ConfigError::new("a value without control characters", "one, such as a newline");
        return Err(error.under(key).under(source));
    }
    Ok((name, value))
}

/// Returns the authority of a cluster's receiver. Istio's clusters are called
/// `direction|port|subset|host`, and receivers refuse a `Host` with a `|` in it.
fn authority(cluster: &str) -> String {
    let parts: Vec<&str> = cluster.split('|').collect();
    if let [_direction, port, _subset, host] = parts.as_slice() {
        return format!("{host}:{port}");
    }
    let host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if cluster.bytes().all(host_byte) { cluster.to_owned() } else { ANY_AUTHORITY.to_owned() }
}

const DEFAULT_OTLP_PATH: &str = "/v1/traces";
const DEFAULT_TIMEOUT_MS: u32 = 10_000;
const DEFAULT_MAX_QUEUE_SPANS: u32 = 2_048;
const DEFAULT_MAX_BATCH_SPANS: u32 = 512;
const DEFAULT_INTERVAL_MS: u32 = 1_000;
/// The tick that sends batches also publishes the metrics; faster ones would cost for nothing.
const MIN_INTERVAL_MS: u32 = 10;
/// What the exporter sets itself.
const EXPORT_HEADERS: [&str; 4] = ["host", "content-type", "content-length", "user-agent"];
/// The authority where a cluster's name cannot be one.
const ANY_AUTHORITY: &str = "otlp";
