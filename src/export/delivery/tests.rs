use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use proptest::prelude::*;

use super::*;

/// Thu, 01 Jan 2026 00:00:00 GMT.
const NOW: u64 = 1_767_225_600;
const RETRY: Verdict = Verdict::Retry { after: None };
const ACCEPTED: Verdict = Verdict::Accepted { rejected: 0 };

fn retry(seconds: u64) -> Verdict {
    Verdict::Retry { after: Some(Duration::from_secs(seconds)) }
}

fn encoded(rejected: i64, message: &str) -> Vec<u8> {
    let error_message = message.to_owned();
    let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message };
    ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
}

#[track_caller]
fn check(found: Delivery, verdict: Verdict, message: &str) {
    assert_eq!(found, Delivery { verdict, message: message.to_owned() });
}

#[track_caller]
fn check_http(status: &str, verdict: Verdict) {
    let response = Response { status: status.as_bytes(), ..Response::default() };
    let message = match status {
        "" => "no answer".to_owned(),
        status if status.starts_with('2') => String::new(),
        status => format!("answered {status}"),
    };
    check(Delivery::from_otlp_http(&response, NOW), verdict, &message);
    check(Delivery::from_http(&response, NOW), verdict, &message);
}

#[test]
fn a_batch_is_retried_only_for_statuses_that_the_specification_names() {
    for status in ["200", "202", "204"] {
        check_http(status, ACCEPTED);
    }
    for status in ["429", "502", "503", "504", ""] {
        check_http(status, RETRY);
    }
    for status in ["301", "400", "401", "403", "404", "405", "408", "415", "500", "501", "505"] {
        check_http(status, Verdict::Refused);
    }
    for status in ["2", "20", "2000", "abc", "\u{1}"] {
        let response = Response { status: status.as_bytes(), ..Response::default() };
        assert_eq!(Delivery::from_otlp_http(&response, NOW).verdict, Verdict::Refused);
    }
    check_http("413", Verdict::TooLarge);
    let body = b"\x08\x03\x12\x1chttp: request body too large";
    let response = Response { status: b"400", body, ..Response::default() };
    check(Delivery::from_otlp_http(&response, NOW), Verdict::TooLarge, "answered 400");
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    for (value, expected) in [
        ("7", retry(7)),
        (" 7 ", retry(7)),
        ("0", retry(0)),
        ("Thu, 01 Jan 2026 00:01:30 GMT", retry(90)),
        ("Sun, 01 Mar 2026 00:00:00 GMT", retry(59 * 86_400)),
        ("Tue, 29 Feb 2028 00:00:00 GMT", retry(789 * 86_400)),
        ("Wed, 31 Dec 2025 23:59:59 GMT", retry(0)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", retry(0)),
        ("Thursday, 01-Jan-26 00:01:30 GMT", retry(90)),
        ("Thu Jan  1 00:01:30 2026", retry(90)),
        ("", RETRY),
        ("-1", RETRY),
        ("+1", RETRY),
        ("1.5", RETRY),
        ("99999999999999999999", RETRY),
        ("soon", RETRY),
        ("Thu, 01 Jan 2026", RETRY),
        ("Thu, 01 Foo 2026 00:00:00 GMT", RETRY),
        ("Thu, 32 Jan 2026 00:00:00 GMT", RETRY),
        ("Thu, 00 Jan 2026 00:00:00 GMT", RETRY),
        ("Thu, 01 Jan 2026 24:00:00 GMT", RETRY),
        ("Thu, 01 Jan 1969 00:00:00 GMT", RETRY),
        ("Thu, 01 Jan 2026 00:00:00 CET", RETRY),
        ("Thu, +1 Jan 2026 00:00:00 GMT", RETRY),
        ("Fri, 30 Feb 2026 00:00:00 GMT", RETRY),
        ("Mon, 01 Jan 2026 00:00:00 GMT", RETRY),
        ("\u{e9}", RETRY),
    ] {
        let retry_after = value.as_bytes();
        let response = Response { status: b"503", retry_after, ..Response::default() };
        let found = Delivery::from_otlp_http(&response, NOW).verdict;
        assert_eq!(found, expected, "{value:?}");
    }
}

#[test]
fn a_partial_success_tells_how_many_spans_were_rejected() {
    for (body, rejected, message) in [
        (encoded(0, ""), 0, ""),
        (encoded(0, "deprecated"), 0, "warned: deprecated"),
        (encoded(3, "no\nname"), 3, "rejected 3 spans: no name"),
        (encoded(-3, ""), 0, ""),
        (b"<html>".to_vec(), 0, ""),
        // The message is not UTF-8.
        (b"\x0a\x05\x08\x03\x12\x01\xff".to_vec(), 3, "rejected 3 spans: "),
    ] {
        let mut framed = vec![0, 0, 0, 0, body.len() as u8];
        framed.extend_from_slice(&body);
        let http = Response { status: b"200", body: &body, ..Response::default() };
        let verdict = Verdict::Accepted { rejected };
        check(Delivery::from_otlp_http(&http, NOW), verdict, message);
        let grpc = Response { grpc_status: b"0", body: &framed, ..http };
        check(Delivery::from_otlp_grpc(&grpc, NOW), verdict, message);
        check(Delivery::from_http(&http, NOW), ACCEPTED, "");
    }
}

/// The details of a `google.rpc.Status`, in base64: a RetryInfo of one and a half seconds.
fn details(type_url: &str) -> Vec<u8> {
    let field = |tag: u8, value: &[u8]| [&[tag, value.len() as u8], value].concat();
    let delay = field(0x0a, b"\x08\x01\x10\x80\xca\xb5\xee\x01");
    let any = [field(0x0a, type_url.as_bytes()), field(0x12, &delay)].concat();
    grpc::BASE64.encode([b"\x08\x0e".to_vec(), field(0x1a, &any)].concat()).into_bytes()
}

#[track_caller]
fn check_grpc(
    grpc_status: &str,
    grpc_message: &str,
    details: &[u8],
    verdict: Verdict,
    expected: &str,
) {
    let response = Response {
        status: b"200",
        grpc_status: grpc_status.as_bytes(),
        grpc_message: grpc_message.as_bytes(),
        grpc_details: details,
        ..Response::default()
    };
    check(Delivery::from_otlp_grpc(&response, NOW), verdict, expected);
}

#[test]
fn a_batch_is_retried_only_for_grpc_statuses_that_the_specification_names() {
    for code in [1, 4, 10, 11, 14, 15] {
        let message = format!("answered the gRPC status {}", grpc::status_name(code).unwrap());
        check_grpc(&code.to_string(), "", b"", RETRY, &message);
    }
    for code in [2, 3, 5, 6, 7, 8, 9, 12, 13, 16] {
        let message = format!("answered the gRPC status {}", grpc::status_name(code).unwrap());
        check_grpc(&code.to_string(), "", b"", Verdict::Refused, &message);
    }
    check_grpc("17", "", b"", Verdict::Refused, "answered the gRPC status UNKNOWN");
    check_grpc("x", "", b"", Verdict::Refused, "answered the gRPC status UNKNOWN");
    let after = Some(Duration::from_millis(1_500));
    let info = details("type.googleapis.com/google.rpc.RetryInfo");
    let exhausted = "answered the gRPC status RESOURCE_EXHAUSTED";
    check_grpc("8", "", &info, Verdict::Retry { after }, exhausted);
    let unavailable = "answered the gRPC status UNAVAILABLE: full up";
    check_grpc("14", "full%20up", &info, Verdict::Retry { after }, unavailable);
    let other = details("type.googleapis.com/google.rpc.QuotaFailure");
    check_grpc("8", "", &other, Verdict::Refused, exhausted);
    let message = "grpc: received message larger than max (5 vs. 4)";
    check_grpc("8", message, b"", Verdict::TooLarge, &format!("{exhausted}: {message}"));
    let message = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
    let expected = format!("answered the gRPC status OUT_OF_RANGE: {message}");
    check_grpc("11", message, b"", Verdict::TooLarge, &expected);
}

#[test]
fn a_response_without_grpc_status_is_judged_by_its_http_status() {
    for (status, verdict, message) in [
        ("200", Verdict::Refused, "answered without grpc-status"),
        ("503", RETRY, "answered 503"),
        ("", RETRY, "no answer"),
        ("404", Verdict::Refused, "answered 404"),
    ] {
        let response = Response { status: status.as_bytes(), ..Response::default() };
        check(Delivery::from_otlp_grpc(&response, NOW), verdict, message);
    }
}

#[test]
fn a_response_is_read_from_its_header_and_trailer_lines() {
    let headers: [(&[u8], &[u8]); 4] = [
        (b":status", b"200"),
        (b"grpc-status", b"2"),
        (b"retry-after", b"7"),
        (b"grpc-message", b"headers"),
    ];
    let trailers: [(&[u8], &[u8]); 4] = [
        (b"grpc-status", b"14"),
        (b"grpc-status-details-bin", b"CA4"),
        (b"retry-after", b"8"),
        (b":status", b"500"),
    ];
    let expected = Response {
        status: b"200",
        retry_after: b"7",
        grpc_status: b"14",
        grpc_message: b"headers",
        grpc_details: b"CA4",
        body: b"body",
    };
    assert_eq!(Response::new(&headers, &trailers, b"body"), expected);
    assert_eq!(Response::new(&[], &[], b""), Response::default());
}

proptest! {
    #[test]
    fn any_response_has_a_printable_message(
        status: Vec<u8>, retry_after: Vec<u8>, grpc_status: Vec<u8>, grpc_message: Vec<u8>,
        grpc_details: Vec<u8>, body: Vec<u8>,
    ) {
        let response = Response {
            status: &status,
            retry_after: &retry_after,
            grpc_status: &grpc_status,
            grpc_message: &grpc_message,
            grpc_details: &grpc_details,
            body: &body,
        };
        for read in [Delivery::from_otlp_http, Delivery::from_http, Delivery::from_otlp_grpc] {
            let message = read(&response, NOW).message;
            prop_assert!(!message.contains(|char: char| char.is_ascii_control()), "{message:?}");
        }
    }

    #[test]
    fn any_date_is_read(seconds in 0u64..253_402_300_799, now: u32) {
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        let expected = Duration::from_secs(seconds.saturating_sub(now.into()));
        prop_assert_eq!(retry_after(date.as_bytes(), now.into()), Some(expected), "{}", date);
    }
}
