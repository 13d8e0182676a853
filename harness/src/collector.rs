//! The other end of the filter's calls: answers them as the scenario says, and keeps what it was
//! sent.

use std::collections::VecDeque;
use std::io::Read as _;

use flate2::read::GzDecoder;

use crate::host::{Call, CallAnswer, Fault, Headers, Request, Vm};
use crate::otlp::{self, ExportedSpan};
use crate::scenario::Collector as Behaviour;

/// A collector in virtual time.
#[derive(Debug, Default)]
pub struct Collector {
    /// How calls that come from now on are answered.
    pub behaviour: Behaviour,
    waiting: VecDeque<Waiting>,
    /// What came since the last [`Collector::take`].
    received: Received,
}

/// What a collector got.
#[derive(Debug, Default)]
pub struct Received {
    pub calls: Vec<Call>,
    /// Spans of the calls that were answered with success.
    pub spans: Vec<ExportedSpan>,
    /// Bodies that could not be decoded.
    pub problems: Vec<String>,
}

#[derive(Debug)]
struct Waiting {
    due_ns: u64,
    call: Call,
    answer: CallAnswer,
}

impl Collector {
    /// Takes calls that the module sent, and answers all that are due; says how many came.
    pub fn serve(&mut self, vm: &mut Vm) -> Result<usize, Fault> {
        let mut came = 0;
        loop {
            for call in vm.take_calls() {
                came += 1;
                self.receive(call, vm.now_ns());
            }
            let due = self.waiting.iter().position(|waiting| waiting.due_ns <= vm.now_ns());
            let Some(waiting) = due.and_then(|due| self.waiting.remove(due)) else {
                return Ok(came);
            };
            if accepts(&waiting) {
                match decode(&waiting.call) {
                    Ok(spans) => self.received.spans.extend(spans),
                    Err(problem) => self.received.problems.push(problem),
                }
            }
            vm.answer(&waiting.call, waiting.answer)?;
        }
    }

    /// When the next answer is due.
    pub fn next_answer_ns(&self) -> Option<u64> {
        self.waiting.iter().map(|waiting| waiting.due_ns).min()
    }

    /// Takes what came since the last time.
    pub fn take(&mut self) -> Received {
        std::mem::take(&mut self.received)
    }

    fn receive(&mut self, call: Call, now_ns: u64) {
        let timed_out =
            self.behaviour.delay_ms >= u64::from(call.timeout_ms) && self.behaviour.delay_ms > 0;
        let delay_ms = self.behaviour.delay_ms.min(u64::from(call.timeout_ms));
        let (status, grpc_status) =
            if timed_out { (504, 4) } else { (self.behaviour.status, self.behaviour.grpc_status) };
        let mut headers = Headers::new();
        headers.add(":status", status.to_string());
        for (name, value) in self.behaviour.headers.to_headers() {
            headers.add(name, value);
        }
        let answer = CallAnswer { headers, grpc_status, ..CallAnswer::default() };
        let due_ns = now_ns + delay_ms * 1_000_000;
        self.received.calls.push(call.clone());
        self.waiting.push_back(Waiting { due_ns, call, answer });
    }
}

fn accepts(waiting: &Waiting) -> bool {
    match &waiting.call.request {
        Request::Http { .. } => {
            waiting.answer.headers.first(":status").is_some_and(|status| status.starts_with(b"2"))
        }
        Request::Grpc { .. } => waiting.answer.grpc_status == 0,
    }
}

fn decode(call: &Call) -> Result<Vec<ExportedSpan>, String> {
    let spans = match &call.request {
        Request::Http { headers, body, .. }
            if headers.first("content-type") == Some(b"application/x-protobuf") =>
        {
            match headers.first("content-encoding") {
                None => otlp::decode(body),
                Some(b"gzip") => otlp::decode(&unzipped(body)?),
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

fn unzipped(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = GzDecoder::new(body).read_to_end(&mut bytes);
    read.map_err(|error| format!("expected gzip, but found {error}"))?;
    Ok(bytes)
}
