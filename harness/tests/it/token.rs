//! `sidespan token` mints tokens that the filter accepts.

use std::process::Command;

use serde_json::{Value, json};

use crate::explain::explain_with;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const CONFIGURATION: &str = r"
sampling:
  ratio: 0
  rules:
  - name: debug
    decision: force
    match:
      headers:
      - name: x-debug-token
        token: {keys: [{id: ops, environment: {name: DEBUG_KEY}}]}
exporter: {otlp: {cluster: otel-collector}}
";

/// Runs `sidespan token`. Returns its exit status and its output.
fn token(arguments: &[&str], key: Option<&str>) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidespan"));
    command.arg("token").args(arguments).env_remove("DEBUG_KEY");
    if let Some(key) = key {
        command.env("DEBUG_KEY", key);
    }
    let output = command.output().expect("sidespan runs");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

/// Mints a token, sends it with a request, and compares the decision. The header must not go upstream.
#[track_caller]
fn check(arguments: &[&str], path: &str, decision: &str) {
    let arguments = [&["--key-id", "ops", "--key-env", "DEBUG_KEY"], arguments].concat();
    let (status, token) = token(&arguments, Some(KEY));
    assert_eq!(status, Some(0), "{token}");
    let request = json!({"path": path, "headers": {"x-debug-token": token.trim()}});
    let arguments = ["--json", "--env", "DEBUG_KEY", "--time", "now"];
    let (status, printed) =
        explain_with(&arguments, &[("DEBUG_KEY", KEY)], CONFIGURATION, &format!("{request}\n"));
    assert_eq!(status, Some(0), "{printed}");
    let explanation: Value = serde_json::from_str(&printed).expect("one line of JSON");
    assert_eq!(explanation["decision"], decision, "{printed}");
    let is_forced = decision == "force";
    let rule = if is_forced { json!("debug") } else { Value::Null };
    assert_eq!(explanation["rule"], rule, "{printed}");
    let is_token = |line: &Value| line["name"] == "x-debug-token";
    assert!(!explanation["upstream"].as_array().expect("lines").iter().any(is_token), "{printed}");
}

#[test]
fn a_token_forces_a_trace_until_it_expires() {
    check(&[], "/", "force");
    check(&["--ttl", "1h"], "/", "force");
    check(&["--ttl", "3600"], "/", "force");
    check(&["--path-prefix", "/api"], "/api/cart?x=1", "force");
    check(&["--path-prefix", "/api"], "/cart", "ratio");
    check(&["--ttl", "2h"], "/", "ratio");
    check(&["--at", "2026-01-01T00:00:00Z"], "/", "ratio");
}

#[test]
fn the_same_arguments_and_time_give_the_same_token() {
    let arguments = [
        "--key-id",
        "ops",
        "--key-env",
        "DEBUG_KEY",
        "--path-prefix",
        "/api",
        "--at",
        "2026-01-01T00:00:00Z",
    ];
    let expected = "AQAAAABpVbtYA29wcy9hcGl5WIPMiMpyDQPHH0tcw_9HAbyK01iu8CoDjexpn2lOnw\n";
    assert_eq!(token(&arguments, Some(KEY)), (Some(0), expected.to_owned()));
}

#[test]
fn errors_do_not_show_the_key() {
    #[track_caller]
    fn check(arguments: &[&str], key: Option<&str>, expected: &str) {
        let (status, printed) = token(arguments, key);
        assert_eq!(status, Some(2), "{printed}");
        assert!(printed.contains(expected), "expected {expected:?} in {printed}");
        assert!(!printed.contains("0123456789"), "{printed}");
    }
    let key = ["--key-id", "ops", "--key-env", "DEBUG_KEY"];
    let with = |more: &[&'static str]| [&key[..], more].concat();
    check(&key, None, "expected a key in the environment variable DEBUG_KEY, but found none");
    check(&key, Some(&KEY[1..]), "expected a key of at least 32 bytes, but found 31");
    check(&key[..2], Some(KEY), "--key-env <VARIABLE>");
    check(&with(&["--ttl", "0"]), Some(KEY), "expected a duration from 1 second to 365 days");
    check(&with(&["--ttl", "soon"]), Some(KEY), "expected a duration from 1 second to 365 days");
    check(&with(&["--ttl", "9000h"]), Some(KEY), "expected a duration from 1 second to 365 days");
    check(&with(&["--at", "yesterday"]), Some(KEY), "expected a time such as");
    check(
        &["--key-id", "", "--key-env", "DEBUG_KEY"],
        Some(KEY),
        "expected a key id of 1 to 64 bytes, but found 0",
    );
}
