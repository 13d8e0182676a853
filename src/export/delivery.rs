//! What a collector's answer means for a batch, and when one that was not taken is sent again.
//!
//! OTLP: <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc-response> and
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>. A receiver of Zipkin's is treated
//! as one of OTLP over HTTP, but for the body of its answers.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use memchr::memmem;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use percent_encoding::percent_decode;
use prost::Message;
use prost_types::Any;

use crate::export::otlp;
use crate::http::digits;
use crate::http::grpc;
use crate::span::text::is_unprintable;

/// The answer to an export, as far as it came. What is missing is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer<'a> {
    /// `:status`; missing where there is no answer: Envoy could not make the call, or lost it.
    pub status: &'a [u8],
    /// `retry-after`.
    pub retry_after: &'a [u8],
    /// `grpc-status`, from trailers or headers, and so the next two.
    pub grpc_status: &'a [u8],
    /// `grpc-message`.
    pub grpc_message: &'a [u8],
    /// `grpc-status-details-bin`.
    pub grpc_details: &'a [u8],
    pub body: &'a [u8],
}

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken, but for so many of its spans.
    Accepted { rejected: u64 },
    /// It is to be sent again, after this time at least.
    Retry { after: Option<Duration> },
    /// It may be taken in parts.
    TooLarge,
    /// It must not be sent again.
    Refused,
}

/// What an answer means, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// What the collector said, for the log; empty where it just took the batch.
    pub said: String,
}

impl Judgement {
    /// Judges what an OTLP receiver answers over HTTP. `now_unix_seconds` is for dates in
    /// `retry-after`.
    pub fn of_otlp_http(answer: &Answer<'_>, now_unix_seconds: u64) -> Self {
        match answer.status {
            [b'2', _, _] => partial_success(answer.body),
            _ => Self::of_http(answer, now_unix_seconds),
        }
    }

    /// Judges what a Zipkin server answers, and the status of any answer over HTTP.
    pub fn of_http(answer: &Answer<'_>, now_unix_seconds: u64) -> Self {
        let verdict = match answer.status {
            [b'2', _, _] => return accepted(0, ""),
            b"429" | b"502" | b"503" | b"504" | b"" => {
                Verdict::Retry { after: retry_after(answer.retry_after, now_unix_seconds) }
            }
            b"413" => Verdict::TooLarge,
            // The Collector answers so what is above its `max_request_body_size`.
            b"400" if has(answer.body, b"request body too large") => Verdict::TooLarge,
            _ => Verdict::Refused,
        };
        let said = match answer.status {
            b"" => "no answer".to_owned(),
            status => format!("answered {}", printable(status)),
        };
        Self { verdict, said }
    }

    /// Judges what an OTLP receiver answers over gRPC. A status of HTTP alone is mapped as
    /// <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md> has it.
    pub fn of_otlp_grpc(answer: &Answer<'_>, now_unix_seconds: u64) -> Self {
        if answer.grpc_status.is_empty() {
            return match answer.status {
                b"200" => {
                    let said = "answered without grpc-status".to_owned();
                    Self { verdict: Verdict::Refused, said }
                }
                _ => Self::of_http(answer, now_unix_seconds),
            };
        }
        let code = grpc::status(answer.grpc_status);
        let details = grpc::BASE64.decode(answer.grpc_details).unwrap_or_default();
        let verdict = match code {
            grpc::OK => return partial_success(grpc::message(answer.body).unwrap_or_default()),
            grpc::RESOURCE_EXHAUSTED => match retry_info(&details) {
                Some(delay) => Verdict::Retry { after: Some(delay) },
                None if too_large(answer.grpc_message) => Verdict::TooLarge,
                None => Verdict::Refused,
            },
            grpc::OUT_OF_RANGE if too_large(answer.grpc_message) => Verdict::TooLarge,
            grpc::CANCELLED
            | grpc::DEADLINE_EXCEEDED
            | grpc::ABORTED
            | grpc::OUT_OF_RANGE
            | grpc::UNAVAILABLE
            | grpc::DATA_LOSS => Verdict::Retry { after: retry_info(&details) },
            _ => Verdict::Refused,
        };
        let mut said = "answered the gRPC status ".to_owned();
        said.push_str(grpc::status_name(code).unwrap_or_default());
        if !answer.grpc_message.is_empty() {
            said.push_str(": ");
            said.push_str(&printable(&Cow::from(percent_decode(answer.grpc_message))));
        }
        Self { verdict, said }
    }
}

/// Reads `Retry-After`: seconds, or a date in any of HTTP's three formats. A date in the past means
/// now.
///
/// <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>
fn retry_after(value: &[u8], now_unix_seconds: u64) -> Option<Duration> {
    let value = value.trim_ascii();
    if let Some(seconds) = digits::decimal(value) {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    let now = UNIX_EPOCH + Duration::from_secs(now_unix_seconds);
    Some(date.duration_since(now).unwrap_or_default())
}

/// Reads the delay of a `google.rpc.RetryInfo` among the details of a `google.rpc.Status`.
///
/// <https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto>
fn retry_info(status: &[u8]) -> Option<Duration> {
    let status: RpcStatus = otlp::decode(status);
    let is_info = |any: &&Any| any.type_url.ends_with("/google.rpc.RetryInfo");
    let info: RetryInfo = otlp::decode(&status.details.iter().find(is_info)?.value);
    // A negative delay is no delay.
    Some(info.retry_delay.unwrap_or_default().try_into().unwrap_or_default())
}

/// `google.rpc.Status`: its details alone.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// Reads an `ExportTraceServiceResponse`. What is none says nothing: the status says success.
fn partial_success(response: &[u8]) -> Judgement {
    let response: ExportTraceServiceResponse = otlp::decode(response);
    let success = response.partial_success.unwrap_or_default();
    let rejected = u64::try_from(success.rejected_spans).unwrap_or(0);
    let message = printable(success.error_message.as_bytes());
    match rejected {
        0 if message.is_empty() => accepted(0, ""),
        0 => accepted(0, &format!("warned: {message}")),
        _ => accepted(rejected, &format!("rejected {rejected} spans: {message}")),
    }
}

fn accepted(rejected: u64, said: &str) -> Judgement {
    Judgement { verdict: Verdict::Accepted { rejected }, said: said.to_owned() }
}

/// Tells whether a message is that of a gRPC server whose limit on messages was exceeded: gRPC has
/// no status for it. These are the words of grpc-go and grpc-core, of grpc-java, and of tonic.
fn too_large(grpc_message: &[u8]) -> bool {
    let message = Cow::from(percent_decode(grpc_message));
    let words: [&[u8]; 3] = [b"larger than max", b"exceeds maximum size", b"length too large"];
    words.iter().any(|words| has(&message, words))
}

fn has(text: &[u8], words: &[u8]) -> bool {
    memmem::find(text, words).is_some()
}

/// Returns a receiver's text as a log may have it: on one line, and not too long.
fn printable(text: &[u8]) -> String {
    let text = text.get(..MAX_SAID_BYTES).unwrap_or(text);
    String::from_utf8_lossy(text).replace(is_unprintable, " ")
}

/// Most bytes of a receiver's text in the log.
const MAX_SAID_BYTES: usize = 256;

#[cfg(test)]
mod tests;
