//! An invalid scenario is an error, which names the position, what was expected, and what was found.

use std::process::Command;

use sidespan_harness::replay::Replay;

/// Reads a scenario beside a few plugin files, and compares the error; empty if there is none.
#[track_caller]
fn check(scenario: &str, expected: &str) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("scenario.yaml");
    let files = [
        ("scenario.yaml", scenario),
        ("plugin.yaml", "kind: WasmPlugin\nspec:\n  pluginConfig: {}\n"),
        ("broken.yaml", "a: 1\nb: [1\n"),
        ("twice.yaml", "ratio: 1\nratio: 2\n"),
        ("filter.yaml", "kind: EnvoyFilter\nspec: {}\n"),
    ];
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("a file for the test");
    }
    let error = Replay::read(&file).err().map(|error| error.to_string()).unwrap_or_default();
    let error = error.replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(error, expected, "{scenario}");
}

#[test]
fn unknown_keys_are_errors() {
    check(
        "casess: []\n",
        "scenario.yaml:1:1: expected one of the keys `plugin`, `config`, `node`, `environment`, `cel`, `clusters`, \
         `seed`, `time`, `configuration_error`, `cases`, but found the key `casess`",
    );
    check(
        "node: {zone: a}\ncases: []\n",
        "scenario.yaml:1:8: expected one of the keys `id`, `cluster`, `metadata`, but found the key `zone`",
    );
    check(
        "cases:\n  - name: a\n    request:\n      host: shop\n",
        "scenario.yaml:4:7: expected one of the keys `method`, `scheme`, `authority`, `path`, `protocol`, \
         `source_address`, `destination_address`, `uri_san_peer_certificate`, `uri_san_local_certificate`, `route_name`, \
         `cluster_name`, `headers`, `body`, `trailers`, but found the key `host`",
    );
    check(
        "cases:\n  - name: a\n    expect:\n      spans:\n        - name: GET\n          tags: {}\n",
        "scenario.yaml:6:11: expected one of the keys `name`, `kind`, `trace_id`, `span_id`, `parent_span_id`, \
         `trace_state`, `flags`, `start_ms`, `duration_ms`, `status`, `attributes`, `resource`, `scope`, `events`, \
         `links`, but found the key `tags`",
    );
    check(
        "cases:\n  - name: a\n    request:\n      headers:\n        - {name: x, text: y}\n",
        "scenario.yaml:5:21: expected one of the keys `name`, `value`, `value_hex`, but found the key `text`",
    );
    check(
        "cases:\n  - name: a\n    collector: {code: 1}\n",
        "scenario.yaml:3:17: expected one of the keys `status`, `grpc_status`, `delay_ms`, `headers`, \
         but found the key `code`",
    );
}

#[test]
fn missing_keys_are_errors() {
    check("seed: 1\n", "scenario.yaml:1:1: expected the key `cases`, but found none");
    check(
        "cases:\n  - direction: inbound\n",
        "scenario.yaml:2:5: expected the key `name`, but found none",
    );
    check(
        "cases:\n  - name: a\n    expect:\n      spans:\n        - {name: GET, kind: SERVER, span_id: a}\n",
        "scenario.yaml:5:37: expected the key `trace_id`, but found none",
    );
}

#[test]
fn values_of_the_wrong_type_are_errors() {
    check("cases: 1\n", "scenario.yaml:1:8: expected a list, but found `1`");
    check("cases:\n  name: a\n", "scenario.yaml:2:3: expected a list, but found a map");
    check("cases: [a]\n", "scenario.yaml:1:9: expected a map, but found `a`");
    check(
        "seed: -1\n",
        "scenario.yaml:1:7: expected a whole number from 0 up (64 bits), but found `-1`",
    );
    check(
        "seed: seven # lucky\n",
        "scenario.yaml:1:7: expected a whole number from 0 up (64 bits), but found `seven`",
    );
    check("environment: [A]\n", "scenario.yaml:1:14: expected a map, but found a list");
    check("plugin:\n", "scenario.yaml:1:1: expected the key `cases`, but found none");
    check(
        "time: yesterday\n",
        "scenario.yaml:1:7: expected a time such as 2026-01-01T00:00:00Z, but found \"yesterday\"",
    );
    check(
        "cases:\n  - {name: a, flush: yes}\n",
        "scenario.yaml:2:22: expected `true` or `false`, but found `yes`",
    );
    check(
        "cases:\n  - {name: a, direction: upwards}\n",
        "scenario.yaml:2:26: expected one of `unspecified`, `inbound`, `outbound`, but found `upwards`",
    );
    check(
        "cases:\n  - {name: a, repeat: 0}\n",
        "scenario.yaml:2:15: expected a whole number from 1 up, but found integer `0`",
    );
    check(
        "cases:\n  - {name: a, response: {status: 70000}}\n",
        "scenario.yaml:2:34: expected a whole number from 0 up (16 bits), but found `70000`",
    );
    check(
        "cases:\n  - {name: a, response: {flags: \"UF,XX\"}}\n",
        "scenario.yaml:2:33: expected a response flag such as UF, but found \"XX\"",
    );
    check(
        "cases:\n  - name: a\n    request: {headers: 1}\n",
        "scenario.yaml:3:15: expected header lines (a map, or a list of {name, value}), but found integer `1`",
    );
    check(
        "cases:\n  - name: a\n    request: {headers: [{name: a, value_hex: \"f\"}]}\n",
        "scenario.yaml:3:25: expected pairs of hex digits, but found \"f\"",
    );
    check(
        "cases:\n  - name: a\n    response: {trailers: {\":status\": \"200\"}}\n",
        "scenario.yaml:3:26: expected no pseudo header (requests have the keys `method`, `scheme`, `authority` and \
         `path`, responses have `status`), but found \":status\"",
    );
    check(
        "cases:\n  - name: a\n    request: {headers: [{name: a}]}\n",
        "scenario.yaml:3:25: expected `value` or `value_hex`, but found neither",
    );
    check(
        "cases:\n  - name: a\n    expect: {upstream: changed}\n",
        "scenario.yaml:3:24: expected header lines or `unchanged`, but found \"changed\"",
    );
    check(
        "cases:\n  - name: a\n    expect: {spans: [{name: a, kind: server, trace_id: a, span_id: b}]}\n",
        "scenario.yaml:3:38: expected one of `INTERNAL`, `SERVER`, `CLIENT`, `PRODUCER`, `CONSUMER`, \
         but found `server`",
    );
    check(
        "cases:\n  - name: a\n    expect: {metrics: {a: 1.5}}\n",
        "scenario.yaml:3:27: expected a whole number (64 bits), but found `1.5`",
    );
}

#[test]
fn several_documents_and_repeated_keys_are_errors() {
    check(
        "cases: []\n---\ncases: []\n",
        "scenario.yaml:3:1: expected one document, but found several",
    );
    check(
        "cases: []\ncases: []\n",
        "scenario.yaml:2:1: expected each key once, but found `cases` again",
    );
}

#[test]
fn missing_files_are_errors_at_the_key_that_names_them() {
    check(
        "seed: 1\nplugin: absent.yaml\ncases: []\n",
        "scenario.yaml:2:9: expected a file, but found none at `absent.yaml`",
    );
    let error = Replay::read("absent/scenario.yaml".as_ref()).err().map(|error| error.to_string());
    assert_eq!(
        error.as_deref(),
        Some(
            "absent/scenario.yaml: expected a readable file, but found: No such file or directory (os error 2)"
        )
    );
}

#[test]
fn errors_in_plugin_files_have_positions_in_those_files() {
    check(
        "plugin: twice.yaml\ncases: []\n",
        "twice.yaml:2:1: expected each key once, but found `ratio` again",
    );
    check(
        "plugin: filter.yaml\ncases: []\n",
        "filter.yaml: expected the kind WasmPlugin, but found \"EnvoyFilter\"",
    );
}

#[test]
fn keys_that_exclude_each_other_are_errors() {
    check(
        "plugin: plugin.yaml\nconfig: {}\ncases: []\n",
        "scenario.yaml:1:9: expected `plugin` or `config`, but found both",
    );
    check(
        "cases: []\nconfiguration_error: x\n",
        "scenario.yaml:2:22: expected `cases` or `configuration_error`, but found both",
    );
}

#[test]
fn valid_scenarios_have_no_error() {
    check("plugin: plugin.yaml\ncases: []\n", "");
    check("configuration_error: x\n", "");
    check("cases:\n  - name: a\n    request: {headers: {X-A: 1}}\n    response: {flags: 32}\n", "");
}

#[test]
fn replay_prints_the_error_and_exits_with_2() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let scenario = folder.path().join("scenario.yaml");
    std::fs::write(&scenario, "cases:\n  - nam: a\n").expect("a file for the test");
    let module = folder.path().join("module.wasm");
    std::fs::write(&module, wat::parse_str("(module)").expect("WebAssembly"))
        .expect("a file for the test");
    let replay = |module: &std::path::Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_sidespan"))
            .args(["replay".as_ref(), "--module".as_ref(), module, &scenario])
            .output()
            .expect("sidespan runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, error) = replay(&module);
    assert_eq!(status, Some(2));
    assert!(error.contains("scenario.yaml:2:5: expected one of the keys `name`"), "{error}");
    let (status, error) = replay(&folder.path().join("absent.wasm"));
    assert_eq!(status, Some(2));
    let expected = "absent.wasm: expected the filter's module, but found no file: run `make wasm`";
    assert!(error.starts_with('/') && error.contains(expected), "{error}");
}
