//! Where spans go, how they are encoded, and the bounds of the queue before the receiver.

use std::fmt;
use std::time::Duration;

use crate::export::queue::QueueLimits;
use crate::export::retry::RetryPolicy;

/// The settings of an exporter.
#[derive(Clone, PartialEq, Eq)]
pub struct ExporterSettings {
    pub protocol: Protocol,
    /// Name of the Envoy cluster that leads to the receiver.
    pub cluster: String,
    /// `:authority` of export requests.
    pub authority: String,
    pub path: String,
    /// How long the receiver may take to answer.
    pub timeout: Duration,
    /// Name and value of each configured header. A value may be a credential.
    pub headers: Vec<(String, String)>,
    /// Whether bodies are compressed, if Envoy can.
    pub gzip: bool,
    pub limits: QueueLimits,
    pub retry: RetryPolicy,
    /// How often a batch that is not full is sent.
    pub interval: Duration,
}

/// The protocol of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    OtlpHttp,
    OtlpGrpc,
    Zipkin,
}

impl ExporterSettings {
    /// Describes in a few words where spans go, for the log.
    pub fn summary(&self) -> String {
        let protocol = match self.protocol {
            Protocol::OtlpHttp => "\" by OTLP, http/protobuf",
            Protocol::OtlpGrpc => "\" by OTLP, grpc",
            Protocol::Zipkin => "\" by Zipkin v2 JSON",
        };
        let compression = if self.gzip { ", gzip" } else { "" };
        ["spans go to cluster \"", &self.cluster, protocol, compression].concat()
    }

    /// Returns the protocol, cluster, path and headers. Batches may move between exporters for which these are
    /// equal.
    pub fn destination(&self) -> (Protocol, &str, &str, &[(String, String)]) {
        let Self { protocol, cluster, path, headers, .. } = self;
        (*protocol, cluster, path, headers)
    }
}

/// Shows the names of the headers, but no values.
impl fmt::Debug for ExporterSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            cluster,
            authority,
            path,
            timeout,
            headers,
            gzip,
            limits,
            retry,
            interval,
        } = self;
        let header_names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ExporterSettings")
            .field("protocol", protocol)
            .field("cluster", cluster)
            .field("authority", authority)
            .field("path", path)
            .field("timeout", timeout)
            .field("header_names", &header_names)
            .field("gzip", gzip)
            .field("limits", limits)
            .field("retry", retry)
            .field("interval", interval)
            .finish()
    }
}
