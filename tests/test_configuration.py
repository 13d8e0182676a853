"""Envoy refuses an invalid configuration and logs its path, the expected value and the value found."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from shared_envoys import borrowed, unused_listener
from topology import admin_answer

# Rows: the configuration, the path in the error, other parts of the error.
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


@dataclass(frozen=True)
class Checked:
    """What Envoy made of a configuration: whether it took the listener, and the errors that the filter logged."""

    is_taken: bool
    errors: list[str]


def checked(envoy: Path, texts: dict[str, str | None]) -> dict[str, Checked]:
    """Gives one Envoy a listener for each configuration; None is no configuration at all.

    Listener discovery takes the valid ones of an update and refuses the others. Each has a VM of its own, whose
    id Envoy puts before the lines that it logs.
    """
    identifiers = {row: f"vm-{index}" for index, row in enumerate(texts)}
    with borrowed(envoy) as running:
        running.forget()
        running.discover("lds", [unused_listener(identifiers[row], text) for row, text in texts.items()])
        taken, log = admin_answer(running.admin_port, "/listeners"), running.log()
    return {
        row: Checked(
            is_taken=f"{vm}::" in taken,
            errors=re.findall(rf"\[error\].* wasm log {vm}-\d+: (.*)", log),
        )
        for row, vm in identifiers.items()
    }


def test_bad_configuration_is_refused_with_its_path(outermost_envoy):
    texts = {row: json.dumps(configuration) for row, (configuration, _, _) in REFUSED.items()}
    for row, found in checked(outermost_envoy, texts).items():
        _, path, findings = REFUSED[row]
        (error,) = found.errors
        assert not found.is_taken, row
        assert error.startswith(f"sidespan: configuration refused: {path}: "), row
        assert all(finding in error for finding in findings), (row, error)


# Rows: the text and the error.
INVALID_TEXTS = {
    "no JSON": ("{sampling", "expected JSON, but found an error: key must be a string at line 1 column 2"),
    "deep": ("[" * 127 + "]" * 127, "expected an object, but found an array"),
    "deeper than the stack": (
        "[" * 100_000,
        "[0]" * 127 + ": expected JSON, but found an error: recursion limit exceeded at line 1 column 128",
    ),
    "number that no double holds": (
        '{"sampling": {"ratio": 1e400}}',
        "sampling.ratio: expected JSON, but found an error: number out of range at line 1 column 28",
    ),
    "YAML": (
        "sampling:\n  ratio: 0.1\n",
        'expected one JSON object, but found what looks like YAML, with the key "sampling"; '
        "Envoy's StringValue must hold JSON",
    ),
}
EMPTY = {"no configuration": None, "empty text": "", "empty object": "{}"}


def test_text_that_is_no_configuration_is_refused_and_an_empty_one_is_valid(outermost_envoy):
    texts = EMPTY | {row: text for row, (text, _) in INVALID_TEXTS.items()}
    refused = {
        row: Checked(False, [f"sidespan: configuration refused: {message}"])
        for row, (_, message) in INVALID_TEXTS.items()
    }
    valid = dict.fromkeys(EMPTY, Checked(True, []))
    assert checked(outermost_envoy, texts) == valid | refused
