//! `exporter`: the receiver, the bounds of the queue, and retries.

use std::time::Duration;

use serde::Deserialize;

use super::error::{ConfigError, InPath, Result, quoted};
use super::queue::{RawBatch, RawRetry};
use super::shapes::{Environment, Secret, at_least, header_name, non_empty};
use crate::export::queue::QueueLimits;
use crate::export::retry::RetryPolicy;
use crate::export::{ExporterSettings, Protocol};
use crate::http::redaction::SecretKeys;

/// Where spans go: `otlp` or `zipkin`; how many at once, and when again.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawExporter {
    /// An OTLP receiver; this or `zipkin`. Example: `{cluster: otel-collector}`.
    pub otlp: Option<RawOtlp>,
    /// A receiver of Zipkin v2 JSON; this or `otlp`. A tag called `error` is left out, because Zipkin treats
    /// every span with this tag as failed. Example: `{cluster: zipkin}`.
    pub zipkin: Option<RawZipkin>,
    /// The queue of spans in each worker.
    pub batch: RawBatch,
    /// How a batch that the receiver did not accept is retried.
    pub retry: RawRetry,
}

/// An OTLP receiver behind an Envoy cluster.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOtlp {
    /// Name of the Envoy cluster. Required.
    /// Example: `outbound|4318||otel-collector.observability.svc.cluster.local`.
    pub cluster: String,
    /// `http/protobuf` or `grpc`, as in `OTEL_EXPORTER_OTLP_PROTOCOL`; the cluster of `grpc`
    /// must speak HTTP/2. Default: `http/protobuf`.
    pub protocol: Option<RawProtocol>,
    /// Path of the receiver; `grpc` has its own. Default: `/v1/traces`.
    pub path: Option<String>,
    /// How long to wait for the receiver's response, in milliseconds, from 1. Default: `10000`.
    #[serde(alias = "timeoutMs")]
    pub timeout_ms: Option<u32>,
    /// `gzip` or `none`, as in `OTEL_EXPORTER_OTLP_COMPRESSION`; only `none` with `grpc`. Gzip sends far fewer
    /// bytes but takes more CPU. It needs an Envoy that is built with zlib.
    /// Default: `none`.
    pub compression: Option<RawCompression>,
    /// More headers of the export request, from `literal` or `environment`. Default: none.
    /// Example: `[{name: authorization, environment: {name: OTLP_AUTHORIZATION}}]`.
    #[serde(default)]
    pub headers: Vec<RawExportHeader>,
}

/// A receiver of Zipkin v2 JSON behind an Envoy cluster.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawZipkin {
    /// Name of the Envoy cluster. Required.
    /// Example: `outbound|9411||zipkin.observability.svc.cluster.local`.
    pub cluster: String,
    /// Path of the receiver. Default: `/api/v2/spans`.
    pub path: Option<String>,
    /// How long to wait for the receiver's response, in milliseconds, from 1. Default: `10000`.
    #[serde(alias = "timeoutMs")]
    pub timeout_ms: Option<u32>,
    /// `gzip` or `none`. Default: `none`.
    pub compression: Option<RawCompression>,
    /// More headers of the export request, from `literal` or `environment`. Default: none.
    #[serde(default)]
    pub headers: Vec<RawExportHeader>,
}

/// A header of the export request: `name` and exactly one source.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExportHeader {
    /// Name of the header. Required. Example: `authorization`.
    pub name: String,
    /// A fixed value.
    pub literal: Option<RawSecretLiteral>,
    /// The value of an environment variable of the VM.
    pub environment: Option<RawSecretVariable>,
}

/// A fixed value that may be a credential.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSecretLiteral {
    /// The value. Required.
    pub value: Secret,
}

/// A variable of the VM's environment that may hold a credential.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSecretVariable {
    /// Its name. Required. Example: `OTLP_AUTHORIZATION`.
    pub name: String,
    /// The value if the variable is not set. Default: the configuration is refused.
    #[serde(alias = "defaultValue")]
    pub default_value: Option<Secret>,
}

/// The transport of OTLP.
#[derive(Default, Clone, Copy, Deserialize)]
pub(super) enum RawProtocol {
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    #[serde(rename = "grpc")]
    Grpc,
}

/// How the body of an export request is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawCompression {
    None,
    Gzip,
}

impl RawExporter {
    /// Compiles the section. A variable is looked up by `secret` if the header's name tells that it holds
    /// a credential, and by `environment` otherwise.
    pub(super) fn compile(
        self,
        environment: Environment<'_>,
        secret: Environment<'_>,
    ) -> Result<ExporterSettings> {
        let (limits, interval) = self.batch.compile().under("batch")?;
        let retry = self.retry.compile().under("retry")?;
        let (receiver, key) = match (self.otlp, self.zipkin) {
            (Some(otlp), None) => (otlp.receiver(), "otlp"),
            (None, Some(zipkin)) => (Ok(zipkin.receiver()), "zipkin"),
            (None, None) => return Err(ConfigError::new("`otlp` or `zipkin`", "neither")),
            (Some(_), Some(_)) => return Err(ConfigError::new("`otlp` or `zipkin`", "both")),
        };
        let receiver = receiver.and_then(|it| {
            let lookup = |header: &str| {
                let is_secret = SecretKeys::default().is_secret(header.as_bytes());
                if is_secret { secret } else { environment }
            };
            it.compile(limits, retry, interval, &lookup)
        });
        receiver.under(key)
    }
}

/// The keys that all receivers have.
struct Receiver {
    protocol: Protocol,
    cluster: String,
    path: String,
    timeout_ms: Option<u32>,
    compression: Option<RawCompression>,
    headers: Vec<RawExportHeader>,
}

impl RawOtlp {
    fn receiver(self) -> Result<Receiver> {
        let Self { cluster, protocol, path, timeout_ms, compression, headers } = self;
        let (protocol, path) = match (protocol.unwrap_or_default(), path) {
            (RawProtocol::HttpProtobuf, None) => (Protocol::OtlpHttp, DEFAULT_OTLP_PATH.to_owned()),
            (RawProtocol::HttpProtobuf, Some(path)) => (Protocol::OtlpHttp, path),
            (RawProtocol::Grpc, None) => (Protocol::OtlpGrpc, GRPC_PATH.to_owned()),
            (RawProtocol::Grpc, Some(path)) => {
                let expected = "none, since the protocol `grpc` has its own";
                return Err(ConfigError::new(expected, quoted(&path)).under("path"));
            }
        };
        if protocol == Protocol::OtlpGrpc && compression == Some(RawCompression::Gzip) {
            // A gRPC server compresses its response in the same way, and its message about rejected
            // spans could not be read.
            let error = ConfigError::new("`none`, since the protocol is `grpc`", quoted("gzip"));
            return Err(error.under("compression"));
        }
        Ok(Receiver { protocol, cluster, path, timeout_ms, compression, headers })
    }
}

impl RawZipkin {
    fn receiver(self) -> Receiver {
        let Self { cluster, path, timeout_ms, compression, headers } = self;
        let path = path.unwrap_or_else(|| DEFAULT_ZIPKIN_PATH.to_owned());
        Receiver { protocol: Protocol::Zipkin, cluster, path, timeout_ms, compression, headers }
    }
}

impl Receiver {
    fn compile<'e>(
        self,
        limits: QueueLimits,
        retry: RetryPolicy,
        interval: Duration,
        lookup: &dyn Fn(&str) -> Environment<'e>,
    ) -> Result<ExporterSettings> {
        let path = self.path;
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            let expected = "a path that begins with /, without spaces";
            return Err(ConfigError::new(expected, quoted(&path)).under("path"));
        }
        let timeout_ms = at_least(1, self.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS));
        let timeout_ms = timeout_ms.under("timeout_ms")?;
        let mut headers = Vec::with_capacity(self.headers.len());
        for (index, raw) in self.headers.into_iter().enumerate() {
            headers.push(raw.compile(&headers, lookup).at(index).under("headers")?);
        }
        let cluster = non_empty(self.cluster).under("cluster")?;
        Ok(ExporterSettings {
            protocol: self.protocol,
            authority: authority(&cluster),
            cluster,
            path,
            timeout: Duration::from_millis(timeout_ms.into()),
            headers,
            gzip: self.compression == Some(RawCompression::Gzip),
            limits,
            retry,
            interval,
        })
    }
}

impl RawExportHeader {
    fn compile<'e>(
        self,
        others: &[(String, String)],
        lookup: &dyn Fn(&str) -> Environment<'e>,
    ) -> Result<(String, String)> {
        let Ok(name) = header_name(&self.name) else {
            // The name may hold a secret, as in `authorization: Bearer …`.
            let found = "other characters, which are not shown";
            return Err(ConfigError::new("the name of a header", found).under("name"));
        };
        let is_set = EXPORT_HEADERS.contains(&name.as_str());
        if name.starts_with(':') || is_set || others.iter().any(|(other, _)| *other == name) {
            let expected = "a header that neither the exporter nor another entry sets";
            return Err(ConfigError::new(expected, quoted(&name)).under("name"));
        }
        let (value, source, key) = match (self.literal, self.environment) {
            (Some(literal), None) => (literal.value, "literal", "value"),
            (None, Some(variable)) => {
                let found = lookup(&name)(&variable.name).map(Secret).or(variable.default_value);
                let value = found.ok_or_else(|| {
                    let expected = "an environment variable of the VM, or a default_value";
                    let error = ConfigError::new(expected, quoted(&variable.name));
                    error.under("name").under("environment")
                })?;
                (value, "environment", "name")
            }
            (None, None) => return Err(ConfigError::new("`literal` or `environment`", "neither")),
            (Some(_), Some(_)) => {
                return Err(ConfigError::new("`literal` or `environment`", "both"));
            }
        };
        if value.0.bytes().any(|byte| byte.is_ascii_control()) {
            let expected = "a value without control characters";
            let error = ConfigError::new(expected, "a control character, such as a newline");
            return Err(error.under(key).under(source));
        }
        Ok((name, value.0))
    }
}

/// Returns `:authority` for a cluster. The names of Istio's clusters are
/// `direction|port|subset|host`, and receivers refuse an authority with a `|`.
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
/// Headers that the exporter sets itself.
const EXPORT_HEADERS: [&str; 9] = [
    "host",
    "content-type",
    "content-length",
    "content-encoding",
    "user-agent",
    "te",
    // The filter cannot read compressed responses.
    "accept-encoding",
    "grpc-encoding",
    "grpc-accept-encoding",
];
/// The authority if a cluster's name is not a valid one.
const ANY_AUTHORITY: &str = "otlp";

#[cfg(test)]
mod tests;
