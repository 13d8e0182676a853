use std::collections::HashMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;

use super::*;
use crate::config::Config;
use crate::export::log::LogLevel;

/// Middle of the jitter: a pause is as long as its interval.
const RANDOM: u32 = 1 << 31;
const NANOS_PER_MILLI: u64 = 1_000_000;
/// When the scripts begin.
const START_MILLIS: u64 = 1_767_225_600_000;

/// What happens to an exporter.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// So many spans end.
    Push(usize),
    Tick,
    /// The call of this id gets a response with this HTTP status; none if it is empty.
    Respond(u32, &'static str),
    /// The same, with a body.
    RespondWith(u32, &'static str, &'static [u8]),
    /// Envoy makes no calls from now on, or does again.
    Calls(Option<CallError>),
    /// Envoy compresses from now on, or does not.
    Zlib(bool),
    /// Another worker logs a line of this kind now. Further lines of this kind are limited for a minute.
    LogElsewhere(LogKind),
}

use Event::{Calls, LogElsewhere, Push, Respond, RespondWith, Tick, Zlib};

/// An exporter and its owner. The owner records each action that the exporter returns.
struct Owner {
    exporter: Exporter,
    calls: Option<CallError>,
    has_zlib: bool,
    next_id: u32,
    /// When a line of each name was last logged by any worker.
    logged_millis: HashMap<&'static str, u64>,
    actions: Vec<String>,
}

impl Owner {
    /// Makes an exporter with this section `exporter` of the configuration.
    #[track_caller]
    fn new(exporter: &str) -> Self {
        let json = format!(r#"{{"exporter": {exporter}}}"#);
        let config = Config::parse(json.as_bytes(), &|_| None).unwrap();
        let exporter = Exporter::new(config.exporter.unwrap(), config.propagation, &[]);
        Self {
            exporter,
            calls: None,
            has_zlib: true,
            next_id: 1,
            logged_millis: HashMap::new(),
            actions: Vec::new(),
        }
    }

    /// Plays an event, so many milliseconds after the start. Returns the actions that follow.
    fn play(&mut self, millis: u64, event: Event) -> Vec<String> {
        let now = (START_MILLIS + millis) * NANOS_PER_MILLI;
        let response = |status: &'static str, body: &'static [u8]| Response {
            status: status.as_bytes(),
            body,
            ..Response::default()
        };
        match event {
            Push(spans) => {
                for _ in 0..spans {
                    if let Some(period) = self.exporter.push(b"") {
                        self.actions.push(format!("timer {period:?}"));
                    }
                }
            }
            Tick => {
                let call = self.exporter.tick(now, RANDOM);
                self.proceed(call, now);
            }
            Respond(id, _) | RespondWith(id, ..) if !self.exporter.awaits(id) => {
                let ignored = self.exporter.responded(id, &Response::default(), now, RANDOM);
                assert_eq!(ignored, None);
            }
            Respond(id, status) => {
                let call = self.exporter.responded(id, &response(status, b""), now, RANDOM);
                self.proceed(call, now);
            }
            RespondWith(id, status, body) => {
                let call = self.exporter.responded(id, &response(status, body), now, RANDOM);
                self.proceed(call, now);
            }
            Calls(error) => self.calls = error,
            Zlib(has_zlib) => self.has_zlib = has_zlib,
            LogElsewhere(kind) => {
                self.logged_millis.insert(kind.limit_name().unwrap(), millis + START_MILLIS);
            }
        }
        std::mem::take(&mut self.actions)
    }

    fn proceed(&mut self, call: Option<PendingCall>, now: u64) {
        if let Some(mut call) = call {
            if call.wants_compression {
                let zlib = self.has_zlib.then(|| zlib(&call.body));
                self.exporter.compressed(&mut call, zlib.as_deref());
            }
            let result = match self.calls {
                None => Ok(self.next_id),
                Some(error) => Err(error),
            };
            self.actions.push(match result {
                Ok(id) => format!("call {id} with {} spans", call.spans),
                Err(error) => format!("no call: {error:?}"),
            });
            self.next_id += u32::from(result.is_ok());
            self.exporter.called(&call, result, now, RANDOM);
        }
        if let Some(period) = self.exporter.timer(now) {
            self.actions.push(format!("timer {period:?}"));
        }
        self.log(now);
    }

    fn log(&mut self, now: u64) {
        for line in self.exporter.log_lines() {
            let millis = now / NANOS_PER_MILLI;
            if let Some(name) = line.kind.limit_name() {
                let last = self.logged_millis.get(name);
                if last.is_some_and(|last| millis < last + 60_000) {
                    continue;
                }
                self.logged_millis.insert(name, millis);
            }
            let level = if line.kind.level() == LogLevel::Info { "info" } else { "warn" };
            let text = line.text.strip_prefix("sidespan: ").unwrap();
            self.actions.push(format!("{level}: {text}"));
            self.exporter.logged(line.kind);
        }
    }
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Plays events, each at its time in milliseconds, and compares the actions that follow each.
/// Returns the owner.
#[track_caller]
fn check(exporter: &str, script: &[(u64, Event, &[&str])]) -> Owner {
    let mut owner = Owner::new(exporter);
    check_further(&mut owner, script);
    owner
}

#[track_caller]
fn check_further(owner: &mut Owner, script: &[(u64, Event, &[&str])]) {
    for (millis, event, expected) in script {
        let actions = owner.play(*millis, *event);
        assert_eq!(actions, *expected, "at {millis} ms: {event:?}");
        let SpanCounts { recorded, exported, dropped, queued, .. } = owner.exporter.counts();
        assert_eq!(recorded, exported + queued + dropped.iter().sum::<u64>(), "{event:?}");
    }
}

/// A batch of two spans, the interval of a second, and a pause of half a second before a retry.
const TWO: &str = r#"{"otlp": {"cluster": "c"}, "batch": {"max_batch_spans": 2, "max_queue_spans": 4},
                      "retry": {"initial_interval_ms": 500, "max_elapsed_time_ms": 2000}}"#;

#[test]
fn a_partial_batch_is_sent_on_the_tick() {
    let owner = check(
        TWO,
        &[
            (0, Tick, &[]),
            (10, Push(1), &[]),
            (1000, Tick, &["call 1 with 1 spans"]),
            (1010, Push(1), &[]),
            (1020, Respond(1, "200"), &[]),
            (2000, Tick, &["call 2 with 1 spans"]),
            (2007, Respond(2, "202"), &[]),
            (3000, Tick, &[]),
        ],
    );
    let expected = ExportTally {
        succeeded: 2,
        bytes: owner.exporter.tally.bytes,
        batch_spans: vec![1, 1],
        duration_millis: vec![20, 7],
        ..ExportTally::default()
    };
    assert_eq!(owner.exporter.tally, expected);
}

#[test]
fn a_full_batch_is_sent_at_once() {
    check(
        TWO,
        &[
            // The first span to fill a batch sets the timer, further ones do not.
            (0, Push(4), &["timer 1ms"]),
            (1, Tick, &["call 1 with 2 spans", "timer 1s"]),
            // The next full batch does not wait for a tick; nor does the timer have to be set.
            (9, Respond(1, "200"), &["call 2 with 2 spans"]),
            (10, Push(1), &[]),
            (20, Respond(2, "200"), &[]),
            (1001, Tick, &["call 3 with 1 spans"]),
        ],
    );
}

#[test]
fn one_call_is_in_flight_at_a_time() {
    let mut owner = check(
        TWO,
        &[
            (0, Push(2), &["timer 1ms"]),
            (1, Tick, &["call 1 with 2 spans", "timer 1s"]),
            (2, Push(2), &[]),
            (1001, Tick, &[]),
            // Responses to other calls say nothing about this one.
            (1002, Respond(7, "200"), &[]),
            (1003, Respond(0, "500"), &[]),
        ],
    );
    assert!(owner.exporter.awaits(1) && !owner.exporter.awaits(7));
    check_further(&mut owner, &[(1004, Respond(1, "200"), &["call 2 with 2 spans"])]);
    assert_eq!(owner.exporter.counts().exported, 2);
}

#[test]
fn a_call_without_any_response_is_given_up_after_its_timeout_and_a_grace_period() {
    let failing = "warn: the collector at cluster \"c\" does not accept spans: no answer; spans \
                   queued in this worker, to be sent again: 1";
    check(
        r#"{"otlp": {"cluster": "c", "timeout_ms": 2000}}"#,
        &[
            (0, Push(1), &[]),
            (0, Tick, &["call 1 with 1 spans"]),
            (7000, Tick, &[]),
            (7001, Tick, &[failing]),
            // Its response comes too late.
            (7500, Respond(1, "200"), &[]),
            (8001, Tick, &["call 2 with 1 spans"]),
            (
                8002,
                Respond(2, "200"),
                &["info: the collector at cluster \"c\" accepts spans again"],
            ),
        ],
    );
}

const UNAVAILABLE: &str = "warn: the collector at cluster \"c\" does not accept spans: answered 503; \
                           spans queued in this worker, to be sent again: 2";

#[test]
fn a_batch_is_sent_again_after_pauses_until_its_time_is_over() {
    let dropped = "warn: spans for the collector at cluster \"c\" were dropped in this worker: 2 \
                   retries_exhausted; it answered 503";
    check(
        TWO,
        &[
            (0, Push(2), &["timer 1ms"]),
            (1, Tick, &["call 1 with 2 spans", "timer 1s"]),
            // The timer ends a millisecond after the pause of 500.
            (2, Respond(1, "503"), &["timer 501ms", UNAVAILABLE]),
            (501, Tick, &["timer 2ms"]),
            (503, Tick, &["call 2 with 2 spans", "timer 1s"]),
            (503, Respond(2, "503"), &["timer 751ms"]),
            (1254, Tick, &["call 3 with 2 spans", "timer 1s"]),
            // 747 of the 2000 milliseconds are left, less than the pause of 1125.
            (1254, Respond(3, "503"), &["timer 748ms"]),
            (2002, Tick, &["call 4 with 2 spans", "timer 1s"]),
            (2003, Respond(4, "503"), &[]),
            (3002, Tick, &[dropped]),
        ],
    );
}

#[test]
fn full_batches_wait_behind_one_that_is_sent_again() {
    check(
        TWO,
        &[
            (0, Push(2), &["timer 1ms"]),
            (1, Tick, &["call 1 with 2 spans", "timer 1s"]),
            (2, Respond(1, "503"), &["timer 501ms", UNAVAILABLE]),
            (3, Push(2), &[]),
            (503, Tick, &["call 2 with 2 spans", "timer 1s"]),
            (
                510,
                Respond(2, "200"),
                &[
                    "call 3 with 2 spans",
                    "info: the collector at cluster \"c\" accepts spans again",
                ],
            ),
        ],
    );
}

#[test]
fn a_receiver_may_ask_for_a_longer_pause() {
    let mut owner = Owner::new(TWO);
    owner.play(0, Push(1));
    owner.play(0, Tick);
    let response = Response { status: b"429", retry_after: b"1", ..Response::default() };
    let now = START_MILLIS * NANOS_PER_MILLI;
    assert_eq!(owner.exporter.responded(1, &response, now, RANDOM), None);
    check_further(
        &mut owner,
        &[(999, Tick, &["timer 2ms", &UNAVAILABLE.replace("503", "429").replace(": 2", ": 1")])],
    );
    check_further(&mut owner, &[(1000, Tick, &["call 2 with 1 spans", "timer 1s"])]);
}

#[test]
fn a_batch_that_is_too_large_is_split() {
    let dropped = "warn: spans for the collector at cluster \"c\" were dropped in this worker: 1 \
                   too_large; it answered 413";
    let owner = check(
        TWO,
        &[
            (0, Push(2), &["timer 1ms"]),
            (1, Tick, &["call 1 with 2 spans", "timer 1s"]),
            // Two batches wait now.
            (2, Respond(1, "413"), &["call 2 with 1 spans"]),
            (3, Respond(2, "413"), &[]),
            (1001, Tick, &["call 3 with 1 spans", dropped]),
            (1002, Respond(3, "200"), &[]),
        ],
    );
    let ExportTally { succeeded, retried, failed, .. } = owner.exporter.tally;
    assert_eq!((succeeded, retried, failed), (1, 0, 2));
}

#[test]
fn drops_are_logged_by_reason_once_a_minute() {
    let of = |counts: &str| {
        format!(
            "warn: spans for the collector at cluster \"c\" were dropped in this worker: {counts}"
        )
    };
    check(
        TWO,
        &[
            // Requests log nothing.
            (0, Push(7), &["timer 1ms"]),
            (1, Tick, &["call 1 with 2 spans", "timer 1s", &of("3 queue_full")]),
            (2, Respond(1, "400"), &["call 2 with 2 spans"]),
            (3, Push(3), &[]),
            (4, Respond(2, "401"), &["call 3 with 2 spans"]),
            (5, Respond(3, "200"), &[]),
            (6, Push(1), &[]),
            (1001, Tick, &["call 4 with 1 spans"]),
            (1002, Respond(4, "403"), &[]),
            (60_000, Tick, &[]),
            // All drops since the last line, with the last error.
            (60_001, Tick, &[&of("1 queue_full, 5 rejected; it answered 403")]),
            (120_001, Tick, &[]),
        ],
    );
}

#[test]
fn all_workers_together_log_that_exports_fail() {
    check(
        TWO,
        &[
            (0, LogElsewhere(LogKind::Failing), &[]),
            (0, Push(2), &["timer 1ms"]),
            (1, Tick, &["call 1 with 2 spans", "timer 1s"]),
            (2, Respond(1, "503"), &["timer 501ms"]),
            (503, Tick, &["call 2 with 2 spans", "timer 1s"]),
            // The worker that logged the failure logs the recovery.
            (504, Respond(2, "200"), &[]),
        ],
    );
}

#[test]
fn a_cluster_that_envoy_does_not_know_is_tried_again() {
    let failing = "warn: the collector at cluster \"c\" does not accept spans: Envoy knows no such cluster; \
                   spans queued in this worker, to be sent again: 1";
    let dropped = "warn: spans for the collector at cluster \"c\" were dropped in this worker: 1 \
                   retries_exhausted; Envoy did not make the call: no host is healthy, or too many calls \
                   are in flight";
    let owner = check(
        TWO,
        &[
            (0, Calls(Some(CallError::UnknownCluster)), &[]),
            (0, Push(1), &[]),
            (0, Tick, &["no call: UnknownCluster", "timer 501ms", failing]),
            (501, Calls(None), &[]),
            (501, Tick, &["call 1 with 1 spans", "timer 1s"]),
            (501, Respond(1, "503"), &["timer 751ms"]),
            (502, Calls(Some(CallError::NotPossible)), &[]),
            (2501, Tick, &["no call: NotPossible", "timer 1s", dropped]),
        ],
    );
    let tally = &owner.exporter.tally;
    assert_eq!((tally.retried, tally.batch_spans.len(), tally.duration_millis.len()), (3, 1, 1));
}

#[test]
fn messages_of_a_receiver_are_logged_once_a_minute() {
    let error_message = "too old".to_owned();
    let partial = ExportTracePartialSuccess { rejected_spans: 1, error_message };
    let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let body: &'static [u8] = body.leak();
    let dropped = "warn: spans for the collector at cluster \"c\" were dropped in this worker: 1 \
                   partial_success";
    check(
        TWO,
        &[
            (0, Push(4), &["timer 1ms"]),
            (1, Tick, &["call 1 with 2 spans", "timer 1s"]),
            (
                2,
                RespondWith(1, "200", body),
                &[
                    "call 2 with 2 spans",
                    "warn: the collector at cluster \"c\" rejected 1 spans: too old",
                ],
            ),
            (3, Respond(2, "200"), &[]),
            (1001, Tick, &[dropped]),
        ],
    );
}

#[test]
fn bodies_are_compressed_until_the_host_fails_to() {
    let exporter = r#"{"otlp": {"cluster": "c", "compression": "gzip"}}"#;
    let warning = "warn: export requests are sent uncompressed: Envoy cannot compress them";
    let owner = check(
        exporter,
        &[
            (0, Push(1), &[]),
            (0, Tick, &["call 1 with 1 spans"]),
            (1, Respond(1, "200"), &[]),
            (2, Zlib(false), &[]),
            (3, Push(1), &[]),
            (1000, Tick, &["call 2 with 1 spans", warning]),
            (1001, Respond(2, "200"), &[]),
            // It is not tried again.
            (1002, Zlib(true), &[]),
            (1003, Push(1), &[]),
            (2000, Tick, &["call 3 with 1 spans"]),
        ],
    );
    assert!(!owner.exporter.compresses);
}

#[test]
fn a_compressed_body_says_so() {
    let mut owner = Owner::new(r#"{"otlp": {"cluster": "c", "compression": "gzip"}}"#);
    owner.play(0, Push(1));
    let mut call = owner.exporter.tick(START_MILLIS * NANOS_PER_MILLI, RANDOM).unwrap();
    let plain = call.body.clone();
    let encoding = |exporter: &Exporter, call: &PendingCall| {
        let no_trace_headers = Vec::new();
        let headers = exporter.request(call, &no_trace_headers).headers;
        let encoding = headers.into_iter().find(|(name, _)| *name == "content-encoding");
        encoding.map(|(_, value)| value.to_owned())
    };
    assert_eq!(encoding(&owner.exporter, &call), None);
    owner.exporter.compressed(&mut call, Some(&zlib(&plain)));
    assert_eq!(encoding(&owner.exporter, &call).as_deref(), Some("gzip"));
    let mut found = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*call.body), &mut found).unwrap();
    assert_eq!(found, plain);
    // A host that returns something else than zlib's format is one that does not compress.
    let mut call = PendingCall { body: plain.clone(), is_gzip: false, ..call };
    owner.exporter.compressed(&mut call, Some(b"gzip?"));
    assert_eq!((encoding(&owner.exporter, &call), call.body), (None, plain));
}

const FRESH: FreshIds = FreshIds {
    trace_id: TraceId::from_bytes([0xab; 16]),
    span_id: SpanId::from_bytes([0xcd; 8]),
    upstream_span_id: None,
};
const TRACEPARENT: (&str, &str) =
    ("traceparent", "00-abababababababababababababababab-cdcdcdcdcdcdcdcd-00");
const B3: (&str, &str) = ("b3", "abababababababababababababababab-cdcdcdcdcdcdcdcd-0");

/// Compares the request that carries one span. Returns its body.
#[track_caller]
fn check_request(
    exporter: &str,
    cluster: &str,
    timeout_millis: u64,
    headers: &[(&str, &str)],
) -> Vec<u8> {
    let mut owner = Owner::new(exporter);
    owner.play(0, Push(1));
    let call = owner.exporter.tick(START_MILLIS * NANOS_PER_MILLI, RANDOM).unwrap();
    let trace_headers = owner.exporter.trace_headers(FRESH);
    let expected = Request {
        cluster,
        headers: headers.to_vec(),
        body: &call.body,
        timeout: Duration::from_millis(timeout_millis),
    };
    assert_eq!(owner.exporter.request(&call, &trace_headers), expected);
    call.body
}

#[test]
fn a_request_has_the_headers_of_its_protocol_and_those_of_the_configuration() {
    let spans = |body: &[u8]| {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        request.resource_spans[0].scope_spans[0].spans.len()
    };
    let body = check_request(
        r#"{"otlp": {"cluster": "outbound|4318||otel.obs", "timeout_ms": 7,
                     "headers": [{"name": "authorization", "literal": {"value": "Bearer a"}},
                                 {"name": "b3", "literal": {"value": "0"}}]}}"#,
        "outbound|4318||otel.obs",
        7,
        &[
            (":method", "POST"),
            (":path", "/v1/traces"),
            (":authority", "otel.obs:4318"),
            ("content-type", "application/x-protobuf"),
            ("user-agent", USER_AGENT),
            ("authorization", "Bearer a"),
            ("b3", "0"),
            TRACEPARENT,
        ],
    );
    assert_eq!(spans(&body), 1);
    let body = check_request(
        r#"{"otlp": {"cluster": "c", "protocol": "grpc"}}"#,
        "c",
        10_000,
        &[
            (":method", "POST"),
            (":path", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
            (":authority", "c"),
            ("content-type", "application/grpc"),
            ("user-agent", USER_AGENT),
            ("te", "trailers"),
            TRACEPARENT,
            B3,
        ],
    );
    assert_eq!(spans(grpc::message(&body).unwrap()), 1);
    let body = check_request(
        r#"{"zipkin": {"cluster": "c"}}"#,
        "c",
        10_000,
        &[
            (":method", "POST"),
            (":path", "/api/v2/spans"),
            (":authority", "c"),
            ("content-type", "application/json"),
            ("user-agent", USER_AGENT),
            TRACEPARENT,
            B3,
        ],
    );
    assert_eq!(serde_json::from_slice::<Vec<serde_json::Value>>(&body).unwrap().len(), 1);
}

#[test]
fn a_newer_exporter_takes_over_a_pause() {
    let mut old = check(
        TWO,
        &[
            (0, Push(2), &["timer 1ms"]),
            (1, Tick, &["call 1 with 2 spans", "timer 1s"]),
            (2, Respond(1, "503"), &["timer 501ms", UNAVAILABLE]),
        ],
    );
    let mut new = Owner::new(TWO);
    assert!(new.exporter.has_destination_of(&old.exporter));
    new.play(3, Push(1));
    new.exporter.take_over(old.exporter.take_all());
    assert_eq!((old.exporter.counts().queued, new.exporter.counts().queued), (0, 3));
    // Its own span first; the other batch when it is due, for as long as its time is not over.
    assert_eq!(new.play(4, Tick), ["call 1 with 1 spans"]);
    assert_eq!(new.play(5, Respond(1, "200")), ["timer 498ms"]);
    assert_eq!(new.play(6, Tick), ["timer 497ms"]);
    assert_eq!(new.play(503, Tick), ["call 2 with 2 spans", "timer 1s"]);
    new.play(2001, Respond(2, "503"));
    assert_eq!(new.exporter.counts().dropped.iter().sum::<u64>(), 2);
}

#[test]
fn a_batch_in_flight_is_sent_again_by_the_newer_exporter() {
    let mut old = check(TWO, &[(0, Push(1), &[]), (0, Tick, &["call 1 with 1 spans"])]);
    let batches = old.exporter.take_all();
    // The response to the old call settles nothing.
    assert_eq!(old.play(1, Respond(1, "200")), [""; 0]);
    assert_eq!(old.exporter.counts().exported, 0);
    let mut new = Owner::new(TWO);
    new.exporter.take_over(batches);
    assert_eq!(new.play(1000, Tick), ["call 1 with 1 spans"]);
}

#[test]
fn batches_without_a_newer_exporter_are_dropped_and_logged() {
    let mut owner = check(TWO, &[(0, Push(3), &["timer 1ms"])]);
    let batches = owner.exporter.take_all();
    owner.exporter.abandon(&batches);
    owner.log(START_MILLIS * NANOS_PER_MILLI);
    let expected = "warn: spans for the collector at cluster \"c\" were dropped in this worker: 3 \
                    configuration_removed";
    assert_eq!(owner.actions, [expected]);
}

#[test]
fn batches_move_only_between_exporters_of_the_same_destination() {
    let base = Owner::new(r#"{"otlp": {"cluster": "c"}}"#);
    for (exporter, expected) in [
        (r#"{"otlp": {"cluster": "c"}}"#, true),
        (r#"{"otlp": {"cluster": "c", "timeout_ms": 7}, "batch": {"interval_ms": 50}}"#, true),
        (r#"{"otlp": {"cluster": "c", "compression": "gzip"}}"#, true),
        (r#"{"otlp": {"cluster": "d"}}"#, false),
        (r#"{"otlp": {"cluster": "c", "path": "/b"}}"#, false),
        (r#"{"otlp": {"cluster": "c", "protocol": "grpc"}}"#, false),
        (r#"{"zipkin": {"cluster": "c", "path": "/v1/traces"}}"#, false),
        // Another tenant, for example.
        (
            r#"{"otlp": {"cluster": "c", "headers": [{"name": "a", "literal": {"value": "b"}}]}}"#,
            false,
        ),
    ] {
        let other = Owner::new(exporter);
        assert_eq!(base.exporter.has_destination_of(&other.exporter), expected, "{exporter}");
    }
}

#[test]
fn the_timer_starts_with_the_interval() {
    let mut owner = Owner::new(r#"{"otlp": {"cluster": "c"}, "batch": {"interval_ms": 50}}"#);
    assert_eq!(owner.exporter.start(), Duration::from_millis(50));
    assert_eq!(owner.play(50, Tick), [""; 0]);
}
