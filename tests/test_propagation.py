"""Trace contexts that are sent upstream: from each format, in each format, none malformed or stale."""

import base64
import re

import pytest

from conftest import lane
from traffic import new_context

# Formats that meshes come from, as they write a context.
OTHERS = {
    "jaeger": lambda trace_id, span_id, sampled: {"uber-trace-id": f"{trace_id}:{span_id}:0:{sampled}"},
    "xray": lambda trace_id, span_id, sampled: {
        "x-amzn-trace-id": f"Root=1-{trace_id[:8]}-{trace_id[8:]};Parent={span_id};Sampled={sampled}"
    },
    "ottrace": lambda trace_id, span_id, sampled: {
        "ot-tracer-traceid": trace_id,
        "ot-tracer-spanid": span_id,
        "ot-tracer-sampled": "true" if sampled else "false",
    },
    "datadog": lambda trace_id, span_id, sampled: {
        "x-datadog-trace-id": str(int(trace_id[16:], 16)),
        "x-datadog-parent-id": str(int(span_id, 16)),
        "x-datadog-sampling-priority": str(sampled),
        "x-datadog-tags": f"_dd.p.tid={trace_id[:16]}",
    },
    "grpc-trace-bin": lambda trace_id, span_id, sampled: {
        "grpc-trace-bin": base64.b64encode(bytes.fromhex(f"0000{trace_id}01{span_id}020{sampled}"))
        .decode()
        .rstrip("=")
    },
    "gcp": lambda trace_id, span_id, sampled: {
        "x-cloud-trace-context": f"{trace_id}/{int(span_id, 16)};o={sampled}"
    },
    "instana": lambda trace_id, span_id, sampled: {
        "x-instana-t": trace_id,
        "x-instana-s": span_id,
        "x-instana-l": str(sampled),
    },
}
OTHER_FORMATS = list(OTHERS)
WITH_OTHERS = {"extract": ["tracecontext", *OTHER_FORMATS]}
MIGRATING = {"inject": ["tracecontext", "baggage"], "baggage": {"max_members": 64}}
LANES = {
    "ratio-1": lane(1),
    "inject-b3": lane(1, propagation={"inject": ["b3"]}),
    "inject-b3multi": lane(1, propagation={"inject": ["b3multi"]}),
    "inject-both": lane(1, propagation={"inject": ["tracecontext", "b3"]}),
    "migrating": lane(1, propagation=WITH_OTHERS | MIGRATING),
    "inject-others": lane(1, propagation=WITH_OTHERS | {"inject": OTHER_FORMATS}),
}

# Rows: the lane, the headers sent, those that the first service gets; T is the trace id, P the
# sender's span id, S the span id of the hop's own span. H is the trace id's right half.
CARRIED = {
    "w3c": ("ratio-1", {"traceparent": "00-T-P-01"}, {"traceparent": "00-T-S-01"}),
    "w3c keeps the random bit": ("ratio-1", {"traceparent": "00-T-P-03"}, {"traceparent": "00-T-S-03"}),
    "tracestate goes with its traceparent": (
        "ratio-1",
        {"traceparent": "00-T-P-01", "tracestate": "vendor=1,other=2"},
        {"traceparent": "00-T-S-01", "tracestate": "vendor=1,other=2"},
    ),
    "tracestate goes on without what stands between its members": (
        "ratio-1",
        {"traceparent": "00-T-P-01", "tracestate": "vendor=1 ,, other=2,"},
        {"traceparent": "00-T-S-01", "tracestate": "vendor=1,other=2"},
    ),
    "tracestate that is malformed is dropped alone": (
        "ratio-1",
        {"traceparent": "00-T-P-01", "tracestate": "vendor=1,other"},
        {"traceparent": "00-T-S-01"},
    ),
    "baggage is passed on": (
        "ratio-1",
        {"traceparent": "00-T-P-01", "baggage": "account=7"},
        {"traceparent": "00-T-S-01", "baggage": "account=7"},
    ),
    "single b3 goes on as w3c": ("ratio-1", {"b3": "T-P-1"}, {"traceparent": "00-T-S-01"}),
    "single b3 with its parent goes on as w3c": (
        "ratio-1",
        {"b3": "T-P-1-05e3ac9a4f6e3b90"},
        {"traceparent": "00-T-S-01"},
    ),
    "debug b3 goes on as sampled w3c": ("ratio-1", {"b3": "T-P-d"}, {"traceparent": "00-T-S-01"}),
    "multi b3 goes on as w3c": (
        "ratio-1",
        {"x-b3-traceid": "T", "x-b3-spanid": "P", "x-b3-sampled": "1"},
        {"traceparent": "00-T-S-01"},
    ),
    "multi b3 with flags goes on as sampled w3c": (
        "ratio-1",
        {"x-b3-traceid": "T", "x-b3-spanid": "P", "x-b3-flags": "1"},
        {"traceparent": "00-T-S-01"},
    ),
    "w3c goes on as single b3": ("inject-b3", {"traceparent": "00-T-P-01"}, {"b3": "T-S-1"}),
    "w3c goes on as multi b3": (
        "inject-b3multi",
        {"traceparent": "00-T-P-01"},
        {"x-b3-traceid": "T", "x-b3-spanid": "S", "x-b3-sampled": "1"},
    ),
    "w3c goes on as both": (
        "inject-both",
        {"traceparent": "00-T-P-01"},
        {"traceparent": "00-T-S-01", "b3": "T-S-1"},
    ),
    "debug b3 stays debug in b3": ("inject-b3", {"b3": "T-P-d"}, {"b3": "T-S-d"}),
    "w3c wins over a b3 of another trace": (
        "ratio-1",
        {"traceparent": "00-T-P-01", "b3": "463ac35c9f6413ad48485a3953bb6124-a2fb4a1d1a96d312-1"},
        {"traceparent": "00-T-S-01"},
    ),
    "b3 is taken where w3c is malformed": (
        "ratio-1",
        {"traceparent": "00-T-P", "tracestate": "vendor=1", "b3": "T-P-1"},
        {"traceparent": "00-T-S-01"},
    ),
}
CARRIED_SHORT = {
    "64-bit single b3 is widened for w3c": (
        "ratio-1",
        {"b3": "H-P-1"},
        {"traceparent": "00-0000000000000000H-S-01"},
    ),
    "64-bit single b3 keeps its width": ("inject-b3", {"b3": "H-P-1"}, {"b3": "H-S-1"}),
    "64-bit multi b3 keeps its width": (
        "inject-b3multi",
        {"x-b3-traceid": "H", "x-b3-spanid": "P", "x-b3-sampled": "1"},
        {"x-b3-traceid": "H", "x-b3-spanid": "S", "x-b3-sampled": "1"},
    ),
    "64-bit single b3 goes on as multi in its width": (
        "inject-b3multi",
        {"b3": "H-P-1"},
        {"x-b3-traceid": "H", "x-b3-spanid": "S", "x-b3-sampled": "1"},
    ),
}
NOT_RECORDED = {
    "unsampled b3 goes on as unsampled w3c": ("ratio-1", {"b3": "T-P-0"}, {"traceparent": "00-T-P-00"}),
    "unsampled multi b3 goes on as unsampled w3c": (
        "ratio-1",
        {"x-b3-traceid": "T", "x-b3-spanid": "P", "x-b3-sampled": "0"},
        {"traceparent": "00-T-P-00"},
    ),
    "unsampled w3c goes on as unsampled b3": ("inject-b3", {"traceparent": "00-T-P-00"}, {"b3": "T-P-0"}),
    "unsampled b3 is not touched where b3 goes on": ("inject-b3", {"b3": "T-P-0"}, {"b3": "T-P-0"}),
}
# Contexts as load balancers, synthetic tests and old clients write them, each with the trace id and the parent's
# span id. A trace without a parent span has none: the span here is the root.
AS_SENT = {
    "Datadog Synthetics": (
        {
            "x-datadog-trace-id": "3238677264721744442",
            "x-datadog-parent-id": "0",
            "x-datadog-sampling-priority": "1",
        },
        f"{3238677264721744442:032x}",
        "",
    ),
    "an AWS load balancer": (
        {"x-amzn-trace-id": "Root=1-68ef9936-5f4df7cb590e654d2f659b2c"},
        "68ef99365f4df7cb590e654d2f659b2c",
        "",
    ),
    "a Google load balancer": (
        {"x-cloud-trace-context": "105445aa7843bc8bf206b12000100000"},
        "105445aa7843bc8bf206b12000100000",
        "",
    ),
    "B3 in capitals": (
        {"x-b3-traceid": "463AC35C9F6413AD48485A3953BB6124", "x-b3-spanid": "A2FB4A1D1A96D312", "x-b3-sampled": "1"},
        "463ac35c9f6413ad48485a3953bb6124",
        "a2fb4a1d1a96d312",
    ),
    "B3 without leading zeros": (
        {"b3": "3ac35c9f6413ad48485a3953bb6124-b4a1d1a96d312-1"},
        "003ac35c9f6413ad48485a3953bb6124",
        "000b4a1d1a96d312",
    ),
    "B3 with a parent and no state": (
        {"b3": "463ac35c9f6413ad48485a3953bb6125-a2fb4a1d1a96d312-0020000000000001"},
        "463ac35c9f6413ad48485a3953bb6125",
        "a2fb4a1d1a96d312",
    ),
    "Datadog's own priority": (
        {"x-datadog-trace-id": "7", "x-datadog-parent-id": "8", "x-datadog-sampling-priority": "3"},
        f"{7:032x}",
        f"{8:016x}",
    ),
    "X-Ray with an unknown state": (
        {"x-amzn-trace-id": "Root=1-68ef9936-5f4df7cb590e654d2f659b2d;Parent=53995c3f42cd8ad8;Sampled=yes"},
        "68ef99365f4df7cb590e654d2f659b2d",
        "53995c3f42cd8ad8",
    ),
}
MALFORMED_OTHERS = {
    "jaeger without flags": {"uber-trace-id": "4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0"},
    "jaeger, not UTF-8": {"uber-trace-id": b"4bf92f35:\xff:0:1"},
    "xray with a short root": {"x-amzn-trace-id": "Root=1-4bf92f35-77b34da6;Parent=00f067aa0ba902b7"},
    "ottrace with a zero span id": {"ot-tracer-traceid": "4bf92f3577b34da6", "ot-tracer-spanid": "0"},
    "datadog in hex": {"x-datadog-trace-id": "4bf92f35", "x-datadog-parent-id": "7"},
    "datadog over 64 bits": {"x-datadog-trace-id": "18446744073709551616", "x-datadog-parent-id": "7"},
    "grpc-trace-bin cut short": {"grpc-trace-bin": "AABL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQ"},
    "gcp without a trace id": {"x-cloud-trace-context": "/7;o=1"},
    "instana without a trace id": {"x-instana-s": "00f067aa0ba902b7"},
    "all of them": {
        "uber-trace-id": "::::",
        "x-amzn-trace-id": "Root",
        "ot-tracer-sampled": "?",
        "x-datadog-sampling-priority": "keep",
        "grpc-trace-bin": "*",
        "x-cloud-trace-context": ";",
        "x-instana-l": "?",
    },
}
MALFORMED = {
    "all-zero trace id": {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"},
    "all-zero span id": {"traceparent": f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01"},
    "upper-case hex": {"traceparent": "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01"},
    "version ff": {"traceparent": "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
    "a sign instead of a digit": {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1"},
    "cut short": {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"},
    "not UTF-8": {"traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-\xff\xfe"},
    "b3 that is too long": {"b3": "04bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"},
    "b3 with an unknown state": {"b3": "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-2"},
    "multi b3 with a zero span id": {
        "x-b3-traceid": "4bf92f3577b34da6a3ce929d0e0e4736",
        "x-b3-spanid": "0",
        "x-b3-sampled": "1",
    },
    "tracestate without its traceparent": {"tracestate": "vendor=1"},
}


def filled(headers: dict[str, str], **ids: str) -> dict[str, str]:
    """Returns the headers with the letters of the rows replaced by the ids."""
    letters = re.compile(rf"\b(?:0{{16}})?({'|'.join(ids)})\b")
    fill = lambda found: found[0].replace(found[1], ids[found[1]])  # noqa: E731
    return {name: letters.sub(fill, value) for name, value in headers.items()}


def send_rows(client, rows, letter: str, trace_id_bytes: int = 16) -> dict:
    """Sends the request of each row before any span is waited for; returns its context and the answer."""
    sent = {}
    for row, (lane, headers, _) in rows.items():
        parent = new_context(trace_id_bytes)
        headers = filled(headers, **{letter: parent.trace_id}, P=parent.span_id)
        sent[row] = parent, client.through(lane, "/a", headers)
    return sent


def test_context_of_a_recorded_request_is_carried(client):
    for row, (parent, answer) in send_rows(client, CARRIED, "T").items():
        server, *_ = client.spans(parent.trace_id)
        assert server.parent_span_id == parent.span_id, row
        expected = filled(CARRIED[row][2], T=parent.trace_id, S=server.span_id)
        assert answer.calls[0].context() == expected, row


def test_short_trace_id_is_carried_in_its_width(client):
    for row, (parent, answer) in send_rows(client, CARRIED_SHORT, "H", trace_id_bytes=8).items():
        server, _, backend = client.spans("0" * 16 + parent.trace_id)
        assert server.parent_span_id == parent.span_id, row
        expected = [filled(CARRIED_SHORT[row][2], H=parent.trace_id, S=hop.span_id) for hop in (server, backend)]
        assert [call.context() for call in answer.calls] == expected, row


def test_context_of_an_unrecorded_request_keeps_its_ids(client):
    for row, (parent, answer) in send_rows(client, NOT_RECORDED, "T").items():
        expected = filled(NOT_RECORDED[row][2], T=parent.trace_id, P=parent.span_id)
        assert answer.calls[0].context() == expected, row


@pytest.mark.parametrize("lane, rows", [("ratio-1", MALFORMED), ("migrating", MALFORMED_OTHERS)], ids=["own", "others"])
def test_malformed_context_begins_a_new_trace(client, lane, rows):
    for row, answer in {row: client.through(lane, "/a", headers) for row, headers in rows.items()}.items():
        assert answer.status == 200, row
        context = answer.calls[0].context()
        assert list(context) == ["traceparent"], row
        trace_id, span_id = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", context["traceparent"]).groups()
        assert not trace_id.startswith("4bf92f35"), row
        server, *_ = client.spans(trace_id)
        assert (server.span_id, server.parent_span_id) == (span_id, ""), row


def test_contexts_as_real_clients_send_them_are_followed(client_1):
    sent = {}
    for row, (headers, _, _) in AS_SENT.items():
        lane = "ratio-1" if row.startswith("B3") else "migrating"
        sent[row] = client_1.through(lane, "/a", headers)
    for row, answer in sent.items():
        _, trace_id, parent_span_id = AS_SENT[row]
        server, *_ = client_1.spans(trace_id)
        assert server.parent_span_id == parent_span_id, row
        assert answer.calls[0].context() == {"traceparent": f"00-{trace_id}-{server.span_id}-01"}, row


def test_other_fields_of_x_ray_go_on_with_their_trace(client):
    parent = new_context()
    root = f"Root=1-{parent.trace_id[:8]}-{parent.trace_id[8:]}"
    others = "Self=1-68ef9936-5f4df7cb590e654d2f659b2c;Lineage=1:a87bd80c:1"
    answer = client.through("inject-others", "/a", {"x-amzn-trace-id": f"{root};{others};Sampled=1"})
    server, *_ = client.spans(parent.trace_id)
    expected = f"{root};Parent={server.span_id};Sampled=1;{others}"
    assert answer.calls[0].context()["x-amzn-trace-id"] == expected


def test_other_formats_are_read_and_removed(client):
    beside = {"uberctx-a": "1", "ot-baggage-a": "1", "x-datadog-origin": "rum"}
    sent = {}
    for format, written in OTHERS.items():
        sampled, not_sampled = new_context(), new_context()
        headers = written(sampled.trace_id, sampled.span_id, 1) | beside
        answer = client.through("migrating", "/a", headers)
        unsampled = client.through("migrating", "/a", written(not_sampled.trace_id, not_sampled.span_id, 0))
        sent[format] = sampled, answer
        assert unsampled.calls[0].context() == {"traceparent": not_sampled.traceparent("00")}, format

    for format, (sampled, answer) in sent.items():
        server, *_ = client.spans(sampled.trace_id)
        assert server.parent_span_id == sampled.span_id, format
        expected = {"traceparent": f"00-{sampled.trace_id}-{server.span_id}-01", "x-datadog-origin": "rum"}
        assert answer.calls[0].context() == expected, format
        assert beside.items() <= dict(answer.calls[0].headers).items(), format


def test_other_formats_are_written_at_every_hop(client):
    parent = new_context()
    answer = client.through("inject-others", "/a", {"traceparent": parent.traceparent("01")})

    server, _, backend = client.spans(parent.trace_id)
    for call, span in zip(answer.calls, [server, backend], strict=True):
        expected = {}
        for written in OTHERS.values():
            expected |= written(parent.trace_id, span.span_id, 1)
        assert call.context() == expected


def test_baggage_over_its_limit_is_cut_and_counted(client_1):
    members = [f"key{member}=value;property" for member in range(66)]
    answer = client_1.through("migrating", "/a", {"baggage": ",".join(members)})

    assert answer.calls[0].context()["baggage"] == ",".join(members[:64])
    client_1.topology.wait_for_stats(lambda stats: stats["sidespan_baggage_members_dropped_total"] >= 2)
