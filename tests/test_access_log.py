"""Envoy's access logs name the trace of each request."""

import json

from conftest import lane
from shared_envoys import SharedTopology
from topology import Topology, connection_manager
from traffic import Client, new_context

FIELDS = {
    "path": "%REQ(:PATH)%",
    "trace_id": "%FILTER_STATE(wasm.sidespan.trace_id:PLAIN)%",
    "span_id": "%FILTER_STATE(wasm.sidespan.span_id:PLAIN)%",
    "trace_flags": "%FILTER_STATE(wasm.sidespan.trace_flags:PLAIN)%",
    "traceparent": "%REQ(TRACEPARENT)%",
    "envoys_trace_id": "%TRACE_ID%",
}


def log_to(file):
    """Returns what gives a lane's first sidecar an access log in JSON."""

    def change(resources: dict) -> None:
        (listener,) = [it for it in resources["listeners"] if it["name"] == "frontend-inbound"]
        connection_manager(listener)["access_log"] = [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(file),
                    "log_format": {"json_format": FIELDS},
                },
            }
        ]

    return change


def lines(running: Topology, file, count: int) -> dict[str, dict]:
    """Returns the log's objects by path, as soon as there are so many."""

    def read() -> list[dict]:
        # The last line may not be whole yet.
        whole, _, _ = file.read_text().rpartition("\n") if file.exists() else ("", "", "")
        return [json.loads(line) for line in whole.splitlines()]

    running.program.wait_until(lambda: len(read()) == count)
    return {line.pop("path"): line for line in read()}


def test_every_request_names_its_trace(each_envoy, tmp_path):
    file, late_file = tmp_path / "access.json", tmp_path / "late.json"
    on = {"access_log": {"filter_state": True}}
    late = on | {"sampling": {"ratio": 0, "export_on": {"status": ["5xx"]}}}
    lanes = {
        "": lane(0, listeners={"frontend-inbound": on}, change=log_to(file)),
        "late": lane(0, listeners={"frontend-inbound": late}, change=log_to(late_file)),
    }
    sampled, unsampled, failed = new_context(), new_context(), new_context()
    with SharedTopology(lanes, envoy=each_envoy) as running, Client(running, "1.1") as client:
        client.through("", "/sampled", {"traceparent": sampled.traceparent("01")})
        client.through("", "/unsampled", {"traceparent": unsampled.traceparent("00")})
        client.through("", "/root")
        client.through("", "/a.css")
        client.through("late", "/a?status=503", {"traceparent": failed.traceparent("00")})
        found = lines(running, file, 4)
        (late_line,) = lines(running, late_file, 1).values()
        (span, *_) = client.spans(sampled.trace_id)
        (late_span,) = client.spans(failed.trace_id, 1)
    for path, trace_id, span_id, flags in [
        ("/sampled", sampled.trace_id, span.span_id, "01"),
        ("/unsampled", unsampled.trace_id, unsampled.span_id, "00"),
    ]:
        assert found[path] == {
            "trace_id": trace_id,
            "span_id": span_id,
            "trace_flags": flags,
            "traceparent": f"00-{trace_id}-{span_id}-{flags}",
            "envoys_trace_id": None,
        }
    root = found["/root"]
    assert root["traceparent"] == f"00-{root['trace_id']}-{root['span_id']}-{root['trace_flags']}"
    assert root["trace_flags"] == "00"
    assert set(found["/a.css"].values()) == {None}, "expected nothing of an ignored request"
    late_ids = late_line["trace_id"], late_line["span_id"], late_line["trace_flags"]
    assert late_ids == (late_span.trace_id, late_span.span_id, "00")


def test_nothing_is_set_without_the_option(newest_envoy, tmp_path):
    file = tmp_path / "access.json"
    lanes = {"": lane(1, change=log_to(file))}
    with SharedTopology(lanes, envoy=newest_envoy, wasm_level="trace") as running, Client(running, "1.1") as client:
        client.through("", "/a")
        (line,) = lines(running, file, 1).values()
        assert "proxy_set_property(" not in running.log()
    assert line.pop("traceparent") and set(line.values()) == {None}
