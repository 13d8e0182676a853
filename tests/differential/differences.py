"""Classes of header sets on which an SDK reads something else than the filter, and why ours is right."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from .generator import Headers

ALL_FIELDS = ("context", "trace_id", "span_id", "sampled", "trace_state")


@dataclass(frozen=True)
class Difference:
    """A class of header sets on which SDKs read something else.

    `applies` says of a set alone, by its headers, whether it is of the class; `fields` what may then
    differ: `context` where one side has none, else the fields of a context.
    """

    name: str
    sdks: tuple[str, ...]
    applies: Callable[[Headers], bool]
    fields: tuple[str, ...]
    why: str


def values(headers: Headers, name: str) -> list[str]:
    return [value for known, value in headers if known == name]


def first(headers: Headers, name: str) -> str | None:
    return next(iter(values(headers, name)), None)


def members(headers: Headers) -> list[tuple[str, str, str]]:
    """Returns key, equals sign and value of what stands between the commas of all tracestate lines."""
    parts = (part.strip(" \t") for line in values(headers, "tracestate") for part in line.split(","))
    return [part.partition("=") for part in parts if part]


def is_member(key: str, equals: str, value: str) -> bool:
    valid_value = re.fullmatch(r"[ -+\--<>-~]{0,255}[!-+\--<>-~]", value)
    return bool(equals and re.fullmatch(r"[a-z0-9][a-z0-9_\-*/@]{0,255}", key) and valid_value)


def is_key_of_level_1(key: str) -> bool:
    character = r"[a-z0-9_\-*/]"
    form = rf"[a-z]{character}{{0,255}}|[a-z0-9]{character}{{0,240}}@[a-z]{character}{{0,13}}"
    return bool(re.fullmatch(form, key))


def has_keys_twice(headers: Headers) -> bool:
    keys = [key for key, _, _ in members(headers)]
    return len(set(keys)) < len(keys)


TRACECONTEXT = [
    Difference(
        "several traceparent lines",
        ("python", "node"),
        lambda headers: len(values(headers, "traceparent")) > 1,
        ALL_FIELDS,
        "RFC 9110, 5.3: lines of one name are one value with commas between, which is no traceparent; the "
        "SDKs take the first line. The working group's suite wants a fresh trace.",
    ),
    Difference(
        "a key of Level 2",
        ("python", "node"),
        lambda headers: any(not is_key_of_level_1(key) for key, _, _ in members(headers)),
        ("trace_state",),
        "Trace Context Level 2, 3.3.1.3.1: a key may begin with a digit and have any @; the SDKs read "
        "Level 1.",
    ),
    Difference(
        "a member that breaks the grammar",
        ("node",),
        lambda headers: any(not is_member(*member) for member in members(headers)),
        ("trace_state",),
        "Trace Context Level 2, 4.3: who cannot parse tracestate may discard it, all or the one entry; the "
        "working group's suite wants it discarded whole, and Node leaves out the entry.",
    ),
    Difference(
        "a key again",
        ("python", "node"),
        has_keys_twice,
        ("trace_state",),
        "Trace Context Level 2, 3.3.1.3: a key comes once, the latest first, so the first is kept; Python "
        "discards all, Node keeps the last.",
    ),
    Difference(
        "more than 512 characters",
        ("python", "node"),
        lambda headers: sum(len("".join(member)) + 1 for member in members(headers)) > 513,
        ("trace_state",),
        "Trace Context Level 2, 3.3.1.5: what is over 512 characters may be cut, entries of over 128 "
        "characters first, then from the end; Python keeps 8,192, Node leaves out what does not fit.",
    ),
    Difference(
        "more than 32 members",
        ("node",),
        lambda headers: len(members(headers)) > 32,
        ("trace_state",),
        "Trace Context Level 2, 3.3.1.1: there are at most 32 list members; a list of more is not one, and "
        "the suite wants it discarded whole.",
    ),
]

B3_SINGLE = re.compile("(?:[0-9a-f]{16}){1,2}-[0-9a-f]{16}(?:-([01d])(?:-[0-9a-f]{16})?)?")


def leaves_b3_open(headers: Headers) -> bool:
    single = B3_SINGLE.fullmatch(first(headers, "b3") or "")
    if single:
        return single[1] is None
    return first(headers, "x-b3-sampled") is None and first(headers, "x-b3-flags") != "1"


def is_b3_single_broken(headers: Headers) -> bool:
    single = first(headers, "b3")
    if not single or single in ("0", "1", "d"):
        return False
    zeros = re.match("0+-", single) or "-" + "0" * 16 in single[:49]
    return bool(zeros) or not B3_SINGLE.fullmatch(single)


def has_b3_ids_of_old_clients(headers: Headers) -> bool:
    trace_id, span_id = first(headers, "x-b3-traceid"), first(headers, "x-b3-spanid")
    ids = re.match("([^-]*)-([^-]*)", first(headers, "b3") or "")
    return (
        any(re.search("[A-F]", text or "") for text in (trace_id, span_id, first(headers, "b3")))
        or any(len(text or "") not in (0, 16, 32) for text in (trace_id, ids and ids[1]))
        or any(len(text or "") not in (0, 16) for text in (span_id, ids and ids[2]))
    )


B3 = [
    Difference(
        "a decision that is left open",
        ("python", "node"),
        leaves_b3_open,
        ("sampled",),
        "B3, sampling state: an absent state defers the decision to the receiver, so the filter decides; "
        "the SDKs have no such state, and read it as sampled or as not.",
    ),
    Difference(
        "ids in capitals, or without their leading zeros",
        ("python", "node"),
        has_b3_ids_of_old_clients,
        ALL_FIELDS,
        "B3, identifiers: 16 or 32 lower-hex characters. Old clients write others, and Envoy's own Zipkin "
        "tracer reads them; Node fills up trace ids alone.",
    ),
    Difference(
        "a trace id without a span id",
        ("python", "node"),
        lambda headers: bool(first(headers, "x-b3-traceid")) and first(headers, "x-b3-spanid") is None,
        ALL_FIELDS,
        "The trace has no span yet, as from a load balancer: brave keeps its id too.",
    ),
    Difference(
        "a single header that breaks the grammar",
        ("python", "node"),
        is_b3_single_broken,
        ALL_FIELDS,
        "B3, single header: {trace id}-{span id}-{state}-{parent}, the last two optional. Python ignores "
        "what follows a valid beginning, and Node also what precedes it; the filter ignores the whole broken "
        "header, and reads the other B3 headers if they are valid.",
    ),
    Difference(
        "a state alone beside the other headers",
        ("python", "node"),
        lambda headers: first(headers, "b3") in ("0", "1", "d") and len(headers) > 1,
        ALL_FIELDS,
        "B3, single header: a state alone has no ids; those of the other headers are as good as any. The "
        "SDKs do not look at them.",
    ),
    Difference(
        "debug as a sampled state of its own header",
        ("node",),
        lambda headers: first(headers, "x-b3-sampled") == "d",
        ALL_FIELDS,
        "B3, debug flag: debug is `d` in the single header; senders write it into the other too, and Python "
        "reads it there.",
    ),
    Difference(
        "a state of another word",
        ("python", "node"),
        lambda headers: first(headers, "x-b3-sampled") not in (None, "0", "1", "d", "true", "false", "True"),
        ("context", "sampled"),
        "B3, sampling state: 1 or 0, and true and false before that was fixed. Python reads all else as 0; "
        "true and false in any case are what they say.",
    ),
]



def jaeger_fields(headers: Headers) -> re.Match | None:
    value = unquote(first(headers, "uber-trace-id") or "")
    return re.fullmatch("([0-9a-fA-F]{1,32}):([0-9a-fA-F]{1,16}):[^:]*:([0-9a-fA-F]{1,2})", value)


def is_jaeger_debug_alone(headers: Headers) -> bool:
    fields = jaeger_fields(headers)
    return bool(fields) and int(fields[3], 16) & 3 == 2


JAEGER = [
    Difference(
        "ids in capitals",
        ("node",),
        lambda headers: bool(re.search("[A-F]", first(headers, "uber-trace-id") or "")),
        ("trace_id", "span_id"),
        "Old clients write capitals. Both read them; Node goes on in capitals.",
    ),
    Difference(
        "percent-encoded",
        ("python",),
        lambda headers: "%" in (first(headers, "uber-trace-id") or ""),
        ("context",),
        "Jaeger's client libraries, trace span identity: the value is URL-encoded by many senders; Node "
        "decodes it too.",
    ),
    Difference(
        "a percent sign that encodes nothing",
        ("node",),
        lambda headers: bool(re.search("%(?![0-9a-fA-F]{2})", first(headers, "uber-trace-id") or "")),
        ("context",),
        "It can only be in the field of the parent span id, which is deprecated and ignored.",
    ),
    Difference(
        "debug without sampled",
        ("python", "node"),
        is_jaeger_debug_alone,
        ("sampled",),
        "Jaeger's client libraries, trace span identity: debug comes with sampled, and asks not to drop the "
        "trace; the SDKs read the sampled bit alone.",
    ),
    Difference(
        "a value that breaks the grammar",
        ("python", "node"),
        lambda headers: not jaeger_fields(headers),
        ("context",),
        "Jaeger's client libraries, trace span identity: four fields, ids in base16 of 32 and 16 digits at "
        "most, flags of one byte. Python reads all that its int() reads, Node any flags.",
    ),
]


def leaves_xray_open(headers: Headers) -> bool:
    states = [value for name, _, value in xray_pairs(headers) if name == "Sampled"]
    return states in ([], ["?"])


def xray_pairs(headers: Headers) -> list[tuple[str, str, str]]:
    pairs = (pair.strip() for pair in (first(headers, "x-amzn-trace-id") or "").split(";"))
    return [pair.partition("=") for pair in pairs if pair]


def is_xray_broken(headers: Headers) -> bool:
    forms = {"Root": "1-[0-9a-f]{8}-[0-9a-f]{24}", "Parent": "[0-9a-f]{16}", "Sampled": "[01?]"}
    pairs = xray_pairs(headers)
    names = [name for name, _, _ in pairs]
    twice = any(names.count(name) > 1 for name in forms)
    return twice or any(
        not equals or not re.fullmatch(forms.get(name, ".*"), value) for name, equals, value in pairs
    )


XRAY = [
    Difference(
        "a decision that is left open",
        ("python", "node"),
        leaves_xray_open,
        ("context", "sampled"),
        "X-Ray, tracing header: `Sampled=?` asks for a decision, and so does none. Python knows no `?` and "
        "reads a missing one as 0, Node refuses both.",
    ),
    Difference(
        "a header that breaks the grammar",
        ("python", "node"),
        is_xray_broken,
        ("context", "trace_id", "span_id", "sampled"),
        "X-Ray, tracing header: Root=1-{8 hex digits}-{24 hex digits};Parent={16 hex digits};Sampled=0, 1 or "
        "?, each once, in lower case. Python reads all that its int() reads, both the last of what comes "
        "twice.",
    ),
    Difference(
        "several lines",
        ("python",),
        lambda headers: len(values(headers, "x-amzn-trace-id")) > 1,
        ("context",),
        "X-Ray says nothing of it; Python takes none, Node takes the first line.",
    ),
    Difference(
        "another equals sign, or no pair between semicolons",
        ("python",),
        lambda headers: any(
            pair.count("=") != 1 for pair in (first(headers, "x-amzn-trace-id") or "").split(";")
        ),
        ("context",),
        "X-Ray, tracing header: a header may have more pairs, whose values are the sender's.",
    ),
    Difference(
        "names that begin like others",
        ("node",),
        lambda headers: any(re.match("Root.|Parent.|Sampled.", name) for name, _, _ in xray_pairs(headers)),
        ("context", "trace_id", "span_id", "sampled"),
        "X-Ray, tracing header: a pair of another name is another pair; Node looks at how a name begins.",
    ),
]


OTTRACE = [
    Difference(
        "a decision that is left open",
        ("python", "node"),
        lambda headers: first(headers, "ot-tracer-sampled") is None,
        ("sampled",),
        "No state says nothing; the SDKs have no such state.",
    ),
    Difference(
        "a state in numbers",
        ("python", "node"),
        lambda headers: first(headers, "ot-tracer-sampled") == "1",
        ("sampled",),
        "OpenTelemetry for Java writes and reads 1 beside true; this format has no specification but its "
        "implementations.",
    ),
    Difference(
        "ids without their leading zeros",
        ("node",),
        lambda headers: len(first(headers, "ot-tracer-traceid") or "") not in (16, 32)
        or len(first(headers, "ot-tracer-spanid") or "") != 16,
        ("context",),
        "OpenTracing's basic tracers write ids as numbers in hex; Python reads them.",
    ),
    Difference(
        "ids in capitals",
        ("python", "node"),
        lambda headers: bool(re.search("[A-F]", str(headers))),
        ("context", "trace_id", "span_id"),
        "Old clients write capitals. Python refuses them, and Node goes on in capitals.",
    ),
    Difference(
        "a state of another word",
        ("python", "node"),
        lambda headers: first(headers, "ot-tracer-sampled") not in (None, "true", "false", "1", "0"),
        ("sampled",),
        "A state that cannot be read says nothing; both read it as not sampled.",
    ),
]

DIFFERENCES = {
    "tracecontext": TRACECONTEXT,
    "b3": B3,
    "jaeger": JAEGER,
    "xray": XRAY,
    "ottrace": OTTRACE,
    "tracecontext+b3": TRACECONTEXT + B3,
}
