//! `sidespan explain` prints what the filter does with a request.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::module;

/// Explains a request as JSON, and compares the value at `pointer` in the output.
#[track_caller]
fn check(request: &Value, pointer: &str, expected: &Value) {
    let (status, printed) = explain(&["--json"], CONFIGURATION, &format!("{request}\n"));
    assert_eq!(status, Some(0), "{printed}");
    let explanation: Value = serde_json::from_str(&printed).expect("one line of JSON");
    assert_eq!(explanation.pointer(pointer), Some(expected), "{request}: {printed}");
}

/// Runs `sidespan explain` with requests as lines. Returns its exit status and its output.
#[track_caller]
fn explain(arguments: &[&str], configuration: &str, lines: &str) -> (Option<i32>, String) {
    explain_with(arguments, &[], configuration, lines)
}

/// Runs `sidespan explain` with variables in its environment.
#[track_caller]
pub fn explain_with(
    arguments: &[&str],
    environment: &[(&str, &str)],
    configuration: &str,
    lines: &str,
) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("plugin.yaml");
    std::fs::write(&file, configuration).expect("a file for the test");
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidespan"))
        .arg("explain")
        .args(["--module".as_ref(), module::path().as_path()])
        .args(["--config".as_ref(), file.as_path()])
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sidespan runs");
    let mut input = child.stdin.take().expect("a pipe");
    let lines = lines.to_owned();
    // Written in a thread because both pipes can fill up. A process that failed closes its end.
    let writer = std::thread::spawn(move || {
        let _ = input.write_all(lines.as_bytes());
    });
    let output = child.wait_with_output().expect("sidespan ends");
    writer.join().expect("the lines are written");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

const CONFIGURATION: &str = r"
kind: WasmPlugin
spec:
  pluginConfig:
    propagation: {extract: [tracecontext, b3]}
    sampling: {rules: [{name: checks, match: {path: {exact: /healthz}}, decision: drop}]}
    exporter: {otlp: {cluster: otel-collector}}
";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

#[test]
fn compiled_code_is_kept_in_the_users_cache_folder_if_there_is_one() {
    let home = tempfile::tempdir().expect("a folder for the test");
    let cache = home.path().join("cache");
    let file = home.path().join("file");
    std::fs::write(&file, "").expect("a file for the test");
    for (folder, is_kept) in [(&file, false), (&cache, true)] {
        let home = folder.to_str().expect("a path of the test");
        let environment = [("HOME", home), ("XDG_CACHE_HOME", home)];
        let (status, printed) = explain_with(&[], &environment, CONFIGURATION, "{}\n");
        assert_eq!(status, Some(0), "{printed}");
        assert_eq!(folder.is_dir(), is_kept, "{home}");
    }
    let kept = std::fs::read_dir(cache).expect("the cache").count();
    assert_eq!(kept, 1, "the folder of wasmtime");
}

#[test]
fn the_decision_comes_from_the_counter_that_changed() {
    check(&json!({}), "/decision", &json!("ratio"));
    check(&json!({"path": "/healthz?x=1"}), "/decision", &json!("drop"));
    check(&json!({"path": "/healthz?x=1"}), "/rule", &json!("checks"));
    check(&json!({}), "/rule", &Value::Null);
    let parent = json!({"headers": [["traceparent", format!("{PARENT}-00")]]});
    check(&parent, "/decision", &json!("parent"));
    let invalid = json!({"headers": {"traceparent": PARENT}});
    check(
        &invalid,
        "/counted",
        &json!({"sidespan_invalid_contexts_total{format=\"tracecontext\"}": 1}),
    );
}

#[test]
fn all_header_lines_are_in_the_json() {
    let request = json!({
        "authority": "shop", "path": "/cart", "method": "POST",
        "headers": [
            ["X-A", "1"],
            {"name": "x-a", "value": "2"},
            {"name": "x-b", "value_hex": "ff"},
            ["traceparent", format!("{PARENT}-00")],
        ],
    });
    let upstream = json!([
        {"name": ":authority", "value": "shop"},
        {"name": ":path", "value": "/cart"},
        {"name": ":method", "value": "POST"},
        {"name": ":scheme", "value": "http"},
        {"name": "x-a", "value": "1"},
        {"name": "x-a", "value": "2"},
        {"name": "x-b", "value_hex": "ff"},
        {"name": "traceparent", "value": format!("{PARENT}-00")},
    ]);
    check(&request, "/upstream", &upstream);
    check(&request, "/spans", &json!([]));
    check(
        &json!({"response": {"status": 404, "headers": {"server": "a"}}}),
        "/client",
        &json!([{"name": ":status", "value": "404"}, {"name": "server", "value": "a"}]),
    );
}

#[test]
fn exported_spans_are_in_the_json() {
    let request = json!({
        "direction": "outbound",
        "headers": [["traceparent", format!("{PARENT}-01")], ["tracestate", "a=1"]],
    });
    check(&request, "/spans/0/kind", &json!("CLIENT"));
    check(&request, "/spans/0/trace_id", &json!("0af7651916cd43dd8448eb211c80319c"));
    check(&request, "/spans/0/parent_span_id", &json!("b7ad6b7169203331"));
    check(&request, "/spans/0/trace_state", &json!("a=1"));
    check(&request, "/spans/0/flags", &json!(0x301));
    check(&request, "/spans/0/attributes/http.response.status_code", &json!(200));
}

#[test]
fn the_text_shows_only_changed_header_lines() {
    let request = json!({"headers": {"b3": "0"}, "path": "/a?b=1", "authority": "shop"});
    let (status, printed) = explain(&[], "propagation: {inject: [b3]}", &format!("{request}\n"));
    assert_eq!(status, Some(0), "{printed}");
    let begin = "GET http://shop/a?b=1\ndecision: parent\nupstream:\n  - b3: 0\n  + b3: ";
    assert!(printed.starts_with(begin), "{printed}");
    assert!(printed.ends_with("-0\nclient: unchanged\nspans: []\n\n"), "{printed}");
}

#[test]
fn a_rule_over_its_limit_is_shown() {
    let configuration = "sampling: {rules: [{name: debug all, decision: force,
        limit: {per_second: 0.001}}]}";
    let (status, printed) = explain(&[], configuration, "{}\n{}\n");
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.contains("decision: force (rule debug_all)\nupstream:"), "{printed}");
    assert!(printed.contains("decision: ratio\nover its limit: rule debug_all\n"), "{printed}");
    let (_, printed) = explain(&["--json"], configuration, "{}\n{}\n");
    let second: Value =
        serde_json::from_str(printed.lines().last().expect("two lines")).expect("JSON");
    assert_eq!(second["over_limit"], json!(["debug_all"]));
}

#[test]
fn the_same_seed_gives_the_same_explanations() {
    let lines =
        format!("{{}}\n{{\"headers\": {{\"traceparent\": \"{PARENT}-01\"}}}}\n").repeat(500);
    let (status, printed) = explain(&["--json", "--seed", "7"], CONFIGURATION, &lines);
    assert_eq!(status, Some(0), "{printed}");
    assert_eq!(printed.lines().count(), 1000);
    for (index, line) in printed.lines().enumerate() {
        let explanation: Value = serde_json::from_str(line).expect("JSON");
        let decision = if index % 2 == 0 { "ratio" } else { "parent" };
        assert_eq!(explanation["decision"], decision, "{line}");
        assert_eq!(explanation["spans"].as_array().map(Vec::len), Some(1), "{line}");
    }
    assert_eq!(explain(&["--json", "--seed", "7"], CONFIGURATION, &lines).1, printed);
    assert_ne!(explain(&["--json", "--seed", "8"], CONFIGURATION, &lines).1, printed);
}

#[test]
fn invalid_input_is_an_error_with_its_line() {
    #[track_caller]
    fn check(configuration: &str, lines: &str, expected: &str) {
        let (status, printed) = explain(&["--json"], configuration, lines);
        assert_eq!(status, Some(2), "{printed}");
        assert!(printed.contains(expected), "expected {expected:?} in {printed}");
    }
    check(CONFIGURATION, "{}\n{\"host\": \"a\"}\n", "line 2: unknown field `host`");
    check(CONFIGURATION, "{}\n[]\n", "line 2: ");
    check(CONFIGURATION, "\n", "line 1: ");
    check(
        CONFIGURATION,
        "{\"headers\": [[\"a\"]]}\n",
        "line 1: expected `value` or `value_hex`, but found neither",
    );
    check(
        CONFIGURATION,
        "{\"headers\": [[\"a\", \"b\", \"c\"]]}\n",
        "line 1: expected `value` or `value_hex`, but found both",
    );
    check(
        CONFIGURATION,
        "{\"headers\": {\":scheme\": \"https\"}}\n",
        "line 1: expected no pseudo header (requests have the keys `method`, `scheme`, `authority` and `path`, \
         responses have `status`), but found \":scheme\"",
    );
    check(CONFIGURATION, "{\"direction\": \"up\"}\n", "line 1: unknown variant `up`");
    check("ratio: 1", "{}\n", "configuration refused: ");
    check("kind: EnvoyFilter", "{}\n", "expected the kind WasmPlugin");
    check("a: [", "{}\n", "plugin.yaml:");
}
