#![no_main]

//! The whole module in the harness: any headers and answers, and hostcalls that fail.

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use sidespan_harness::host::{
    CallResponse, Direction, Faults, Headers, Message, Module, Settings, StreamInfo, Vm,
};

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let configuration = CONFIGURATIONS[input.byte() as usize % CONFIGURATIONS.len()];
    let settings = Settings { configuration: configuration.into(), ..Settings::default() };
    let started = module().start(&settings).expect("the module is instantiated");
    let mut vm = started.unwrap_or_else(|failure| panic!("{configuration}: {:?}", failure.log));
    while !input.0.is_empty() {
        match input.byte() % 8 {
            0 => {
                let per_mille = [0, 20, 200, 1_000][input.byte() as usize % 4];
                vm.set_faults(Faults::random(per_mille, input.byte().into()));
            }
            1 => tick(&mut vm, &mut input),
            _ => request(&mut vm, &mut input),
        }
    }
    vm.set_faults(Faults::default());
    vm.tick().unwrap();
    let value = |name: &str| vm.metric(name).unwrap_or_default();
    let dropped = vm.metric_names().filter(|name| name.starts_with("sidespan_spans_dropped_total"));
    let left = value("sidespan_spans_exported_total")
        + value("sidespan_spans_queued")
        + dropped.map(value).sum::<i64>();
    assert_eq!(value("sidespan_spans_recorded_total"), left);
});

fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| {
        Module::load(Path::new("target/sidespan.wasm"), false).expect("run make wasm")
    })
}

fn request(vm: &mut Vm, input: &mut Input) {
    let info = StreamInfo {
        direction: [Direction::Inbound, Direction::Outbound][input.byte() as usize % 2],
        source_address: String::from_utf8_lossy(input.line()).into_owned(),
        upstream_address: String::from_utf8_lossy(input.line()).into_owned(),
        ..StreamInfo::default()
    };
    let headers = headers(input, &[(":method", "GET"), (":path", "/a")]);
    let context = vm.request(info, Message { headers, ..Message::default() }).unwrap();
    vm.advance(input.byte() as u64 * 10_000_000);
    if !input.byte().is_multiple_of(4) {
        let status = ["200", "404", "503", ""][input.byte() as usize % 4];
        let headers = self::headers(input, &[(":status", status)]);
        let trailers = self::headers(input, &[]);
        vm.response(context, Message { headers, trailers, ..Message::default() }).unwrap();
    }
    let stream = vm.finish(context).unwrap().expect("a stream");
    assert_eq!(stream.interventions, []);
}

fn tick(vm: &mut Vm, input: &mut Input) {
    vm.advance(input.byte() as u64 * 100_000_000);
    vm.tick().unwrap();
    for call in vm.take_calls() {
        let status = ["200", "400", "413", "429", "503", "x"][input.byte() as usize % 6];
        let headers = headers(input, &[(":status", status)]);
        let (body, trailers) = (input.line().to_vec(), self::headers(input, &[]));
        let answer = CallResponse { headers, body, trailers, ..CallResponse::default() };
        vm.respond(&call, answer).unwrap();
    }
}

/// These lines, and up to seven of the input's.
fn headers(input: &mut Input, lines: &[(&str, &str)]) -> Headers {
    let mut headers: Headers = lines.iter().copied().collect();
    for _ in 0..input.byte() % 8 {
        let name = NAMES[input.byte() as usize % NAMES.len()];
        headers.add(name, input.line());
    }
    headers
}

/// What is left of the input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Takes a byte; zero at the end.
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *byte
    }

    /// Takes what is before the next newline.
    fn line(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == b'\n').unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        line
    }
}

const NAMES: [&str; 36] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "x-b3-flags",
    "uber-trace-id",
    "x-amzn-trace-id",
    "ot-tracer-traceid",
    "ot-tracer-spanid",
    "ot-tracer-sampled",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "grpc-trace-bin",
    "x-cloud-trace-context",
    "x-instana-t",
    "x-instana-s",
    "x-instana-l",
    "x-debug-token",
    "x-debug-trace",
    "content-type",
    "content-length",
    "user-agent",
    "cookie",
    "x-request-id",
    ":path",
    ":authority",
    ":scheme",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "retry-after",
    "x-any",
];

const CONFIGURATIONS: [&str; 5] = [
    r#"{"exporter": {"otlp": {"cluster": "c", "compression": "gzip"}}}"#,
    r#"{"exporter": {"otlp": {"cluster": "c", "protocol": "grpc"}, "batch": {"max_queue_spans": 3, "max_batch_spans": 2}},
        "propagation": {"extract": ["tracecontext", "b3", "jaeger", "xray", "ottrace", "datadog", "grpc-trace-bin", "gcp",
                                    "instana", "baggage"],
                        "inject": ["tracecontext", "b3multi", "jaeger", "xray", "ottrace", "datadog", "grpc-trace-bin", "gcp",
                                   "instana", "baggage"],
                        "baggage": {"max_members": 64}},
        "custom_tags": [{"tag": "all", "value": "%REQ(X-ANY)% %PROTOCOL% %RESPONSE_FLAGS%"},
                        {"tag": "cookie", "cookie": {"name": "a"}}, {"tag": "account", "baggage": {"name": "a"}, "redact": "hash"}],
        "response": {"trace_id_header": "x-trace-id"}}"#,
    r#"{"exporter": {"zipkin": {"cluster": "c"}}, "sampling": {"ratio": 0.5, "limit": {"per_second": 5}}}"#,
    r#"{"exporter": {"otlp": {"cluster": "c"}}, "attribute_limits": {"attribute_count_limit": 20, "attribute_value_length_limit": 32},
        "sampling": {"ratio": 0, "export_on": {"status": ["5xx"], "grpc_status": [2, 14], "min_duration_ms": 1000, "limit": {"per_second": 3}},
                     "rules": [{"name": "debug", "decision": "force", "limit": {"per_second": 2},
                                "match": {"headers": [{"name": "x-debug-token", "strip": true,
                                  "token": {"keys": [{"id": "a", "secret": "0123456789abcdef0123456789abcdef"}], "max_ttl_s": 60}}]}},
                               {"name": "any", "match": {"path": [{"regex": "^/(a+|b)*$"}, {"prefix": "/x"}], "headers": [{"name": "x-any", "contains": "a", "ignore_case": true}]}}]}}"#,
    r#"{"propagation": {"trust": "restart", "trust_rules": [{"match": {"source_ranges": ["10.0.0.0/8", "fd00::/8"]}, "trust": "ignore_flags"}],
                        "egress": [{"authority": [{"suffix": ".example"}], "action": "strip"}]},
        "exporter": {"otlp": {"cluster": "c"}}}"#,
];
