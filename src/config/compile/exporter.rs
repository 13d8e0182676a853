//! `exporter`: the receiver, the bounds of the queue before it, and retries.

use std::time::Duration;

use super::super::error::{ConfigError, quoted};
use super::super::raw::{
    RawBatch, RawCompression, RawExportHeader, RawExporter, RawOtlp, RawProtocol, RawRetry,
    RawZipkin,
};
use super::super::{Exporter, Protocol};
use super::{Environment, Result, at_least, header_name, non_empty};
use crate::delivery::RetryPolicy;
use crate::queue::Limits;

pub fn exporter(raw: RawExporter, environment: Environment<'_>) -> Result<Exporter> {
    let (limits, interval) = batch(&raw.batch).map_err(|error| error.under("batch"))?;
    let retry = retry(&raw.retry).map_err(|error| error.under("retry"))?;
    let (receiver, key) = match (raw.otlp, raw.zipkin) {
        (Some(otlp), None) => (otlp_receiver(otlp), "otlp"),
        (None, Some(zipkin)) => (Ok(zipkin_receiver(zipkin)), "zipkin"),
        (None, None) => return Err(ConfigError::new("`otlp` or `zipkin`", "neither")),
        (Some(_), Some(_)) => return Err(ConfigError::new("`otlp` or `zipkin`", "both")),
    };
    let under = |error: ConfigError, member: &str| error.under(member).under(key);
    let receiver = receiver.map_err(|error| under(error, "path"))?;
    if receiver.protocol == Protocol::OtlpGrpc && receiver.compression == Some(RawCompression::Gzip)
    {
        // A gRPC server answers in the same compression, and then what it says of rejected spans is lost.
        let error = ConfigError::new("`none`, since the protocol is `grpc`", quoted("gzip"));
        return Err(under(error, "compression"));
    }
    let path = receiver.path;
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        let error = ConfigError::new("a path that begins with /, without spaces", quoted(&path));
        return Err(under(error, "path"));
    }
    let timeout_ms = receiver.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
    let timeout_ms = at_least(1, timeout_ms).map_err(|error| under(error, "timeout_ms"))?;
    let mut headers = Vec::with_capacity(receiver.headers.len());
    for (place, raw) in receiver.headers.into_iter().enumerate() {
        let header = export_header(raw, &headers, environment);
        headers.push(header.map_err(|error| under(error.at(place), "headers"))?);
    }
    let cluster = non_empty(receiver.cluster).map_err(|error| under(error, "cluster"))?;
    Ok(Exporter {
        protocol: receiver.protocol,
        authority: authority(&cluster),
        cluster,
        path,
        timeout: Duration::from_millis(timeout_ms.into()),
        headers,
        gzip: receiver.compression == Some(RawCompression::Gzip),
        limits,
        retry,
        interval,
    })
}

/// What receivers of all protocols have.
struct Receiver {
    protocol: Protocol,
    cluster: String,
    path: String,
    timeout_ms: Option<u32>,
    compression: Option<RawCompression>,
    headers: Vec<RawExportHeader>,
}

fn otlp_receiver(raw: RawOtlp) -> Result<Receiver> {
    let (protocol, path) = match (raw.protocol.unwrap_or_default(), raw.path) {
        (RawProtocol::HttpProtobuf, None) => (Protocol::OtlpHttp, DEFAULT_OTLP_PATH.to_owned()),
        (RawProtocol::HttpProtobuf, Some(path)) => (Protocol::OtlpHttp, path),
        (RawProtocol::Grpc, None) => (Protocol::OtlpGrpc, GRPC_PATH.to_owned()),
        (RawProtocol::Grpc, Some(path)) => {
            let expected = "none, since the protocol `grpc` has its own";
            return Err(ConfigError::new(expected, quoted(&path)));
        }
    };
    let RawOtlp { cluster, timeout_ms, compression, headers, .. } = raw;
    Ok(Receiver { protocol, cluster, path, timeout_ms, compression, headers })
}

fn zipkin_receiver(raw: RawZipkin) -> Receiver {
    let path = raw.path.unwrap_or_else(|| DEFAULT_ZIPKIN_PATH.to_owned());
    let RawZipkin { cluster, timeout_ms, compression, headers, .. } = raw;
    Receiver { protocol: Protocol::Zipkin, cluster, path, timeout_ms, compression, headers }
}

fn batch(raw: &RawBatch) -> Result<(Limits, Duration)> {
    let (max_queue_spans, max_batch_spans) = bounds(
        ("max_queue_spans", raw.max_queue_spans.unwrap_or(DEFAULT_MAX_QUEUE_SPANS)),
        ("max_batch_spans", raw.max_batch_spans, DEFAULT_MAX_BATCH_SPANS),
    )?;
    let (max_queue_bytes, max_batch_bytes) = bounds(
        ("max_queue_bytes", raw.max_queue_bytes.unwrap_or(DEFAULT_MAX_QUEUE_BYTES)),
        ("max_batch_bytes", raw.max_batch_bytes, DEFAULT_MAX_BATCH_BYTES),
    )?;
    let interval = at_least(MIN_INTERVAL_MS, raw.interval_ms.unwrap_or(DEFAULT_INTERVAL_MS));
    let interval_ms = interval.map_err(|error| error.under("interval_ms"))?;
    let limits = Limits { max_queue_spans, max_queue_bytes, max_batch_spans, max_batch_bytes };
    Ok((limits, Duration::from_millis(interval_ms.into())))
}

/// Returns a bound of the queue, and the bound of a batch in it, which has a default.
fn bounds(queue: (&str, u32), batch: (&str, Option<u32>, u32)) -> Result<(u32, u32)> {
    let (queue_key, queue) = queue;
    let queue = at_least(1, queue).map_err(|error| error.under(queue_key))?;
    let (batch_key, batch, default) = batch;
    let batch = at_least(1, batch.unwrap_or(default.min(queue)));
    let batch = batch.map_err(|error| error.under(batch_key))?;
    not_above(queue_key, queue, batch).map_err(|error| error.under(batch_key))?;
    Ok((queue, batch))
}

fn not_above(bound_key: &str, bound: u32, value: u32) -> Result<()> {
    if value > bound {
        let expected = format!("at most {bound_key}, which is {bound}");
        return Err(ConfigError::new(expected, value.to_string()));
    }
    Ok(())
}

fn retry(raw: &RawRetry) -> Result<RetryPolicy> {
    let max = at_least(1, raw.max_interval_ms.unwrap_or(DEFAULT_MAX_INTERVAL_MS));
    let max = max.map_err(|error| error.under("max_interval_ms"))?;
    let initial = raw.initial_interval_ms.unwrap_or(DEFAULT_INITIAL_INTERVAL_MS.min(max));
    let initial = at_least(1, initial)
        .and_then(|initial| not_above("max_interval_ms", max, initial).map(|()| initial))
        .map_err(|error| error.under("initial_interval_ms"))?;
    let elapsed = raw.max_elapsed_time_ms.unwrap_or(DEFAULT_MAX_ELAPSED_TIME_MS);
    let millis = |millis: u32| Duration::from_millis(millis.into());
    Ok(RetryPolicy {
        initial_interval: millis(initial),
        max_interval: millis(max),
        max_elapsed_time: millis(elapsed),
    })
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
/// <https://github.com/open-telemetry/opentelemetry-proto/blob/v1.9.0/opentelemetry/proto/collector/trace/v1/trace_service.proto>
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const DEFAULT_ZIPKIN_PATH: &str = "/api/v2/spans";
const DEFAULT_TIMEOUT_MS: u32 = 10_000;
const DEFAULT_MAX_QUEUE_SPANS: u32 = 2_048;
const DEFAULT_MAX_BATCH_SPANS: u32 = 512;
const DEFAULT_MAX_QUEUE_BYTES: u32 = 8 << 20;
/// Half of what gRPC servers take by default.
const DEFAULT_MAX_BATCH_BYTES: u32 = 2 << 20;
const DEFAULT_INTERVAL_MS: u32 = 1_000;
const DEFAULT_INITIAL_INTERVAL_MS: u32 = 1_000;
const DEFAULT_MAX_INTERVAL_MS: u32 = 30_000;
const DEFAULT_MAX_ELAPSED_TIME_MS: u32 = 300_000;
/// The tick that sends batches also publishes the metrics; faster ones would cost for nothing.
const MIN_INTERVAL_MS: u32 = 10;
/// What the exporter sets itself.
const EXPORT_HEADERS: [&str; 9] = [
    "host",
    "content-type",
    "content-length",
    "content-encoding",
    "user-agent",
    "te",
    // Compressed answers cannot be read.
    "accept-encoding",
    "grpc-encoding",
    "grpc-accept-encoding",
];
/// The authority where a cluster's name cannot be one.
const ANY_AUTHORITY: &str = "otlp";
