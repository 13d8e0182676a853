"""W3C Trace Context, Level 2, through sidecars and an application that only copies headers.

Each of CASES has the headers of a request, and those that the requests of the application must have
after its sidecar. The cases are those of the W3C working group's test suite, which tests a service
that calls back: https://github.com/w3c/trace-context/tree/main/test
"""

import http.client
import json
import re
from dataclasses import dataclass

import pytest

from conftest import lane

LANES = {"ratio-1": lane(1), "all-recorded": lane(1, rules=[{"name": "all", "decision": "force"}])}
TRACE_ID = "12345678901234567890123456789012"
PARENT_ID = "1234567890123456"
PARENT = f"00-{TRACE_ID}-{PARENT_ID}"
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

UNSAMPLED = [("traceparent", f"{PARENT}-00")]
KEY = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")


@dataclass(frozen=True)
class Sent:
    """A request's lines, and what must hold of the requests that follow from it.

    `goes_on` is whether the trace does; else there must be a fresh one. `state` is the list that
    goes on, member by member; None: a fresh trace, so there is none.
    """

    lines: list[tuple[str, str]]
    goes_on: bool = True
    state: tuple[str, ...] = ()


def parent(value: str, name: str = "traceparent") -> Sent:
    return Sent([(name, value)])


def refused(value: str, name: str = "traceparent") -> Sent:
    return Sent([(name, value)], goes_on=False)


def state(*lines: str, name: str = "tracestate", kept: tuple[str, ...] = ()) -> Sent:
    return Sent([*UNSAMPLED, *((name, line) for line in lines)], state=kept)


def members(first: int, last: int) -> str:
    return ",".join(f"bar{number:02}={number:02}" for number in range(first, last + 1))


CASES = {
    "neither header": [Sent([], goes_on=False)],
    "traceparent alone": [parent(f"{PARENT}-01")],
    "two traceparent lines": [
        Sent(
            [("traceparent", f"00-{TRACE_ID[:-1]}1-{PARENT_ID}-01"), ("traceparent", f"{PARENT}-01")],
            goes_on=False,
        ),
        Sent([("traceparent", f"{PARENT}-01")] * 2, goes_on=False),
    ],
    "traceparent by another name": [
        refused(f"{PARENT}-01", "trace-parent"),
        refused(f"{PARENT}-01", "trace.parent"),
    ],
    "traceparent in any case": [
        parent(f"{PARENT}-01", name) for name in ("TraceParent", "TrAcEpArEnT", "TRACEPARENT")
    ],
    "version 00 has nothing behind its flags": [
        refused(f"{PARENT}-01{rest}") for rest in (".", "-", "-what-the-future-will-be-like")
    ],
    "a later version may have more": [
        parent(f"cc{PARENT[2:]}-01"),
        parent(f"cc{PARENT[2:]}-01-what-the-future-will-be-like"),
        parent(f"01{PARENT[2:]}-01"),
        refused(f"cc{PARENT[2:]}-01.what-the-future-will-be-like"),
    ],
    "version ff": [refused(f"ff{PARENT[2:]}-01")],
    "version with other characters": [
        refused(f"{version}{PARENT[2:]}-01") for version in (".0", "0.", "CC", "+0")
    ],
    "version too long": [refused(f"{version}{PARENT[2:]}-01") for version in ("000", "0000")],
    "version too short": [refused(f"0{PARENT[2:]}-01")],
    "trace id of zeros": [refused(f"00-{'0' * 32}-{PARENT_ID}-01")],
    "trace id with other characters": [
        refused(f"00-{trace_id}-{PARENT_ID}-01")
        for trace_id in (f".{TRACE_ID[1:]}", f"{TRACE_ID[:-1]}.", f"A{TRACE_ID[1:]}", f"+{TRACE_ID[1:]}")
    ],
    "trace id too long": [refused(f"00-{TRACE_ID}3-{PARENT_ID}-01")],
    "trace id too short": [refused(f"00-{TRACE_ID[:-1]}-{PARENT_ID}-01")],
    "parent id of zeros": [refused(f"00-{TRACE_ID}-{'0' * 16}-01")],
    "parent id with other characters": [
        refused(f"00-{TRACE_ID}-{parent_id}-01")
        for parent_id in (f".{PARENT_ID[1:]}", f"{PARENT_ID[:-1]}.", f"A{PARENT_ID[1:]}")
    ],
    "parent id too long": [refused(f"{PARENT}7-01")],
    "parent id too short": [refused(f"{PARENT[:-1]}-01")],
    "flags with other characters": [refused(f"{PARENT}-{flags}") for flags in (".0", "0.", "0A", "+1")],
    "flags too long": [refused(f"{PARENT}-001")],
    "flags too short": [refused(f"{PARENT}-1")],
    "white space around traceparent": [
        parent(f"{before}{PARENT}-01{after}")
        for before, after in [(" ", ""), ("\t", ""), ("", " "), ("", "\t"), ("\t ", " \t")]
    ],
    "tracestate without traceparent": [
        Sent([("tracestate", "foo=1")], goes_on=False),
        Sent([("tracestate", "foo=1,bar=2")], goes_on=False),
    ],
    "tracestate with an invalid traceparent": [
        Sent([("traceparent", PARENT), ("tracestate", "foo=1")], goes_on=False)
    ],
    "both headers": [state("foo=1,bar=2", kept=("foo=1", "bar=2"))],
    "tracestate by another name": [state("foo=1", name="trace-state"), state("foo=1", name="trace.state")],
    "tracestate in any case": [
        state("foo=1", name=name, kept=("foo=1",)) for name in ("TraceState", "TrAcEsTaTe", "TRACESTATE")
    ],
    "empty tracestate lines": [
        state(""),
        state("foo=1", "", kept=("foo=1",)),
        state("", "foo=1", kept=("foo=1",)),
        state("foo=1,,bar=2,", kept=("foo=1", "bar=2")),
    ],
    "several tracestate lines are one list": [
        state(
            "foo=1,bar=2", "rojo=1,congo=2", "baz=3", kept=("foo=1", "bar=2", "rojo=1", "congo=2", "baz=3")
        )
    ],
    # Either all of them or one may go on; ours is the first.
    "a key that comes twice": [
        state("foo=1,foo=1", kept=("foo=1",)),
        state("foo=1,foo=2", kept=("foo=1",)),
        state("foo=1", "foo=1", kept=("foo=1",)),
        state("foo=1", "foo=2", kept=("foo=1",)),
        state("foo=1,bar=2", "foo=2,baz=3", kept=("foo=1", "bar=2", "baz=3")),
    ],
    "every character that is allowed": [
        state(f"{KEY}={VALUE}", kept=(f"{KEY}={VALUE}",)),
        state(f"{KEY}@a-z0-9_-*/={VALUE}", kept=(f"{KEY}@a-z0-9_-*/={VALUE}",)),
    ],
    "white space around members": [
        state("foo=1 \t , \t bar=2, \t baz=3", kept=("foo=1", "bar=2", "baz=3")),
        state("foo=1\t \t,\t \tbar=2,\t \tbaz=3", kept=("foo=1", "bar=2", "baz=3")),
        *(state(line, kept=("foo=1",)) for line in (" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t")),
    ],
    "keys with other characters": [state(f"{key}=1") for key in ("foo ", "FOO", "foo.bar", "fo\u00f6")],
    "a key that begins with an @": [state("@foo=1,bar=2"), state("bar=2,@=1")],
    "a key that begins with a digit or has an @": [
        state("0tenant@system=1", kept=("0tenant@system=1",)),
        state("0foo=1,bar=2", kept=("0foo=1", "bar=2")),
        state("foo@=1,foo@@bar=2,foo@bar@baz=3", kept=("foo@=1", "foo@@bar=2", "foo@bar@baz=3")),
    ],
    "as many members as may be": [
        state(
            members(1, 10),
            members(11, 20),
            members(21, 30),
            members(31, 32),
            kept=tuple(members(1, 32).split(",")),
        ),
        state(members(1, 10), members(11, 20), members(21, 30), members(31, 33)),
    ],
    "keys as long as may be": [
        state("foo=1", f"{'z' * 256}=1", kept=("foo=1", f"{'z' * 256}=1")),
        state("foo=1", f"{'z' * 257}=1"),
        state("foo=1", f"{'t' * 241}@{'v' * 14}=1", kept=("foo=1", f"{'t' * 241}@{'v' * 14}=1")),
        state("foo=1", f"{'t' * 242}@v=1", kept=("foo=1", f"{'t' * 242}@v=1")),
        state("foo=1", f"t@{'v' * 15}=1", kept=("foo=1", f"t@{'v' * 15}=1")),
        state("foo=1", f"{'t' * 242}@{'v' * 14}=1"),
    ],
    "values with other characters": [state("foo=bar=baz"), state("foo=,bar=3"), state("foo=1,bar")],
}


@pytest.mark.parametrize("lane", ["all-recorded", "ratio-1"])
def test_context_goes_on_or_is_refused(envoys, lane):
    for case, sent in [(case, sent) for case, requests in CASES.items() for sent in requests]:
        (headers,) = callbacks(envoys, lane, sent.lines)
        trace_id, parent_id, _ = traceparent(headers)
        if sent.goes_on:
            assert trace_id == TRACE_ID, (case, sent)
        else:
            assert trace_id not in str(sent.lines), (case, sent)
        assert list_members(headers) == list(sent.state), (case, sent)
        # A request that is recorded passes on the ids of this hop's span.
        if lane == "all-recorded":
            assert parent_id != PARENT_ID, (case, sent)


@pytest.mark.parametrize(
    ("lines", "goes_on"),
    [
        ([("traceparent", f"{PARENT}-01")], True),
        ([], False),
        ([("traceparent", f"00-{'0' * 32}-{PARENT_ID}-01")], False),
    ],
    ids=["with a parent", "without a parent", "with an invalid parent"],
)
def test_each_of_several_callbacks_has_a_parent_id_of_its_own(envoys, lines, goes_on):
    contexts = [traceparent(headers) for headers in callbacks(envoys, "ratio-1", lines, calls=3)]

    trace_ids = {trace_id for trace_id, _, _ in contexts}
    assert len(trace_ids) == 1
    assert (trace_ids == {TRACE_ID}) is goes_on
    assert len({parent_id for _, parent_id, _ in contexts}) == 3


@pytest.mark.parametrize(
    ("sent", "recorded", "followed"),
    [
        ("00", "01", "00"),
        ("01", "01", "01"),
        ("02", "03", "02"),
        ("03", "03", "03"),
        ("fd", "01", "01"),
        ("fe", "03", "02"),
    ],
)
def test_random_flag_goes_on_and_unknown_flags_do_not(envoys, sent, recorded, followed):
    lines = [("traceparent", f"{PARENT}-{sent}")]
    (by_rule,) = callbacks(envoys, "all-recorded", lines)
    (by_parent,) = callbacks(envoys, "ratio-1", lines)

    assert traceparent(by_rule)[::2] == (TRACE_ID, recorded)
    assert traceparent(by_parent)[::2] == (TRACE_ID, followed)


def test_fresh_trace_has_no_flag_that_older_readers_refuse(envoys):
    (headers,) = callbacks(envoys, "ratio-1", [])

    assert traceparent(headers)[2] == "01"


def callbacks(envoys, lane: str, lines: list[tuple[str, str]], calls: int = 1) -> list[list[tuple[str, str]]]:
    """Sends the lines as they are, and returns those of each request that the application made."""
    connection = http.client.HTTPConnection("127.0.0.1", envoys.lane(lane).frontend_inbound, timeout=20)
    try:
        connection.putrequest("GET", f"/a?calls={calls}")
        for name, value in lines:
            connection.putheader(name, value.encode())
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 200, lines
        body = json.loads(answer.read())
    finally:
        connection.close()
    return [
        [(name, value) for name, value in answer["headers"]]
        for answer in [*body.get("earlier", []), body["next"]]
    ]


def traceparent(headers: list[tuple[str, str]]) -> tuple[str, str, str]:
    """Returns trace id, parent id and flags of the only traceparent."""
    (value,) = (value for name, value in headers if name == "traceparent")
    match = TRACEPARENT.fullmatch(value)
    assert match, value
    return match.groups()


def list_members(headers: list[tuple[str, str]]) -> list[str]:
    """Returns the members of all tracestate lines; a line that goes on has no empty one."""
    lines = [value for name, value in headers if name == "tracestate"]
    return [member.strip() for line in lines for member in line.split(",")]
