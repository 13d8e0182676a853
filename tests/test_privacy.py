"""What a configuration takes out of spans is nowhere in what a real Collector writes, byte for byte."""

import re
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc
import yaml

from conftest import lane
from peers import GRPC_SERVICE, Peers
from shared_envoys import SharedTopology
from test_collector import CLIENT, SERVER, all_exported_spans, attributes, collecting
from topology import connection_manager
from traffic import Client, new_context

PAGE = (Path(__file__).parents[1] / "docs" / "privacy.md").read_text()
PERSONAL = {
    "x-user-id": "user-4711",
    "x-phone": "0301234567",
    "baggage": "tenant=a-tenant-with-a-long-name,user=4711",
    "user-agent": "browser of Ann",
    "authorization": "Bearer of-ann",
}
TARGET = "/orders/ann;jsessionid=of-ann?email=ann%40example.com&token=of-ann"


def exported_attributes(envoy: Path, folder: Path, options: dict) -> list[dict]:
    """Returns the attributes of a request's three spans, as they leave a Collector."""
    rules = options.pop("sampling", {}).get("rules", [])
    listeners = {name: options for name in ["frontend-inbound", "frontend-outbound", "backend-inbound"]}
    with collecting({}, folder) as (otlp, traces):
        lanes = {"": lane(1, rules=rules, collector_port=otlp, listeners=listeners)}
        with SharedTopology(lanes, envoy=envoy) as running, Client(running, "1.1") as client:
            client.through("", "/account/ann", PERSONAL | {"traceparent": new_context().traceparent("01")})
            client.through("", TARGET, PERSONAL | {"traceparent": new_context().traceparent("01")})
            recorded = 3 if rules else 6
            running.program.wait_until(lambda: traces.exists() and len(all_exported_spans(traces)) >= recorded)
            running.wait_for_stats(lambda stats: stats["sidespan_spans_recorded_total"] == recorded)
    return [attributes(span) for span in all_exported_spans(traces)]


def test_filter_of_the_page_leaves_nothing_personal(newest_envoy, tmp_path):
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    options = yaml.safe_load(blocks[0])
    spans = exported_attributes(newest_envoy, tmp_path, options)
    text = str(spans)
    personal = ["ann", "Ann", "user-4711", "user=4711", "0301234567", "client.address", "long-name"]
    assert [word for word in personal if word in text] == []
    assert spans[0]["phone"] == "******4567"
    assert spans[0]["tenant"] == "a-tenant-with-a-"


def test_what_the_page_says_of_the_defaults(newest_envoy, tmp_path):
    spans = exported_attributes(newest_envoy, tmp_path, {})
    # The three of the other request come first.
    server = spans[3]
    assert server["url.path"] == "/orders/ann;jsessionid=REDACTED"
    assert server["url.query"] == "email=ann%40example.com&token=REDACTED"
    assert server["user_agent.original"] == "browser of Ann"
    assert server["client.address"] == "127.0.0.1"
    assert "of-ann" not in str(spans)


TAGS = [
    {"tag": "target", "request_header": {"name": ":path"}},
    {"tag": "target.at_end", "value": "%REQ(:PATH)% %RESPONSE_CODE%", "read": "end"},
    {"tag": "target.expression", "cel": "request.path + ''"},
    {"tag": "query", "property": {"path": "request.query"}},
    {"tag": "email", "query_parameter": {"name": "email"}},
    {"tag": "chain", "request_header": {"name": "x-forwarded-for"}},
    {"tag": "peer", "value": "%DOWNSTREAM_REMOTE_ADDRESS%"},
    {"tag": "browser", "request_header": {"name": "user-agent"}},
]
REDACTED = {
    "redact_query": ["*"],
    "redact_path": [
        {"regex": "ann-[a-z]+", "replacement": "{name}"},
        {"regex": "[0-9]{8,}", "replacement": "{number}"},
    ],
    "client_address": "masked",
    "omit": ["user_agent.original", "guid:x-request-id"],
}
OMITTED = {
    "omit": ["client.address", "url.path", "url.query", "user_agent.original", "guid:x-request-id", "server.address"],
}
LATE = {"sampling": {"ratio": 0, "export_on": {"status": ["2xx"], "grpc_status": list(range(17))}}}
# What only the two requests have, in any spelling.
SECRETS = ["ann-secret", "nn-secret", "4111111111111111", "ann@example", "ann%40example", "of Ann", "203.0.113.77"]
REQUEST = "//orders/%61nn-secret/./4111111111111111?email=ann%40example.com"
PERSON = {"user-agent": "browser of Ann", "x-forwarded-for": "203.0.113.77"}
SHOWN = "/orders/{name}/{number}"


def call(port: int, method: str, headers: dict) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, suppress(grpc.RpcError):
        channel.unary_unary(f"/{GRPC_SERVICE}/{method}")(b"hi", metadata=list(headers.items()))


def add_grpc(peers: Peers, resources: dict) -> None:
    """Gives the listeners of a lane the routes to the gRPC service beside their own."""
    managers = [connection_manager(listener) for listener in resources["listeners"]]
    hosts = [manager["route_config"]["virtual_hosts"][0] for manager in managers]
    own = [host["routes"] for host in hosts]
    peers.join(resources)
    for host, routes in zip(hosts, own, strict=True):
        host["routes"] = [*(it for it in host["routes"] if it not in routes), *routes]


def spans_of_a_person(envoy: Path, folder: Path, options: dict) -> list[dict]:
    """Sends requests by HTTP and gRPC to listeners of both directions. Checks all that the Collector wrote."""
    names = ["frontend-inbound", "frontend-outbound", "backend-inbound"]
    by_flags = {"01": options, "00": options | LATE}
    with Peers() as peers, collecting({}, folder) as (otlp, traces):
        change = partial(add_grpc, peers)
        lanes = {
            flags: lane(1, rules=[], collector_port=otlp, listeners=dict.fromkeys(names, it), change=change)
            for flags, it in by_flags.items()
        }
        with SharedTopology(lanes, envoy=envoy) as running, Client(running, "1.1") as client:
            for flags in lanes:
                for port in [client.lane(flags).frontend_inbound, client.lane(flags).frontend_outbound]:
                    client.send(port, REQUEST, PERSON | {"traceparent": new_context().traceparent(flags)})
                    for method in ["Get", "ann-secret"]:
                        headers = {"traceparent": new_context().traceparent(flags), "x-forwarded-for": "203.0.113.77"}
                        call(port, method, headers)
            # The HTTP request to an inbound listener passes two more, the other one passes one more.
            running.program.wait_until(lambda: traces.exists() and len(all_exported_spans(traces)) >= 18)
            running.wait_for_stats(lambda stats: stats["sidespan_spans_recorded_total"] == 18)
    text = traces.read_text()
    assert [secret for secret in SECRETS if secret in text] == []
    spans = all_exported_spans(traces)
    found = [attributes(span) | {"name": span["name"]} for span in spans]
    kinds = Counter((span["kind"], it["sidespan.reason"]) for span, it in zip(spans, found, strict=True))
    assert kinds == {(SERVER, "parent"): 5, (CLIENT, "parent"): 4, (SERVER, "late"): 5, (CLIENT, "late"): 4}
    return found


def test_what_is_redacted_is_nowhere_else(outermost_envoy, tmp_path):
    spans = spans_of_a_person(outermost_envoy, tmp_path, {"span": REDACTED, "custom_tags": TAGS})
    # The upstream answers that it lacks the method: a server's span then does not name it, a client's does.
    assert {span["name"] for span in spans} == {"GET", "shop.Orders/Get", "shop.Orders/{name}", "grpc"}
    for span in spans:
        if span["name"] == "GET":
            assert span["target"] == span["target.expression"] == f"{SHOWN}?email=REDACTED"
            assert span["target.at_end"] == f"{SHOWN}?email=REDACTED 200"
            assert (span["query"], span["email"]) == ("email=REDACTED", "REDACTED")
            assert span.get("url.path", SHOWN) == SHOWN
            assert span.get("url.full", SHOWN).removesuffix("?email=REDACTED").endswith(SHOWN)
        assert span.get("client.address", "127.0.0.0") in ("127.0.0.0", "203.0.113.0")
    assert "203.0.113.0" in {span.get("chain", "").partition(",")[0] for span in spans}


def test_what_is_omitted_is_nowhere_else(outermost_envoy, tmp_path):
    spans = spans_of_a_person(outermost_envoy, tmp_path, {"span": OMITTED, "custom_tags": TAGS})
    assert {span["name"] for span in spans} == {"GET", "shop.Orders/Get", "grpc"}
    keys = {key for span in spans for key in span}
    tags = {"target", "target.expression", "query", "email", "chain", "peer", "browser"}
    assert keys & {*OMITTED["omit"], *tags, "rpc.method_original"} == set()
    assert {span["url.full"] for span in spans if "url.full" in span} == {"http://REDACTED"}
    # Facts that other attributes are made of are still there.
    assert all(span["http.response.status_code"] == 200 and "upstream_cluster" in span for span in spans)
