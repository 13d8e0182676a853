"""What sidespan extracts, beside what OpenTelemetry's SDKs of Python and Node extract.

Thousands of header sets, broken ones among them, go through the module (`sidespan explain`) and
through both SDKs. They agree on trace id, span id, sampled and tracestate, or the set is one of a
class of DIFFERENCES that says why ours is right. So do they on the values of baggage, which the
filter records by custom tags.
"""

import json
import os
import random
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

import tools
from differential import baggage, generator
from differential.differences import DIFFERENCES
from differential.generator import Headers

HERE = Path(__file__).parent / "differential"
ROOT = Path(__file__).parents[1]
SEED = 20260101
SETS_A_CASE = 2000
INJECTED_SETS = 300
BAGGAGE_SETS = 3000

Context = dict | None


@pytest.fixture(scope="module", params=DIFFERENCES)
def case(request, tmp_path_factory) -> tuple[str, list[Headers], list[Context]]:
    """Formats, header sets that have them, and what the filter extracts of each."""
    formats = request.param.split("+")
    sets = generator.header_sets(formats, SETS_A_CASE, random.Random(SEED))
    ours = our_contexts(formats, sets, tmp_path_factory.mktemp("explain"))
    return request.param, sets, ours


@pytest.fixture(scope="module", params=["tracecontext", "b3", "b3multi", "jaeger", "xray", "ottrace"])
def injected(request, tmp_path_factory) -> tuple[str, list[Headers], list[dict]]:
    """A format, valid traceparents, and the headers that the filter writes for them in that format."""
    source = random.Random(SEED)
    sets = [generator.tracecontext(source)[:1] for _ in range(INJECTED_SETS)]
    configuration = {
        "propagation": {"extract": ["tracecontext"], "inject": [request.param]},
        "exporter": {"otlp": {"cluster": "collector"}},
    }
    return request.param, sets, explained(configuration, sets, tmp_path_factory.mktemp("explain"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[list[Headers], list[dict]]:
    """Baggage headers, and the values by key that the filter records of each, None where it has none."""
    missing = "no such member"
    tags = [{"tag": key, "baggage": {"name": key, "default_value": missing}} for key in baggage.KEYS]
    configuration = {
        "custom_tags": tags,
        "attribute_limits": {"attribute_value_length_limit": 16384},
        "exporter": {"otlp": {"cluster": "collector"}},
    }
    sets = baggage.header_sets(BAGGAGE_SETS, random.Random(SEED))
    answers = explained(configuration, sets, tmp_path_factory.mktemp("explain"))
    found = []
    for answer in answers:
        [span] = answer["spans"]
        # An empty value makes no tag.
        values = {key: span["attributes"].get(key, "") for key in baggage.KEYS}
        found.append({key: None if value == missing else value for key, value in values.items()})
    return sets, found


@pytest.mark.parametrize("sdk", ["python", "node"])
def test_what_is_extracted_is_what_the_sdks_extract_or_the_set_says_why_not(case, sdk):
    formats, sets, ours = case
    theirs = SDKS[sdk](formats.split("+"), sets)
    known = [difference for difference in DIFFERENCES[formats] if sdk in difference.sdks]

    unexplained, seen = [], set()
    for headers, our, their in zip(sets, ours, theirs, strict=True):
        fields = differing(our, their)
        applying = [difference for difference in known if difference.applies(headers)]
        explained = [difference for difference in applying if fields & set(difference.fields)]
        if fields - {field for difference in explained for field in difference.fields}:
            unexplained.append({"headers": headers, "ours": our, sdk: their})
        seen |= {difference.name for difference in explained}
    assert unexplained == [], f"seed {SEED}: {len(unexplained)} sets, the first of them {unexplained[:3]}"
    # Both formats at once are fewer sets of each.
    if "+" not in formats:
        assert seen == {difference.name for difference in known}
    assert sum(our is not None for our in ours) > SETS_A_CASE / 3, "too few sets have a context"


def on_one_line(text: str | None) -> str | None:
    """Returns what a tag records of a text: characters that have no place in one line become U+FFFD."""
    return text and re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "\ufffd", text)


@pytest.mark.parametrize("sdk", ["python", "node"])
def test_baggage_has_the_values_that_the_sdks_extract_or_the_member_says_why_not(recorded, sdk):
    sets, ours = recorded
    theirs = SDKS[sdk](["baggage"], sets)
    known = [difference for difference in baggage.DIFFERENCES if sdk in difference.sdks]

    unexplained, seen, same = [], set(), 0
    for headers, our, their in zip(sets, ours, theirs, strict=True):
        for key, value in our.items():
            expected = on_one_line(their.get(key))
            if value == expected:
                same += value is not None
                continue
            members = baggage.deciding(headers, key)
            explained = {difference.name for difference in known if any(map(difference.applies, members))}
            if not explained:
                unexplained.append({"headers": headers, "key": key, "ours": value, sdk: expected})
            seen |= explained
    assert unexplained == [], f"seed {SEED}: {len(unexplained)} values, the first {unexplained[:3]}"
    assert seen == {difference.name for difference in known}
    assert same > BAGGAGE_SETS / 2, "too few values are the same"


@pytest.mark.parametrize("sdk", ["python", "node"])
def test_what_is_injected_is_what_the_sdks_extract(injected, sdk):
    inject, sets, answers = injected
    found = SDKS[sdk]([inject.removesuffix("multi")], [upstream(answer) for answer in answers])

    for headers, answer, their in zip(sets, answers, found, strict=True):
        _, trace_id, parent_id, flags, *_ = headers[0][1].split("-")
        sampled = int(flags, 16) & 1 == 1
        # A sampled request is recorded, and passes on the id of its own span.
        span_id = answer["spans"][0]["span_id"] if sampled else parent_id
        expected = {"trace_id": trace_id, "span_id": span_id, "sampled": sampled, "trace_state": []}
        assert their == expected, (inject, headers, answer["upstream"])


def python_contexts(formats: list[str], sets: list[Headers]) -> list[Context]:
    python = tools.python_with(HERE / "python" / "requirements.txt")
    return _answers([python, HERE / "python" / "extract.py"], formats, sets, {})


def node_contexts(formats: list[str], sets: list[Headers]) -> list[Context]:
    node, packages = tools.node_packages(HERE / "node")
    return _answers([node, HERE / "node" / "extract.js"], formats, sets, {"NODE_PATH": str(packages)})


SDKS = {"python": python_contexts, "node": node_contexts}


def our_contexts(formats: list[str], sets: list[Headers], folder: Path) -> list[Context]:
    """Returns what the filter extracts: a parent that it follows, or that leaves the decision to it.

    Each set is sent twice: ids that differ are the filter's own.
    """
    configuration = {
        "propagation": {"extract": formats, "inject": ["tracecontext"]},
        "exporter": {"otlp": {"cluster": "collector"}},
    }
    answers = explained(configuration, [*sets, *sets], folder)
    return [_parent(*pair) for pair in zip(answers[: len(sets)], answers[len(sets) :], strict=True)]


def explained(configuration: dict, sets: list[Headers], folder: Path) -> list[dict]:
    """Returns what `sidespan explain` says of each set."""
    file = folder / "plugin.json"
    file.write_text(json.dumps(configuration))
    requests = "".join(json.dumps({"headers": headers}) + "\n" for headers in sets)
    answers = _run([sidespan(), "explain", "--json", "--config", str(file)], requests, {})
    return [json.loads(line) for line in answers.splitlines()]


def upstream(answer: dict) -> Headers:
    lines = ((line["name"], line["value"]) for line in answer["upstream"])
    return [(name, value) for name, value in lines if not name.startswith(":")]


@cache
def sidespan() -> Path:
    subprocess.run(["cargo", "build", "-q", "-p", "sidespan-harness", "--locked"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "sidespan"


def _parent(one: dict, other: dict) -> Context:
    span, again = (next(iter(answer["spans"]), {}) for answer in (one, other))
    lines = [value for name, value in upstream(one) if name == "tracestate"]
    trace_state = [member for line in lines for member in line.split(",")]
    if span:
        if not span.get("parent_span_id"):
            return None
        assert (span["trace_id"], span["parent_span_id"]) == (again["trace_id"], again["parent_span_id"])
        sampled = True if one["decision"] == "parent" else None
        ids = {"trace_id": span["trace_id"], "span_id": span["parent_span_id"]}
        return ids | {"sampled": sampled, "trace_state": trace_state}
    ours, again = (dict(upstream(answer))["traceparent"] for answer in (one, other))
    if ours != again:
        return None
    _, trace_id, span_id, _ = ours.split("-")
    return {"trace_id": trace_id, "span_id": span_id, "sampled": False, "trace_state": trace_state}


def _answers(command: list, formats: list[str], sets: list[Headers], env: dict) -> list[Context]:
    lines = "".join(json.dumps({"formats": formats, "headers": headers}) + "\n" for headers in sets)
    answers = _run(command, lines, env).splitlines()
    assert len(answers) == len(sets)
    return [json.loads(answer) for answer in answers]


def _run(command: list, lines: str, env: dict) -> str:
    done = subprocess.run(
        command, input=lines, capture_output=True, text=True, env=os.environ | env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def differing(ours: Context, theirs: Context) -> set[str]:
    """Returns the fields in which two contexts differ; `context` where one side has none."""
    if ours is None or theirs is None:
        return set() if ours is theirs else {"context"}
    return {field for field in ours if ours[field] != theirs[field]}
