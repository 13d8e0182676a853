"""What Envoy says of a filter configuration, before it takes any traffic."""

import json
import subprocess

import pytest

import topology

# Rows: the configuration, the path that is named, what is said of it.
REFUSED = {
    "unknown key": (
        {"samplin": {}},
        "samplin",
        ["expected a known key, one of `service_name`", 'but found "samplin"'],
    ),
    "key of a later version": (
        {"sampling": {"adaptive": {}}},
        "sampling.adaptive",
        ["expected a known key, one of `ratio`, `precision`, `rules`", 'but found "adaptive"'],
    ),
    "token with a short key": (
        {
            "sampling": {
                "rules": [
                    {
                        "name": "debug",
                        "match": {"headers": {"name": "x-t", "token": {"keys": [{"id": "a", "secret": "s3cret"}]}}},
                        "decision": "force",
                    }
                ]
            }
        },
        "sampling.rules[0].match.headers.token.keys[0].secret",
        ["expected a key of at least 32 bytes", "but found 6 bytes"],
    ),
    "wrong type": (
        {"sampling": {"ratio": "all"}},
        "sampling.ratio",
        ["expected", "number", 'but found "all"'],
    ),
    "ratio above 1": (
        {"sampling": {"ratio": 1.5}},
        "sampling.ratio",
        ["expected", "0 to 1", "but found 1.5"],
    ),
    "bad regex": (
        {"sampling": {"rules": [{"name": "a"}, {"name": "b", "match": {"path": {"regex": "("}}}]}},
        "sampling.rules[1].match.path.regex",
        ["expected a valid regular expression", 'but found "("'],
    ),
    "empty rule name": (
        {"sampling": {"rules": [{"name": ""}]}},
        "sampling.rules[0].name",
        ["expected", 'but found ""'],
    ),
    "duplicate rule names": (
        {"sampling": {"rules": [{"name": "a"}, {"name": "a"}]}},
        "sampling.rules[1].name",
        ["expected", 'but found "a"'],
    ),
    "header name that is no token": (
        {"custom_tags": [{"tag": "a", "request_header": {"name": "x y"}}]},
        "custom_tags[0].request_header.name",
        ["expected", 'but found "x y"'],
    ),
    "unknown decision": (
        {"sampling": {"rules": [{"name": "a", "decision": "keep"}]}},
        "sampling.rules[0].decision",
        ["expected", 'but found "keep"'],
    ),
    "exporter without cluster": ({"exporter": {"otlp": {}}}, "exporter.otlp.cluster", ["expected"]),
    "unknown propagator": (
        {"propagation": {"extract": ["zipkin"]}},
        "propagation.extract[0]",
        ["expected", 'but found "zipkin"'],
    ),
}


def validate(envoy, folder, text: str | None) -> subprocess.CompletedProcess:
    """Runs Envoy's own check of a bootstrap whose first listener has the filter configured so."""
    bootstrap = topology.load_bootstrap(topology.BOOTSTRAP)
    (listener, *_) = bootstrap["static_resources"]["listeners"]
    bootstrap["static_resources"]["listeners"] = [listener]
    wasm = topology.wasm_configuration(listener)
    wasm["vm_config"]["code"]["local"]["filename"] = str(topology.MODULE)
    if text is None:
        del wasm["configuration"]
    else:
        wasm["configuration"]["value"] = text
    file = folder / "envoy.json"
    file.write_text(json.dumps(bootstrap))
    return subprocess.run(
        [envoy, "--mode", "validate", "-c", file], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("row", REFUSED)
def test_bad_configuration_is_refused_with_its_path(outermost_envoy, tmp_path, row):
    configuration, path, findings = REFUSED[row]
    checked = validate(outermost_envoy, tmp_path, json.dumps(configuration))

    assert checked.returncode == 1
    lines = [line for line in checked.stderr.splitlines() if "sidespan: configuration refused: " in line]
    assert len(lines) == 1, checked.stderr
    assert "[error]" in lines[0]
    _, _, message = lines[0].partition("sidespan: configuration refused: ")
    assert message.startswith(f"{path}: ")
    assert all(finding in message for finding in findings), message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "{sampling",
            "expected JSON, but found an error: key must be a string at line 1 column 2",
            id="no JSON",
        ),
        pytest.param("[" * 127 + "]" * 127, "expected an object, but found an array", id="deep"),
        pytest.param(
            "[" * 100_000,
            "[0]" * 127 + ": expected JSON, but found an error: recursion limit exceeded at line 1 column 128",
            id="deeper than the stack",
        ),
        pytest.param(
            '{"sampling": {"ratio": 1e400}}',
            "sampling.ratio: expected JSON, but found an error: number out of range at line 1 column 28",
            id="number that no double holds",
        ),
        pytest.param(
            "sampling:\n  ratio: 0.1\n",
            'expected one JSON object, but found what looks like YAML, with the key "sampling"; '
            "Envoy's StringValue takes JSON",
            id="YAML",
        ),
    ],
)
def test_text_that_is_no_configuration_is_refused(outermost_envoy, tmp_path, text, message):
    checked = validate(outermost_envoy, tmp_path, text)

    assert checked.returncode == 1
    assert f"sidespan: configuration refused: {message}\n" in checked.stderr


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="no configuration"),
        pytest.param("", id="empty text"),
        pytest.param("{}", id="empty object"),
    ],
)
def test_empty_configuration_is_valid(outermost_envoy, tmp_path, text):
    checked = validate(outermost_envoy, tmp_path, text)

    assert checked.returncode == 0, checked.stderr
    assert "refused" not in checked.stderr
