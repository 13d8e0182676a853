//! HTTP calls, gRPC calls and gRPC streams that the module starts. HTTP and gRPC calls are kept until
//! the driver of the VM takes them and responds; nothing responds on gRPC streams.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;

use super::headers::Headers;
use super::status::Status;

/// A call in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub(crate) token: u32,
    pub(crate) cluster: String,
    pub(crate) timeout_ms: u32,
    pub request: Request,
}

/// What a call sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Http { headers: Headers, body: Vec<u8> },
    Grpc { metadata: Headers, message: Vec<u8> },
}

/// The response to a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallResponse {
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    /// Of a gRPC call only: 0 hands `body` over as its message, any other status closes the call.
    pub grpc_status: u32,
}

/// All calls of a VM.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    last_token: u32,
    /// Names of the clusters that exist; `None`: every name does.
    clusters: Option<BTreeSet<String>>,
    /// Calls that the driver of the VM has not taken yet.
    pub(crate) new: Vec<Call>,
    /// gRPC streams by their tokens.
    streams: BTreeMap<u32, StreamState>,
}

/// Whether a gRPC stream takes more messages from the module.
#[derive(Debug, PartialEq)]
enum StreamState {
    Open,
    HalfClosed,
}

impl Calls {
    /// `clusters` are the names of those that exist; `None`: every name does.
    pub(crate) fn new(clusters: Option<&[String]>) -> Self {
        let mut calls = Self::default();
        calls.set_clusters(clusters);
        calls
    }

    pub(crate) fn set_clusters(&mut self, clusters: Option<&[String]>) {
        self.clusters = clusters.map(|names| names.iter().cloned().collect());
    }

    /// Sends an HTTP call and returns its token. Like Envoy, it rejects an unknown cluster and a
    /// request without its pseudo headers.
    pub(crate) fn http(
        &mut self,
        cluster: &[u8],
        timeout_ms: u32,
        headers: Headers,
        body: Vec<u8>,
    ) -> Result<u32, Status> {
        let cluster = self.existing_cluster(cluster)?;
        let has_pseudo_headers =
            [":method", ":path", ":authority"].iter().all(|name| headers.first(name).is_some());
        if !has_pseudo_headers {
            return Err(Status::BadArgument);
        }
        Ok(self.send(cluster, timeout_ms, Request::Http { headers, body }))
    }

    /// Sends a gRPC call and returns its token. `service` is the name of a cluster, or a serialised
    /// `envoy.config.core.v3.GrpcService`.
    pub(crate) fn grpc(
        &mut self,
        service: &[u8],
        timeout_ms: u32,
        metadata: Headers,
        message: Vec<u8>,
    ) -> Result<u32, Status> {
        let cluster = self.existing_cluster(grpc_cluster(service).as_bytes())?;
        Ok(self.send(cluster, timeout_ms, Request::Grpc { metadata, message }))
    }

    /// Opens a gRPC stream and returns its token; `service` as in [`Calls::grpc`].
    pub(crate) fn open_stream(&mut self, service: &[u8]) -> Result<u32, Status> {
        self.existing_cluster(grpc_cluster(service).as_bytes())?;
        let token = self.next_token();
        self.streams.insert(token, StreamState::Open);
        Ok(token)
    }

    /// Sends a message on a gRPC stream; `is_last` half-closes it.
    pub(crate) fn send_message(&mut self, token: u32, is_last: bool) -> Result<(), Status> {
        let stream = self.streams.get_mut(&token).filter(|stream| **stream == StreamState::Open);
        let stream = stream.ok_or(Status::NotFound)?;
        if is_last {
            *stream = StreamState::HalfClosed;
        }
        Ok(())
    }

    /// Half-closes a gRPC stream.
    pub(crate) fn close(&mut self, token: u32) -> Result<(), Status> {
        *self.streams.get_mut(&token).ok_or(Status::NotFound)? = StreamState::HalfClosed;
        Ok(())
    }

    /// Cancels a call or gRPC stream; a call that is cancelled gets no response.
    pub(crate) fn cancel(&mut self, token: u32) -> Result<(), Status> {
        let calls = self.new.len();
        self.new.retain(|call| call.token != token);
        let is_found = self.streams.remove(&token).is_some() || self.new.len() < calls;
        if is_found { Ok(()) } else { Err(Status::NotFound) }
    }

    fn existing_cluster(&self, name: &[u8]) -> Result<String, Status> {
        let name = String::from_utf8(name.to_vec()).map_err(|_| Status::BadArgument)?;
        let exists = self.clusters.as_ref().is_none_or(|clusters| clusters.contains(&name));
        if exists && !name.is_empty() { Ok(name) } else { Err(Status::BadArgument) }
    }

    fn send(&mut self, cluster: String, timeout_ms: u32, request: Request) -> u32 {
        let token = self.next_token();
        self.new.push(Call { token, cluster, timeout_ms, request });
        token
    }

    fn next_token(&mut self) -> u32 {
        self.last_token = self.last_token.checked_add(1).unwrap_or(1);
        self.last_token
    }
}

/// Returns the name of the cluster in a serialised `GrpcService`, or else the text itself.
fn grpc_cluster(service: &[u8]) -> String {
    let envoy_grpc = GrpcService::decode(service).ok().and_then(|service| service.envoy_grpc);
    envoy_grpc
        .map_or_else(|| String::from_utf8_lossy(service).into_owned(), |grpc| grpc.cluster_name)
}

/// The part of `envoy.config.core.v3.GrpcService` that names a cluster.
#[derive(Clone, PartialEq, prost::Message)]
struct GrpcService {
    #[prost(message, tag = "1")]
    envoy_grpc: Option<EnvoyGrpc>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnvoyGrpc {
    #[prost(string, tag = "1")]
    cluster_name: String,
}
