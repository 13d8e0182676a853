"""Header sets for the differential tests: valid ones by each format's grammar, and broken ones.

Values have no white space at their ends: HTTP takes it off before any propagator sees them.
"""

import random
import re
from collections.abc import Callable

Headers = list[tuple[str, str]]

_BROKEN_SHARE = 0.6
_SPOILERS = "0189afAFgZ -_.,;:=@%*/?+\t"


def header_sets(formats: list[str], count: int, random: random.Random) -> list[Headers]:
    """Returns sets in which each of the formats comes, whole or broken, or now and then not at all."""
    sets = []
    for _ in range(count):
        headers = []
        for name in formats:
            if len(formats) == 1 or random.random() < 0.8:
                headers += broken(VALID[name](random), random)
        sets.append(headers)
    return sets


def broken(headers: Headers, random: random.Random) -> Headers:
    """Returns the headers with up to three faults, or none."""
    if random.random() < _BROKEN_SHARE:
        for _ in range(random.choice([1, 1, 1, 2, 3])):
            headers = random.choice(_FAULTS)(headers, random)
    return [(name, value.strip(" \t")) for name, value in headers]


def tracecontext(random: random.Random) -> Headers:
    version = random.choice(["00"] * 8 + ["01", "cc"])
    more = random.choice(["", "-x", "-1234"]) if version != "00" else ""
    flags = random.choice(["00", "01", "02", "03", "ff", "f0", "81"])
    traceparent = f"{version}-{_hex(32, random)}-{_hex(16, random)}-{flags}{more}"
    return [("traceparent", traceparent), *(("tracestate", line) for line in _state_lines(random))]


def b3(random: random.Random) -> Headers:
    forms = random.choice([[_b3_single], [_b3_multi], [_b3_single, _b3_multi]])
    return [line for form in forms for line in form(random)]


def jaeger(random: random.Random) -> Headers:
    trace_id = _hex(random.choice([32, 32, 16, 31, 15, 3]), random)
    span_id = _hex(random.choice([16, 16, 15, 1]), random)
    parent_id = random.choice(["0", _hex(16, random), ""])
    flags = random.choice(["0", "1", "2", "3", "00", "01", "5", "ff"])
    colon = random.choice([":", ":", ":", "%3A", "%3a"])
    return [("uber-trace-id", colon.join([trace_id, span_id, parent_id, flags]))]


def xray(random: random.Random) -> Headers:
    pairs = [f"Root=1-{_hex(8, random)}-{_hex(24, random)}"]
    if random.random() < 0.9:
        pairs.append(f"Parent={_hex(16, random)}")
    if random.random() < 0.9:
        pairs.append(f"Sampled={random.choice('011?')}")
    if random.random() < 0.3:
        itself = f"Self=1-{_hex(8, random)}-{_hex(24, random)}"
        pairs.append(random.choice([itself, "Lineage=a87bd80c:0", "X="]))
    random.shuffle(pairs)
    return [("x-amzn-trace-id", random.choice([";", "; ", ";"]).join(pairs))]


def ottrace(random: random.Random) -> Headers:
    headers = [
        ("ot-tracer-traceid", _hex(random.choice([16, 16, 32, 32, 15, 30, 1]), random)),
        ("ot-tracer-spanid", _hex(random.choice([16, 16, 16, 15, 2]), random)),
    ]
    if random.random() < 0.9:
        headers.append(("ot-tracer-sampled", random.choice(["true", "false", "1", "0"])))
    return headers


VALID: dict[str, Callable[[random.Random], Headers]] = {
    "tracecontext": tracecontext,
    "b3": b3,
    "jaeger": jaeger,
    "xray": xray,
    "ottrace": ottrace,
}


def _state_lines(random: random.Random) -> list[str]:
    if random.random() < 0.03:
        return [",".join(f"v{number}=1" for number in range(random.choice([31, 32, 33, 40])))]
    keys = iter(random.sample(range(1000), 50))
    lines = []
    for _ in range(random.choice([0, 0, 1, 1, 2, 3])):
        separator = random.choice([",", ",", ", ", " ,\t", ",,"])
        count = random.choice([1, 2, 2, 3, 5, 12])
        lines.append(separator.join(_state_member(next(keys), random) for _ in range(count)))
    return lines


def _state_member(number: int, random: random.Random) -> str:
    of_level_2 = [f"{number}", f"k{number}@@", f"a{number}@0"]
    key = random.choice([f"v{number}", f"a-_*/{number}", f"{number}t@sys"])
    key = random.choice(of_level_2) if random.random() < 0.05 else key
    value = random.choice(["1", "a b", "t61rcWkgMzE", "!~;:?", "x" * random.randint(1, 40)])
    return f"{key}={value}"


def _b3_single(random: random.Random) -> Headers:
    state = random.choice("01d")
    if random.random() < 0.1:
        return [("b3", state)]
    fields = [_hex(random.choice([16, 32]), random), _hex(16, random)]
    if random.random() < 0.8:
        fields.append(state)
        if random.random() < 0.3:
            fields.append(_hex(16, random))
    return [("b3", "-".join(fields))]


def _b3_multi(random: random.Random) -> Headers:
    headers = []
    if random.random() < 0.9:
        headers += [
            ("x-b3-traceid", _hex(random.choice([16, 32]), random)),
            ("x-b3-spanid", _hex(16, random)),
        ]
    if random.random() < 0.7:
        headers.append(("x-b3-sampled", random.choice(["0", "1", "1", "true", "false", "True", "d"])))
    if random.random() < 0.3:
        headers.append(("x-b3-flags", random.choice(["1", "1", "0", "2"])))
    if random.random() < 0.2:
        headers.append(("x-b3-parentspanid", _hex(16, random)))
    return headers


def _hex(digits: int, random: random.Random) -> str:
    # Neither empty nor all zeros, and of its full width.
    return f"{random.randrange(1 << 4 * (digits - 1), 1 << 4 * digits):x}"


def _changed_line(change: Callable[[str, random.Random], str]) -> Callable[[Headers, random.Random], Headers]:
    def fault(headers: Headers, random: random.Random) -> Headers:
        if not headers:
            return headers
        index = random.randrange(len(headers))
        name, value = headers[index]
        return [*headers[:index], (name, change(value, random)), *headers[index + 1 :]]

    return fault


def _cut(value: str, random: random.Random) -> str:
    at = random.randint(0, len(value))
    return value[:at] + value[at + random.choice([1, 1, 2, 8]) :]


def _insert(value: str, random: random.Random) -> str:
    at = random.randint(0, len(value))
    return value[:at] + random.choice(_SPOILERS) + value[at:]


def _replace(value: str, random: random.Random) -> str:
    at = random.randint(0, len(value))
    return value[:at] + random.choice(_SPOILERS) + value[at + 1 :]


def _zeros(value: str, random: random.Random) -> str:
    at = random.randint(0, len(value))
    return value[:at] + re.sub("[1-9a-f]", "0", value[at:])


def _without_line(headers: Headers, random: random.Random) -> Headers:
    gone = random.randrange(len(headers) or 1)
    return headers[:gone] + headers[gone + 1 :]


def _repeated_line(headers: Headers, random: random.Random) -> Headers:
    if not headers:
        return headers
    name, value = random.choice(headers)
    return [*headers, (name, random.choice([lambda value, _: value, _replace])(value, random))]


_FAULTS = [
    _changed_line(_cut),
    _changed_line(_insert),
    _changed_line(_replace),
    _changed_line(_replace),
    _changed_line(_zeros),
    _changed_line(lambda value, _: value.upper()),
    _changed_line(lambda value, random: value[: random.randint(0, len(value))]),
    _changed_line(lambda value, random: value + random.choice(["", "-", ":", ";", ","]) + value),
    _without_line,
    _repeated_line,
]
