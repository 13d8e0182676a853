//! Traffic for tests: requests of all kinds, the configuration for them, the filter's counts of their
//! spans, and the hostcalls that the SDK makes for the filter.

use sidespan_harness::host::{Direction, Headers, Message, Stream, StreamInfo, Trap, Vm};

/// Requests of all kinds, one after the other.
pub struct Traffic {
    requests: Vec<Headers>,
    sent: usize,
}

impl Traffic {
    pub fn new() -> Self {
        Self { requests: requests(), sent: 0 }
    }

    /// Sends one request and its response, and returns its stream.
    pub fn send(&mut self, vm: &mut Vm) -> Result<Stream, Trap> {
        let number = self.sent;
        self.sent += 1;
        let headers = if number.is_multiple_of(HUGE_EVERY) {
            huge(number)
        } else {
            self.requests[number % self.requests.len()].clone()
        };
        let inbound = number.is_multiple_of(2);
        let info = StreamInfo {
            direction: if inbound { Direction::Inbound } else { Direction::Outbound },
            protocol: "HTTP/1.1".into(),
            source_address: "10.0.0.9:40000".into(),
            upstream_address: "10.0.0.8:8080".into(),
            response_code_details: "via_upstream".into(),
            ..StreamInfo::default()
        };
        let context = vm.request(info, Message { headers, ..Message::default() })?;
        let status = if number.is_multiple_of(7) { "503" } else { "200" };
        let headers = Headers::from_iter([(":status", status)]);
        vm.response(context, Message { headers, ..Message::default() })?;
        Ok(vm.finish(context)?.expect("the stream exists"))
    }
}

/// Numbers of spans, from the filter's metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCounts {
    pub recorded: i64,
    pub exported: i64,
    pub dropped: i64,
    pub queued: i64,
}

impl SpanCounts {
    pub fn read(vm: &Vm) -> Self {
        let value = |name| vm.metric(name).unwrap_or_default();
        let dropped =
            vm.metric_names().filter(|name| name.starts_with("sidespan_spans_dropped_total"));
        Self {
            recorded: value("sidespan_spans_recorded_total"),
            exported: value("sidespan_spans_exported_total"),
            dropped: dropped.map(value).sum(),
            queued: value("sidespan_spans_queued"),
        }
    }

    /// Every recorded span is exported, dropped or queued.
    pub fn add_up(&self) -> bool {
        self.recorded == self.exported + self.dropped + self.queued
    }
}

/// Returns an unsampled request, a sampled root with four tags, B3 in both formats, and malformed contexts
/// of all kinds.
fn requests() -> Vec<Headers> {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let contexts: [&[(&str, &str)]; 7] = [
        &[
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
            ("tracestate", "a=b,c=d"),
        ],
        &[("x-user-id", "u-1"), ("x-request-id", "6f9c1ab0-7c2c-4d3d-8a11-000000000001")],
        &[("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1")],
        &[
            ("x-b3-traceid", "8448eb211c80319c"),
            ("x-b3-spanid", "b7ad6b7169203331"),
            ("x-b3-sampled", "0"),
        ],
        &[
            ("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01"),
            ("tracestate", "=,="),
        ],
        &[("traceparent", "ff-zz"), ("b3", "----"), ("x-b3-traceid", trace), ("baggage", "a=b")],
        &[
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("x-debug-trace", "true"),
        ],
    ];
    contexts.iter().map(|lines| base().into_iter().chain(lines.iter().copied()).collect()).collect()
}

/// Returns headers of sixty thousand bytes. Their sizes differ from request to request, and some values
/// are not UTF-8.
fn huge(number: usize) -> Headers {
    let mut headers: Headers = base().into_iter().collect();
    let size = 500 + number / HUGE_EVERY % 97;
    for line in 0..40 {
        headers.add(&format!("x-large-{line}"), vec![b'a' + (line % 26) as u8; size]);
    }
    headers.add("x-user-id", vec![0xff; 20_000 + size]);
    headers.add("tracestate", vec![b'a'; 20_000]);
    headers
}

fn base() -> [(&'static str, &'static str); 6] {
    [
        (":authority", "shop.example:8080"),
        (":path", "/cart/items?id=1&x=2"),
        (":method", "GET"),
        (":scheme", "http"),
        ("user-agent", "curl/8"),
        ("accept", "*/*"),
    ]
}

const HUGE_EVERY: usize = 100;

/// Hostcalls that the proxy-wasm SDK or the C library make for the filter. The SDK panics at a status that
/// Envoy never returns, and the C library exits if it gets no environment.
pub const SDK_HOSTCALLS: [&str; 4] =
    ["environ_get", "environ_sizes_get", "proxy_http_call", "proxy_set_effective_context"];

pub const CONFIGURATION: &str = r#"{
  "service_name": "checkout",
  "propagation": {"inject": ["tracecontext", "b3multi", "baggage"]},
  "sampling": {
    "ratio": 1.0,
    "rules": [
      {"name": "debug", "match": {"headers": [{"name": "x-debug-trace", "exact": "true"}]}, "decision": "force"},
      {"name": "health", "match": {"path": [{"prefix": "/healthz"}, {"regex": "^/ready$"}]}, "decision": "drop"}
    ]
  },
  "custom_tags": [
    {"tag": "user.id", "request_header": {"name": "x-user-id", "default_value": "-"}},
    {"tag": "environment", "literal": {"value": "production"}},
    {"tag": "pod", "environment": {"name": "POD_NAME", "default_value": "-"}},
    {"tag": "agent", "request_header": {"name": "user-agent"}}
  ],
  "exporter": {"otlp": {"cluster": "otel-collector"}}
}"#;
