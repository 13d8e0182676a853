//! Each difference from a scenario's expectation fails its case, and is shown.

use std::path::Path;
use std::process::Command;

use sidespan_harness::replay::Replay;
use sidespan_harness::replay::Report;

use crate::module;

/// Runs a scenario. Returns the number of failed cases and the output.
#[track_caller]
fn replay(scenario: &str) -> (usize, String) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("scenario.yaml");
    std::fs::write(&file, scenario).expect("a file for the test");
    let results = Replay::read(&file)
        .expect("the scenario can be read")
        .run(module::load())
        .expect("the module runs");
    let mut report = Report::default();
    let printed = report.add(Path::new("scenario.yaml"), &results) + &report.summary();
    (report.failed, printed)
}

/// Replays [`SCENARIO`] with `from` replaced by `to`. The case must fail, and the output must have all
/// `lines`.
#[track_caller]
fn check(from: &str, to: &str, lines: &[&str]) {
    assert!(SCENARIO.contains(from), "expected {from:?} in the scenario");
    let (_, printed) = replay(&SCENARIO.replacen(from, to, 1));
    for line in ["FAIL scenario.yaml: a root is sampled", "0 passed, 1 failed"].iter().chain(lines)
    {
        assert!(
            printed.lines().any(|printed| matches(line, printed.trim())),
            "{line:?} in\n{printed}"
        );
    }
}

/// Returns whether a line is the expected one, or starts with it up to its `…`.
fn matches(expected: &str, line: &str) -> bool {
    expected.strip_suffix('…').map_or(line == expected, |start| line.starts_with(start))
}

#[test]
fn the_expected_result_passes() {
    let (failed, printed) = replay(SCENARIO);
    assert_eq!(printed, "ok   scenario.yaml: a root is sampled\n1 passed, 0 failed\n");
    assert_eq!(failed, 0);
}

#[test]
fn wrong_missing_and_extra_headers_are_shown() {
    check(
        "x-user-id: u-1, trace",
        "x-user-id: u-2, trace",
        &["-  x-user-id: u-2", "+  x-user-id: u-1"],
    );
    check("x-user-id: u-1, trace", "trace", &["+  x-user-id: u-1"]);
    check("x-user-id: u-1, trace", "x-user-id: u-1, x-more: a, trace", &["-  x-more: a"]);
    check("expect:\n      upstream", "expect:\n      client", &["-  x-user-id: u-1"]);
    check(
        "{x-user-id: u-1, traceparent: \"00-${t}-${s}-01\"}",
        "unchanged",
        &["+  traceparent: 00-…"],
    );
}

#[test]
fn wrong_missing_and_extra_attributes_are_shown() {
    check("url.path: /cart", "url.path: /", &["-      url.path: /", "+      url.path: /cart"]);
    check("            url.path: /cart\n", "", &["+      url.path: /cart"]);
    check("url.path: /cart", "url.path: /cart\n            more: 1", &["-      more: 1"]);
    // A number is not the text of its digits.
    check(
        "status_code: 200",
        "status_code: \"200\"",
        &["-      http.response.status_code: \"200\"", "+      http.response.status_code: 200"],
    );
}

#[test]
fn wrong_missing_and_extra_spans_are_shown() {
    check("- name: GET\n", "- name: POST\n", &["-  - name: POST", "+  - name: GET"]);
    check("kind: SERVER", "kind: CLIENT", &["-    kind: CLIENT", "+    kind: SERVER"]);
    let absent = "        - {name: again, kind: SERVER, trace_id: \"${t}\", span_id: \"${other}\"}\n      metrics";
    check("      metrics", absent, &["-  - name: again", "-    span_id: ${other}"]);
    let (failed, printed) =
        replay(&format!("{}\n", SCENARIO.split("      spans:").next().unwrap_or_default()));
    assert_eq!(failed, 1, "{printed}");
    assert!(printed.contains("+  - name: GET"), "{printed}");
}

#[test]
fn headers_and_spans_share_captures() {
    let (_, printed) = replay(&SCENARIO.replacen("span_id: ${s}", "span_id: ${t}", 1));
    assert!(printed.lines().any(|line| line.trim().starts_with("-    span_id: ")), "{printed}");
    check("parent_span_id: \"\"", "parent_span_id: ${p}", &["-    parent_span_id: ${p}"]);
}

#[test]
fn wrong_times_metrics_calls_and_logs_are_shown() {
    check("response: {duration_ms: 12}\n    expect:\n      up", "expect:\n      up", &[]);
    check(
        "spans_recorded_total: 1",
        "spans_recorded_total: 2",
        &["-  sidespan_spans_recorded_total: 2", "+  sidespan_spans_recorded_total: 1"],
    );
    check("spans_recorded_total: 1", "spans_wanted: 1", &["+  sidespan_spans_wanted: not defined"]);
    check(
        "      metrics",
        "      calls: []\n      metrics",
        &["-calls: []", "+  - cluster: otel-collector"],
    );
    check("      metrics", "      log: [not in the log]\n      metrics", &["-  - not in the log"]);
}

#[test]
fn an_unexpected_refusal_or_acceptance_of_the_configuration_fails() {
    let (failed, printed) = replay("config: {ratio: 1}\ncases:\n  - name: a\n");
    assert_eq!(failed, 1, "{printed}");
    assert!(printed.contains("log: Error: sidespan: configuration refused: "), "{printed}");
    let (failed, printed) = replay("config: {}\nconfiguration_error: ratio\n");
    assert_eq!(failed, 1, "{printed}");
    assert!(
        printed.contains("expected the filter to refuse the configuration, but it accepted it"),
        "{printed}"
    );
    let (failed, printed) =
        replay("config: {ratio: 1}\nconfiguration_error: \"nothing of the kind\"\n");
    assert_eq!(failed, 1, "{printed}");
}

#[test]
fn spans_that_the_collector_rejects_do_not_count_as_exported() {
    let refused = SCENARIO.replacen(
        "direction: inbound",
        "direction: inbound\n    collector: {status: 503}",
        1,
    );
    let (_, printed) = replay(&refused);
    assert!(printed.contains("-  - name: GET"), "{printed}");
    assert!(printed.contains("+spans: []"), "{printed}");
}

#[test]
fn the_exit_status_is_1_if_a_case_fails() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("scenario.yaml");
    let run = |scenario: &str| {
        std::fs::write(&file, scenario).expect("a file for the test");
        let output = Command::new(env!("CARGO_BIN_EXE_sidespan"))
            .args([
                "replay".as_ref(),
                "--fuel".as_ref(),
                "--module".as_ref(),
                module::path().as_path(),
                &file,
            ])
            .output()
            .expect("sidespan runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (status, printed) = run(SCENARIO);
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.contains(" instructions, ") && printed.contains(" in ticks)"), "{printed}");
    assert_eq!(run(SCENARIO).1, printed);
    let (status, printed) = run(&SCENARIO.replacen("kind: SERVER", "kind: CLIENT", 1));
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.ends_with("0 passed, 1 failed\n"), "{printed}");
}

const SCENARIO: &str = r#"config:
  service_name: checkout
  sampling: {ratio: 1.0}
  exporter: {otlp: {cluster: otel-collector}}
clusters: [otel-collector]
cases:
  - name: a root is sampled
    direction: inbound
    request: {path: /cart, headers: {x-user-id: u-1}}
    response: {duration_ms: 12}
    expect:
      upstream: {x-user-id: u-1, traceparent: "00-${t}-${s}-01"}
      spans:
        - name: GET
          kind: SERVER
          trace_id: ${t}
          span_id: ${s}
          parent_span_id: ""
          duration_ms: 12
          attributes:
            client.address: "10.0.0.9"
            component: proxy
            http.request.method: GET
            http.response.status_code: 200
            network.peer.address: "10.0.0.9"
            network.peer.port: 40000
            network.protocol.version: "1.1"
            response_code_details: via_upstream
            server.address: localhost
            server.port: 80
            sidespan.reason: ratio
            span.source: mesh
            url.path: /cart
            upstream_address: 10.0.0.8:8080
            upstream_time_to_first_byte_ms: 12.0
            url.scheme: http
          resource: {service.name: checkout}
      metrics: {sidespan_spans_recorded_total: 1, sidespan_spans_exported_total: 1, sidespan_spans_queued: 0}
"#;
