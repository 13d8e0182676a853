//! The features of scenarios: repeated cases, the clock, slow collectors, bytes that are not text, Istio's
//! metadata, the environment.

use sidespan_harness::replay::Replay;

use crate::module;

/// Replays cases with a configuration that traces only paths below /pay.
#[track_caller]
fn check(cases: &str) {
    check_with("", cases);
}

/// Replays cases with another key in the scenario.
#[track_caller]
fn check_with(key: &str, cases: &str) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("scenario.yaml");
    std::fs::write(&file, format!("{HEAD}{key}\ncases:\n{cases}")).expect("a file for the test");
    let results = Replay::read(&file).map(|replay| replay.run(module::load()));
    for result in results.expect("the scenario can be read").expect("the module runs") {
        let failure = result.failure.unwrap_or_default();
        assert!(failure.is_empty(), "{}: {failure}", result.name);
    }
}

const HEAD: &str = r#"
config:
  sampling:
    ratio: 0
    rules: [{name: pay, match: {path: {prefix: /pay}}, decision: force}]
  custom_tags:
    - {tag: pod, environment: {name: POD_NAME}}
    - {tag: raw, request_header: {name: x-raw}}
  exporter:
    otlp: {cluster: otel-collector, timeout_ms: 2000}
    batch: {interval_ms: 500}
    retry: {max_elapsed_time_ms: 1000}
clusters: [otel-collector]
environment: {POD_NAME: checkout-1}
node: {id: "sidecar~a", cluster: checkout, metadata: {NAMESPACE: shop}}
time: "2026-05-01T12:00:00.5Z"
"#;

#[test]
fn by_default_no_change_and_no_span_is_expected() {
    check(
        "
  - name: a context that is not sampled
    request: {headers: {traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00}}
",
    );
}

#[test]
fn headers_can_repeat_and_need_not_be_text() {
    check(
        r#"
  - name: bytes
    request:
      headers: [{name: X-Raw, value_hex: FF00}, {name: a, value: "1"}, {name: a, value: "2"}]
    expect:
      upstream:
        - {name: traceparent, value: "00-${trace}-${span}-00"}
        - {name: a, value: "1"}
        - {name: a, value: "2"}
        - {name: x-raw, value_hex: ff00}
"#,
    );
}

#[test]
fn a_span_that_is_not_flushed_is_exported_in_a_later_case() {
    check(&format!(
        r#"
  - name: left
    flush: false
    direction: outbound
    clock_ms: 250
    request: {{path: /pay, method: POST, protocol: HTTP/2}}
    response: {{status: 0, flags: "UF,URX", code_details: "", upstream_address: "", duration_ms: 5}}
    expect:
      upstream: {{traceparent: "00-${{trace}}-${{span}}-01"}}
  - name: taken
    clock_ms: 1000
    request: {{headers: {{b3: "0"}}}}
    expect:
      upstream: {{traceparent: "00-${{trace2}}-${{span2}}-00"}}
      spans:
        - name: POST
          kind: CLIENT
          trace_id: ${{trace}}
          span_id: ${{span}}
          flags: 0x101
          start_ms: 250
          duration_ms: 5
          scope: sidespan
          status: {{code: ERROR}}
          attributes: {FAILED_CALL}
          events: [{{name: reset}}]
          resource: {{service.name: checkout, k8s.namespace.name: shop}}
      metrics: {{sidespan_spans_recorded_total: 1, sidespan_spans_exported_total: 1}}
"#
    ));
}

const FAILED_CALL: &str = r#"{
            http.request.method: POST, url.full: "http://localhost/pay", url.scheme: http,
            server.address: localhost, server.port: 80, network.protocol.version: "2",
            component: proxy, span.source: mesh, sidespan.reason: pay,
            response_flags: "UF,URX", error.type: "UF,URX", pod: checkout-1}"#;

#[test]
fn a_collector_can_respond_after_the_timeout() {
    check(
        r#"
  - name: after the timeout
    collector: {delay_ms: 2000}
    request: {path: /pay}
    expect:
      upstream: {traceparent: "00-${t}-${s}-01"}
      metrics: {'sidespan_spans_dropped_total{reason="retries_exhausted"}': 1, sidespan_spans_exported_total: 0}
      calls:
        - cluster: otel-collector
          timeout_ms: 2000
          headers:
            ":method": POST
            ":path": /v1/traces
            ":authority": otel-collector
            content-type: application/x-protobuf
            user-agent: sidespan/0.1.0
            traceparent: "00-${export}-${export_span}-00"
            b3: "${export}-${export_span}-0"
"#,
    );
}

#[test]
fn only_the_last_request_of_a_repeated_case_is_compared() {
    check(
        r#"
  - name: a thousand times
    repeat: 1000
    request: {headers: {traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00}}
    expect:
      metrics: {'sidespan_decisions_total{decision="parent"}': 1000, sidespan_spans_recorded_total: 0}
"#,
    );
}

#[test]
fn a_span_is_the_same_with_envoys_cel_parser_and_without() {
    let case = format!(
        r#"
  - name: no upstream
    direction: outbound
    request: {{path: /pay, method: POST, protocol: HTTP/2}}
    response: {{status: 0, flags: "UF,URX", code_details: "", upstream_address: "", duration_ms: 5}}
    expect:
      upstream: {{traceparent: "00-${{t}}-${{s}}-01"}}
      spans:
        - {{name: POST, kind: CLIENT, trace_id: "${{t}}", span_id: "${{s}}", status: {{code: ERROR}}, events: [{{name: reset}}], attributes: {FAILED_CALL}}}
  - name: answered
    direction: outbound
    request: {{path: /pay, method: POST, protocol: HTTP/2}}
    response: {{status: 0, flags: "UF,URX", upstream_address: "", duration_ms: 5}}
    properties: {{response.code_details: null}}
    expect:
      upstream: {{traceparent: "00-${{t2}}-${{s2}}-01"}}
      spans:
        - {{name: POST, kind: CLIENT, trace_id: "${{t2}}", span_id: "${{s2}}", status: {{code: ERROR}}, events: [{{name: reset}}], attributes: {FAILED_CALL}}}
"#
    );
    check(&case);
    check_with("cel: false", &case);
}

#[test]
fn the_example_in_the_help_is_a_valid_scenario() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_sidespan"))
        .args(["replay", "--help"])
        .output()
        .expect("sidespan runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let (_, example) = help.split_once("A scenario:").expect("an example");
    let (example, _) = example.split_once("Instead of").expect("the text after the example");
    let folder = tempfile::tempdir().expect("a folder for the test");
    std::fs::write(folder.path().join("plugin.yaml"), "{}").expect("a file for the test");
    let file = folder.path().join("scenario.yaml");
    std::fs::write(&file, example).expect("a file for the test");
    let error = Replay::read(&file).err().map(|error| error.to_string());
    assert_eq!(error, None, "{example}");
}
