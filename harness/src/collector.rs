//! A collector in virtual time: responds to the filter's calls as the scenario says, and decodes the
//! spans.

use std::collections::VecDeque;
use std::io::Read as _;

use flate2::read::GzDecoder;

use crate::host::{Call, CallResponse, Headers, Request, Trap, Vm};
use crate::otlp::{self, ExportedSpan};
use crate::scenario::CollectorBehavior;

/// The collector with the calls that it has not responded to.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    /// Its responses to calls that arrive from now on.
    pub(crate) behavior: CollectorBehavior,
    pending: VecDeque<PendingCall>,
    /// Everything since the last [`Collector::take`].
    received: Received,
}

/// Everything that a collector received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) calls: Vec<Call>,
    /// Spans of the calls that succeeded.
    pub(crate) spans: Vec<ExportedSpan>,
    /// Why bodies could not be decoded.
    pub(crate) problems: Vec<String>,
}

#[derive(Debug)]
struct PendingCall {
    due_ns: u64,
    call: Call,
    response: CallResponse,
}

impl Collector {
    /// Receives new calls, and gives all responses that are due. Returns how many calls were new.
    pub(crate) fn serve(&mut self, vm: &mut Vm) -> Result<usize, Trap> {
        let mut new_calls = 0;
        loop {
            for call in vm.take_calls() {
                new_calls += 1;
                self.receive(call, vm.now_ns());
            }
            let due = self.pending.iter().position(|pending| pending.due_ns <= vm.now_ns());
            let Some(pending) = due.and_then(|index| self.pending.remove(index)) else {
                return Ok(new_calls);
            };
            if pending.succeeds() {
                match decode(&pending.call) {
                    Ok(spans) => self.received.spans.extend(spans),
                    Err(problem) => self.received.problems.push(problem),
                }
            }
            vm.respond(&pending.call, pending.response)?;
        }
    }

    /// Returns when the next response is due.
    pub(crate) fn next_response_ns(&self) -> Option<u64> {
        self.pending.iter().map(|pending| pending.due_ns).min()
    }

    /// Takes everything that was received since the last time.
    pub(crate) fn take(&mut self) -> Received {
        std::mem::take(&mut self.received)
    }

    /// Envoy fails a call at its timeout with a 504, or for gRPC with DEADLINE_EXCEEDED.
    fn receive(&mut self, call: Call, now_ns: u64) {
        let (behavior, timeout_ms) = (&self.behavior, u64::from(call.timeout_ms));
        let is_timeout = behavior.delay_ms >= timeout_ms && behavior.delay_ms > 0;
        let (status, grpc_status) = match is_timeout {
            true => (504, DEADLINE_EXCEEDED),
            false => (behavior.status, behavior.grpc_status),
        };
        let mut headers = Headers::new();
        headers.add(":status", status.to_string());
        for (name, value) in behavior.headers.iter() {
            headers.add(name, value);
        }
        let response = CallResponse { headers, grpc_status, ..CallResponse::default() };
        let due_ns = now_ns + behavior.delay_ms.min(timeout_ms) * NANOS_PER_MS;
        self.received.calls.push(call.clone());
        self.pending.push_back(PendingCall { due_ns, call, response });
    }
}

impl PendingCall {
    fn succeeds(&self) -> bool {
        match &self.call.request {
            Request::Http { .. } => self
                .response
                .headers
                .first(":status")
                .is_some_and(|status| status.starts_with(b"2")),
            Request::Grpc { .. } => self.response.grpc_status == 0,
        }
    }
}

fn decode(call: &Call) -> Result<Vec<ExportedSpan>, String> {
    let spans = match &call.request {
        Request::Http { headers, body }
            if headers.first("content-type") == Some(b"application/x-protobuf") =>
        {
            match headers.first("content-encoding") {
                None => otlp::decode(body),
                Some(b"gzip") => otlp::decode(&gunzip(body)?),
                Some(other) => {
                    let found = String::from_utf8_lossy(other);
                    Err(format!("expected the content encoding gzip, but found {found:?}"))
                }
            }
        }
        Request::Http { headers, .. } => {
            let found = headers.first("content-type").map(String::from_utf8_lossy);
            Err(format!("expected the content type application/x-protobuf, but found {found:?}"))
        }
        Request::Grpc { message, .. } => otlp::decode(message),
    };
    spans.map_err(|problem| format!("call to the cluster `{}`: {problem}", call.cluster))
}

fn gunzip(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = GzDecoder::new(body).read_to_end(&mut bytes);
    read.map_err(|error| format!("expected gzip, but found {error}"))?;
    Ok(bytes)
}

const DEADLINE_EXCEEDED: u32 = 4;
const NANOS_PER_MS: u64 = 1_000_000;
