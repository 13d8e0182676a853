//! The filter's memory does not grow: what a request took is free again when it is over.

use sidespan_harness::host::{CallAnswer, Direction, Headers, Message, Settings, StreamInfo, Vm};

use crate::module;

const REQUESTS: usize = 1_000_000;
const WARM_UP: usize = 100_000;
const REQUESTS_PER_TICK: usize = 400;

#[test]
fn memory_does_not_grow_over_a_million_requests() {
    let mut vm = module::load()
        .start(&Settings { configuration: CONFIGURATION.into(), ..Settings::default() })
        .expect("the module is instantiated")
        .expect("the configuration is taken");
    let requests = requests();
    let mut warm = 0;
    let mut exported = 0;
    for number in 0..REQUESTS {
        if number == WARM_UP {
            warm = vm.memory_size();
        }
        send(&mut vm, &requests, number);
        if number.is_multiple_of(REQUESTS_PER_TICK) {
            exported += tick(&mut vm, number);
        }
    }
    assert_eq!(vm.memory_size(), warm, "bytes after {REQUESTS} requests, and after {WARM_UP}");
    // The test says something only while the filter does its work.
    let recorded = vm.metric("sidespan_spans_recorded_total").unwrap_or_default();
    assert!(recorded >= REQUESTS as i64 / 4, "{recorded} spans recorded");
    assert!(exported > REQUESTS / 2_000, "{exported} calls to the collector");
}

fn send(vm: &mut Vm, requests: &[Headers], number: usize) {
    let headers = if number.is_multiple_of(HUGE_EVERY) {
        huge(number)
    } else {
        requests[number % requests.len()].clone()
    };
    let info = StreamInfo {
        direction: if number.is_multiple_of(2) { Direction::Inbound } else { Direction::Outbound },
        protocol: "HTTP/1.1".into(),
        source_address: "10.0.0.9:40000".into(),
        upstream_address: "10.0.0.8:8080".into(),
        response_code_details: "via_upstream".into(),
        ..StreamInfo::default()
    };
    let context = vm.request(info, Message { headers, ..Message::default() }).expect("no trap");
    let response =
        Headers::from_iter([(":status", if number.is_multiple_of(7) { "503" } else { "200" })]);
    vm.response(context, Message { headers: response, ..Message::default() }).expect("no trap");
    vm.finish(context).expect("no trap");
}

/// Fires a tick and answers its calls, every tenth time with a failure; says how many they were.
fn tick(vm: &mut Vm, number: usize) -> usize {
    vm.advance(1_000_000_000);
    vm.tick().expect("no trap");
    let status = if number / REQUESTS_PER_TICK % 10 == 9 { "503" } else { "200" };
    let mut answered = 0;
    loop {
        let calls = vm.take_calls();
        if calls.is_empty() {
            break;
        }
        answered += calls.len();
        for call in &calls {
            let headers = Headers::from_iter([(":status", status)]);
            vm.answer(call, CallAnswer { headers, ..CallAnswer::default() }).expect("no trap");
        }
    }
    vm.take_log();
    answered
}

/// Not sampled, a sampled root with four tags, B3 in both forms, and contexts of all wrong kinds.
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

/// Sixty thousand bytes in headers whose sizes differ from request to request, some not text.
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

const CONFIGURATION: &str = r#"{
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
