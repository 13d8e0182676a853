//! Calls that the module sends out: HTTP calls, gRPC calls and gRPC streams. They are kept until
//! somebody takes them and answers.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;

use super::guest::{Answer, Status};
use super::headers::Headers;

/// A call in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub token: u32,
    pub cluster: String,
    pub timeout_ms: u32,
    pub request: Request,
}

/// What a call sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Http { headers: Headers, body: Vec<u8>, trailers: Headers },
    Grpc { service: String, method: String, metadata: Headers, message: Vec<u8> },
}

/// A gRPC stream that the module opened. Nothing answers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcStream {
    pub cluster: String,
    pub service: String,
    pub method: String,
    pub metadata: Headers,
    /// Messages in the order in which they were sent.
    pub messages: Vec<Vec<u8>>,
    pub closed: bool,
}

/// How a call is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallAnswer {
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    /// Of a gRPC call alone: 0 hands over `body` as its message, any other closes the call.
    pub grpc_status: u32,
}

/// All calls of a VM.
#[derive(Debug, Default)]
pub struct Calls {
    last_token: u32,
    /// Names of the clusters that exist; `None` where all do.
    clusters: Option<BTreeSet<String>>,
    /// Calls that nobody has taken yet.
    pub made: Vec<Call>,
    pub streams: BTreeMap<u32, GrpcStream>,
}

impl Calls {
    /// No calls yet; `clusters` are those that exist, `None`: all.
    pub fn new(clusters: Option<&[String]>) -> Self {
        Self { clusters: clusters.map(|names| names.iter().cloned().collect()), ..Self::default() }
    }

    /// Says which clusters exist from now on; `None`: all.
    pub fn set_clusters(&mut self, clusters: Option<&[String]>) {
        self.clusters = clusters.map(|names| names.iter().cloned().collect());
    }

    /// Sends an HTTP call. Envoy refuses an unknown cluster and a request without its pseudo
    /// headers.
    pub fn http(&mut self, cluster: &[u8], timeout_ms: u32, request: Request) -> Answer<u32> {
        let complete = match &request {
            Request::Http { headers, .. } => {
                [":method", ":path", ":authority"].iter().all(|name| headers.first(name).is_some())
            }
            Request::Grpc { .. } => true,
        };
        let cluster = self.known(cluster)?;
        if !complete {
            return Err(Status::BadArgument.into());
        }
        Ok(self.send(Call { token: 0, cluster, timeout_ms, request }))
    }

    /// Sends a gRPC call to a cluster, named or in a serialised `envoy.config.core.v3.GrpcService`.
    pub fn grpc(&mut self, service: &[u8], timeout_ms: u32, request: Request) -> Answer<u32> {
        let cluster = self.known(grpc_cluster(service).as_bytes())?;
        Ok(self.send(Call { token: 0, cluster, timeout_ms, request }))
    }

    pub fn open_stream(&mut self, service: &[u8], mut stream: GrpcStream) -> Answer<u32> {
        stream.cluster = self.known(grpc_cluster(service).as_bytes())?;
        let token = self.next_token();
        self.streams.insert(token, stream);
        Ok(token)
    }

    pub fn send_message(&mut self, token: u32, message: Vec<u8>, end: bool) -> Answer {
        let stream = self.streams.get_mut(&token).filter(|stream| !stream.closed);
        let stream = stream.ok_or(Status::NotFound)?;
        stream.messages.push(message);
        stream.closed = end;
        Ok(())
    }

    /// Half-closes a gRPC stream.
    pub fn close(&mut self, token: u32) -> Answer {
        self.streams.get_mut(&token).ok_or(Status::NotFound)?.closed = true;
        Ok(())
    }

    /// Forgets a gRPC call or stream: nothing of it arrives any more.
    pub fn cancel(&mut self, token: u32) -> Answer {
        let calls = self.made.len();
        self.made.retain(|call| call.token != token);
        let found = self.streams.remove(&token).is_some() || self.made.len() < calls;
        if found { Ok(()) } else { Err(Status::NotFound.into()) }
    }

    fn known(&self, cluster: &[u8]) -> Answer<String> {
        let cluster = String::from_utf8(cluster.to_vec()).map_err(|_| Status::BadArgument)?;
        let known = self.clusters.as_ref().is_none_or(|clusters| clusters.contains(&cluster));
        if known && !cluster.is_empty() { Ok(cluster) } else { Err(Status::BadArgument.into()) }
    }

    fn send(&mut self, call: Call) -> u32 {
        let token = self.next_token();
        self.made.push(Call { token, ..call });
        token
    }

    fn next_token(&mut self) -> u32 {
        self.last_token = self.last_token.checked_add(1).unwrap_or(1);
        self.last_token
    }
}

/// Name of the cluster in a `GrpcService`, or the text itself.
fn grpc_cluster(service: &[u8]) -> String {
    let named = GrpcService::decode(service).ok().and_then(|service| service.envoy_grpc);
    named.map_or_else(|| String::from_utf8_lossy(service).into_owned(), |grpc| grpc.cluster_name)
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
