//! What the response to an export request means for its batch.
//!
//! OTLP: <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc-response> and
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>. Responses of Zipkin servers mean the
//! same as those of OTLP over HTTP, except that their bodies are not read.

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

/// The response to an export request. Parts that are missing are empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Response<'a> {
    /// `:status`; empty if there was no response: Envoy could not make the call, or lost it.
    pub status: &'a [u8],
    /// `retry-after`.
    pub retry_after: &'a [u8],
    /// `grpc-status`, from the trailers or else the headers, as the next two.
    pub grpc_status: &'a [u8],
    /// `grpc-message`.
    pub grpc_message: &'a [u8],
    /// `grpc-status-details-bin`.
    pub grpc_details: &'a [u8],
    pub body: &'a [u8],
}

/// What happens to the batch after an export request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver accepted the batch, except for `rejected` spans.
    Accepted { rejected: u64 },
    /// The batch should be sent again, `after` this time at the earliest.
    Retry { after: Option<Duration> },
    /// The receiver may accept the batch in parts.
    TooLarge,
    /// The batch must not be sent again.
    Refused,
}

/// The result of an export request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub verdict: Verdict,
    /// The message to log; empty if there is none.
    pub message: String,
}

impl<'a> Response<'a> {
    /// Reads a response from names and values of header and trailer lines.
    pub fn new(
        headers: &[(&[u8], &'a [u8])],
        trailers: &[(&[u8], &'a [u8])],
        body: &'a [u8],
    ) -> Self {
        let find = |lines: &[(&[u8], &'a [u8])], name: &str| {
            let mut lines = lines.iter();
            lines.find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| *value)
        };
        let header = |name| find(headers, name).unwrap_or_default();
        let trailer = |name| find(trailers, name).unwrap_or_else(|| header(name));
        Self {
            status: header(":status"),
            retry_after: header("retry-after"),
            grpc_status: trailer("grpc-status"),
            grpc_message: trailer("grpc-message"),
            grpc_details: trailer("grpc-status-details-bin"),
            body,
        }
    }
}

impl Delivery {
    /// Reads the response of an OTLP receiver over HTTP. `now_unix_seconds` is for dates in
    /// `retry-after`.
    pub fn from_otlp_http(response: &Response<'_>, now_unix_seconds: u64) -> Self {
        match response.status {
            [b'2', _, _] => partial_success(response.body),
            _ => Self::from_http(response, now_unix_seconds),
        }
    }

    /// Reads the response of a Zipkin server, or the HTTP status of any response.
    pub fn from_http(response: &Response<'_>, now_unix_seconds: u64) -> Self {
        let verdict = match response.status {
            [b'2', _, _] => return accepted(0, ""),
            b"429" | b"502" | b"503" | b"504" | b"" => {
                Verdict::Retry { after: retry_after(response.retry_after, now_unix_seconds) }
            }
            b"413" => Verdict::TooLarge,
            // The Collector's response to bodies above its `max_request_body_size`.
            b"400" if contains(response.body, b"request body too large") => Verdict::TooLarge,
            _ => Verdict::Refused,
        };
        let message = match response.status {
            b"" => "no answer".to_owned(),
            status => format!("answered {}", printable(status)),
        };
        Self { verdict, message }
    }

    /// Reads the response of an OTLP receiver over gRPC. A response without a gRPC status is judged by
    /// its HTTP status, as
    /// <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md> says.
    pub fn from_otlp_grpc(response: &Response<'_>, now_unix_seconds: u64) -> Self {
        if response.grpc_status.is_empty() {
            return match response.status {
                b"200" => {
                    let message = "answered without grpc-status".to_owned();
                    Self { verdict: Verdict::Refused, message }
                }
                _ => Self::from_http(response, now_unix_seconds),
            };
        }
        let code = grpc::status(response.grpc_status);
        let details = grpc::BASE64.decode(response.grpc_details).unwrap_or_default();
        let verdict = match code {
            grpc::OK => return partial_success(grpc::message(response.body).unwrap_or_default()),
            grpc::RESOURCE_EXHAUSTED => match retry_info(&details) {
                Some(delay) => Verdict::Retry { after: Some(delay) },
                None if is_too_large(response.grpc_message) => Verdict::TooLarge,
                None => Verdict::Refused,
            },
            grpc::OUT_OF_RANGE if is_too_large(response.grpc_message) => Verdict::TooLarge,
            grpc::CANCELLED
            | grpc::DEADLINE_EXCEEDED
            | grpc::ABORTED
            | grpc::OUT_OF_RANGE
            | grpc::UNAVAILABLE
            | grpc::DATA_LOSS => Verdict::Retry { after: retry_info(&details) },
            _ => Verdict::Refused,
        };
        let mut message = "answered the gRPC status ".to_owned();
        message.push_str(grpc::status_name(code).unwrap_or_default());
        if !response.grpc_message.is_empty() {
            message.push_str(": ");
            message.push_str(&printable(&Cow::from(percent_decode(response.grpc_message))));
        }
        Self { verdict, message }
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

/// `google.rpc.Status`, without the fields that are not read here.
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

/// Reads an `ExportTraceServiceResponse`. A malformed one counts as empty, since the status says
/// success.
fn partial_success(response: &[u8]) -> Delivery {
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

fn accepted(rejected: u64, message: &str) -> Delivery {
    Delivery { verdict: Verdict::Accepted { rejected }, message: message.to_owned() }
}

/// Tells whether a gRPC server found a message too large. gRPC has no status for that, so the error's
/// text is searched for the words of grpc-go and grpc-core, of grpc-java, and of tonic.
fn is_too_large(grpc_message: &[u8]) -> bool {
    let message = Cow::from(percent_decode(grpc_message));
    let texts: [&[u8]; 3] = [b"larger than max", b"exceeds maximum size", b"length too large"];
    texts.iter().any(|text| contains(&message, text))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memmem::find(text, part).is_some()
}

/// Returns a receiver's text for the log: on one line, and cut to [`MAX_MESSAGE_BYTES`].
fn printable(text: &[u8]) -> String {
    let text = text.get(..MAX_MESSAGE_BYTES).unwrap_or(text);
    String::from_utf8_lossy(text).replace(is_unprintable, " ")
}

/// Most bytes of a receiver's text in a log line.
const MAX_MESSAGE_BYTES: usize = 256;

#[cfg(test)]
mod tests;
