//! `sidespan token` mints what the filter verifies.

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

/// Runs `sidespan token`; gives its exit status and what it printed.
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

#[track_caller]
fn check(minted_with: &[&str], path: &str, decision: &str) {
    let named = [&["--key-id", "ops", "--key-env", "DEBUG_KEY"], minted_with].concat();
    let (status, minted) = token(&named, Some(KEY));
    assert_eq!(status, Some(0), "{minted}");
    let request = json!({"path": path, "headers": {"x-debug-token": minted.trim()}});
    let arguments = ["--json", "--env", "DEBUG_KEY", "--time", "now"];
    let (status, printed) =
        explain_with(&arguments, &[("DEBUG_KEY", KEY)], CONFIGURATION, &format!("{request}\n"));
    assert_eq!(status, Some(0), "{printed}");
    let answer: Value = serde_json::from_str(&printed).expect("one line of JSON");
    assert_eq!(answer["decision"], decision, "{printed}");
    let forced = decision == "force";
    assert_eq!(answer["rule"], if forced { json!("debug") } else { Value::Null }, "{printed}");
    let header = |line: &Value| line["name"] == "x-debug-token";
    assert!(!answer["upstream"].as_array().expect("lines").iter().any(header), "{printed}");
}

#[test]
fn what_is_minted_forces_a_trace_until_it_expires() {
    check(&[], "/", "force");
    check(&["--ttl", "1h"], "/", "force");
    check(&["--ttl", "3600"], "/", "force");
    check(&["--path-prefix", "/api"], "/api/cart?x=1", "force");
    check(&["--path-prefix", "/api"], "/cart", "ratio");
    check(&["--ttl", "2h"], "/", "ratio");
    check(&["--at", "2026-01-01T00:00:00Z"], "/", "ratio");
}

#[test]
fn a_fixed_time_makes_a_fixed_token() {
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
    let minted = "AQAAAABpVbtYA29wcy9hcGl5WIPMiMpyDQPHH0tcw_9HAbyK01iu8CoDjexpn2lOnw\n";
    assert_eq!(token(&arguments, Some(KEY)), (Some(0), minted.to_owned()));
}

#[test]
fn what_cannot_be_minted_is_refused_and_the_key_not_shown() {
    #[track_caller]
    fn check(arguments: &[&str], key: Option<&str>, wanted: &str) {
        let (status, printed) = token(arguments, key);
        assert_eq!(status, Some(2), "{printed}");
        assert!(printed.contains(wanted), "{wanted:?} in {printed}");
        assert!(!printed.contains("0123456789"), "{printed}");
    }
    let named = ["--key-id", "ops", "--key-env", "DEBUG_KEY"];
    let and = |more: &[&'static str]| [&named[..], more].concat();
    check(&named, None, "expected a key in the environment variable DEBUG_KEY, but found none");
    check(&named, Some(&KEY[1..]), "expected a key of at least 32 bytes, but found 31");
    check(&named[..2], Some(KEY), "--key-env <VARIABLE>");
    check(&and(&["--ttl", "0"]), Some(KEY), "expected a duration from 1 second to 365 days");
    check(&and(&["--ttl", "soon"]), Some(KEY), "expected a duration from 1 second to 365 days");
    check(&and(&["--ttl", "9000h"]), Some(KEY), "expected a duration from 1 second to 365 days");
    check(&and(&["--at", "yesterday"]), Some(KEY), "expected a time such as");
    check(
        &["--key-id", "", "--key-env", "DEBUG_KEY"],
        Some(KEY),
        "expected a key id of 1 to 64 bytes, but found 0",
    );
}
