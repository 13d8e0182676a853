"""Custom tags in a real Envoy: every source, redaction, credentials, limits."""

import hashlib
import json

import grpc
import pytest

from conftest import lane
from peers import GRPC_SERVICE, Peers
from shared_envoys import SharedTopology
from test_configuration import checked
from topology import Lane, Topology, connection_manager
from traffic import Client, new_context

LISTENER = "frontend-inbound"


def named(source: str, name: str, **others) -> dict:
    return {source: {"name": name, **others}}


def metadata(kind: str, *path: str, **others) -> dict:
    key = {"key": "shop.team", "path": [{"key": step} for step in path]}
    return {"metadata": {"kind": {kind: {}}, "metadata_key": key, **others}}


# Each tag, and its value for the request below.
SOURCES = {
    "literal": ({"literal": {"value": "v"}}, "v"),
    "environment": (named("environment", "REGION"), "eu-west-1"),
    "no environment": (named("environment", "NONE", default_value="d"), "d"),
    "request header": (named("request_header", "X-User"), "ada"),
    "first of several": (named("request_header", "x-twice"), "1"),
    "not UTF-8": (named("request_header", "x-bytes"), "a\ufffdb"),
    "no header": (named("request_header", "x-none", default_value="d"), "d"),
    "nothing": (named("request_header", "x-none"), None),
    "empty header": (named("request_header", "x-empty", default_value="d"), None),
    "response header": (named("response_header", "x-order"), "o-7"),
    "no response header": (named("response_header", "x-none", default_value="d"), "d"),
    "no trailer": (named("response_trailer", "x-none", default_value="d"), "d"),
    "query parameter": (named("query_parameter", "q"), "a b+c"),
    "cookie": (named("cookie", "tier"), "gold"),
    "baggage": (named("baggage", "account"), "47 11"),
    "text": ({"property": {"path": "request.method"}}, "GET"),
    "integer": ({"property": {"path": "response.code"}}, 200),
    "integer as text": ({"property": {"path": "response.code", "type": "string"}}, "200"),
    "truth": ({"property": {"path": "connection.mtls"}}, False),
    "parts": ({"property": {"path": ["request", "headers", "x-user"]}}, "ada"),
    "no attribute": ({"property": {"path": "upstream.uri_san_peer_certificate", "default_value": "d"}}, "d"),
    "no identity": ({"identity": "source"}, None),
    "route metadata": (metadata("route", "name"), "payments"),
    "number of metadata": (metadata("route", "level"), "2.5"),
    "whole number of metadata": (metadata("route", "size"), "300"),
    "truth of metadata": (metadata("route", "canary"), "true"),
    "list of metadata": (metadata("route", "list", default_value="d"), "d"),
    "no metadata": (metadata("route", "none", default_value="d"), "d"),
    "cluster metadata": (metadata("cluster", "deep", "er"), "cluster"),
    "host metadata": (metadata("host", "name"), "host"),
    "dynamic metadata": (metadata("request", "name"), "dynamic"),
    "number": (
        {"property": {"path": ["xds", "route_metadata", "filter_metadata", "shop.team", "level"]}},
        2.5,
    ),
    "format": (
        {"value": "%REQ(X-NONE?X-USER):2%/%RESP(x-order)%/%RESPONSE_CODE%/%PROTOCOL%"},
        "ad/o-7/200/HTTP/1.1",
    ),
    "format of metadata": ({"value": "%DYNAMIC_METADATA(shop.team:name)% 100%%"}, "dynamic 100%"),
    "empty format": ({"value": "%REQ(X-NONE)%%RESP(X-NONE)%"}, None),
    "hash": (
        named("baggage", "account", default_value="d") | {"redact": "hash"},
        hashlib.sha256(b"47 11").hexdigest()[:32],
    ),
    "mask": (named("request_header", "x-card") | {"redact": "mask"}, "************1111"),
    "short mask": (named("cookie", "tier") | {"redact": "mask"}, "****"),
    "cut": (named("request_header", "x-card") | {"max_length": 4}, "4111"),
    "expression": ({"cel": 'request.headers["x-user"] + "/" + string(response.code)'}, "ada/200"),
    "truth of an expression": ({"cel": "response.code >= 500 // comment"}, "false"),
    "number of an expression": ({"cel": "response.code + 1"}, "201"),
    "expression that fails": ({"cel": 'request.headers["x-none"]'}, None),
    "list of an expression": ({"cel": "[response.code]"}, None),
    "long expression": ({"cel": "request.method", "max_length": 2}, "GE"),
}
REQUEST = [
    ("x-user", "ada"),
    ("x-twice", "1"),
    ("x-bytes", b"a\xffb"),
    ("x-empty", ""),
    ("x-card", "4111111111111111"),
    ("cookie", "a=b; tier=gold"),
    ("baggage", "account=47%2011;p=1,other=2"),
]
TEAM = "shop.team"


def add_metadata(resources: dict) -> None:
    """Puts metadata wherever Envoy has some, and a header on every response."""
    for listener in resources["listeners"]:
        manager = connection_manager(listener)
        (virtual_host,) = manager["route_config"]["virtual_hosts"]
        for route in virtual_host["routes"]:
            values = {"name": "payments", "level": 2.5, "size": 300, "canary": True, "list": [1]}
            route["metadata"] = {"filter_metadata": {TEAM: values}}
            route["response_headers_to_add"] = [{"header": {"key": "x-order", "value": "o-7"}}]
        manager["http_filters"].insert(
            0,
            {
                "name": "envoy.filters.http.set_metadata",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config",
                    "metadata": [{"metadata_namespace": TEAM, "value": {"name": "dynamic"}}],
                },
            },
        )
    for cluster in resources["clusters"]:
        cluster["metadata"] = {"filter_metadata": {TEAM: {"deep": {"er": "cluster"}}}}
        for group in cluster["load_assignment"]["endpoints"]:
            for endpoint in group["lb_endpoints"]:
                endpoint["metadata"] = {"filter_metadata": {TEAM: {"name": "host"}}}


def tagged(tags: list | dict, *, key: str = "custom_tags", change=lambda resources: None, **others) -> Lane:
    """Returns a lane whose first sidecar has these tags."""
    return lane(1, listeners={LISTENER: {"custom_tags": None, key: tags, **others}}, change=change)


def only_span(running: Topology, lane: str = "", target: str = "/a", headers: list | None = None):
    """Returns the span of the frontend's sidecar for one sampled request."""
    parent = new_context()
    with Client(running, "1.1") as client:
        sampled = [("traceparent", parent.traceparent("01")), *(headers or [])]
        assert client.through(lane, target, sampled).status == 200
        return client.spans(parent.trace_id)[0]


_EXTENSION = "type.googleapis.com/envoy.extensions"
# Format strings whose values Envoy's own access log writes beside.
OPERATORS = [
    "%REQ(X-NONE?X-USER):2%",
    "%REQ_WITHOUT_QUERY(X-NONE?X-LINK)%",
    "%REQ_WITHOUT_QUERY(X-LINK):3%",
    "%PATH%",
    "%PATH(NQ)%",
    "%PATH(WQ:PATH)%",
    "%PATH(NQ:ORIG):4%",
    "%PATH(:ORIG_OR_PATH)%",
    "%QUERY_PARAM(q)%",
    "%QUERY_PARAM(p):1%",
    "%QUERY_PARAM(none)%",
    "%START_TIME%",
    "%START_TIME(%s.%3f)%",
    "%START_TIME(%Y/%m/%dT%H:%M:%S%z)%",
    "%START_TIME(%F %T %Z %E6S %6f %f)%",
    "%FILTER_STATE(shop.plan:PLAIN)%",
    "%FILTER_STATE(shop.plan:PLAIN):2%",
    "%FILTER_STATE(shop.none:PLAIN)%",
    "%FILTER_STATE(shop.plan:FIELD:none)%",
    "%FILTER_STATE(ext_authz:FIELD:latency_us)%",
    "%FILTER_STATE(ext_authz:FIELD:none)%",
    "%FILTER_STATE(shop.none:FIELD:app)%",
    f"%DYNAMIC_METADATA({TEAM}:name)%",
    f"%METADATA(DYNAMIC:{TEAM}:name)%",
    f"%METADATA(ROUTE:{TEAM}:name):3%",
    f"%METADATA(ROUTE:{TEAM}:level)%",
    f"%METADATA(ROUTE:{TEAM}:size)%",
    f"%METADATA(ROUTE:{TEAM}:canary)%",
    f"%METADATA(ROUTE:{TEAM}:none)%",
    f"%METADATA(CLUSTER:{TEAM}:deep:er)%",
    f"%METADATA(UPSTREAM_HOST:{TEAM}:name)%",
    f"%METADATA(LISTENER:{TEAM}:name)%",
    f"%METADATA(VIRTUAL_HOST:{TEAM}:name)%",
    "%GRPC_STATUS%",
    "%GRPC_STATUS(SNAKE_STRING)%",
    "%GRPC_STATUS(NUMBER)%",
    "%GRPC_STATUS_NUMBER%",
    "%DOWNSTREAM_PEER_SUBJECT%",
    '%CEL(request.headers["x-user"])%',
    "%CEL(response.code)%",
    '%CEL(request.path.startsWith("/a")):2%',
    "%CEL(1.0 / 8.0)%",
    '%CEL(request.headers["x-none"])%',
]


def log_operators(file):
    """Returns what gives a lane's first sidecar an access log with the values of OPERATORS, a line each."""
    without_query = {"@type": f"{_EXTENSION}.formatter.req_without_query.v3.ReqWithoutQuery"}
    formatters = [{"name": "req_without_query", "typed_config": without_query}]
    text = "".join(f"{operator}\n" for operator in OPERATORS)
    log = {
        "@type": f"{_EXTENSION}.access_loggers.file.v3.FileAccessLog",
        "path": str(file),
        "log_format": {"formatters": formatters, "text_format_source": {"inline_string": text}},
    }

    def change(resources: dict) -> None:
        (listener,) = [it for it in resources["listeners"] if it["name"] == LISTENER]
        connection_manager(listener)["access_log"] = [{"name": "file", "typed_config": log}]

    return change


def add_states(resources: dict) -> None:
    """Puts metadata and filter states wherever Envoy has some, and rewrites the path."""
    add_metadata(resources)
    (listener,) = [it for it in resources["listeners"] if it["name"] == LISTENER]
    manager = connection_manager(listener)
    (virtual_host,) = manager["route_config"]["virtual_hosts"]
    for of in (listener, virtual_host):
        of["metadata"] = {"filter_metadata": {TEAM: {"name": of["name"]}}}
    for route in virtual_host["routes"]:
        route["route"]["regex_rewrite"] = {"pattern": {"regex": "^/a"}, "substitution": "/b"}
    plan = {"text_format_source": {"inline_string": "gold"}}
    state = {"object_key": "shop.plan", "factory_key": "envoy.string", "format_string": plan}
    authorizer = {"uri": "http://authorizer", "timeout": "20s", "cluster": virtual_host["routes"][0]["route"]["cluster"]}
    manager["http_filters"][:0] = [
        {
            "name": "set_filter_state",
            "typed_config": {
                "@type": f"{_EXTENSION}.filters.http.set_filter_state.v3.Config",
                "on_request_headers": [state],
            },
        },
        {
            # It keeps a filter state with fields.
            "name": "ext_authz",
            "typed_config": {
                "@type": f"{_EXTENSION}.filters.http.ext_authz.v3.ExtAuthz",
                "http_service": {"server_uri": authorizer},
                "emit_filter_state_stats": True,
            },
        },
    ]


def reads_at_end(operator: str) -> dict:
    """Returns the key that makes a format string read request headers as late as the access log does."""
    return {"read": "end"} if operator.startswith(("%REQ", "%PATH")) else {}


OPERATOR_TAGS = [
    {"tag": f"tag.{index}", "value": operator, **reads_at_end(operator)} for index, operator in enumerate(OPERATORS)
]


def logged_and_recorded(running: Topology, file, span) -> tuple[dict, dict]:
    """Returns the values of OPERATORS that the access log and the span have; absent and empty ones are left out."""
    running.program.wait_until(lambda: file.exists() and file.read_text().count("\n") == len(OPERATORS))
    logged = dict(zip(OPERATORS, file.read_text().splitlines(), strict=True))
    recorded = {operator: span.attributes.get(f"tag.{index}") for index, operator in enumerate(OPERATORS)}
    return (
        {operator: value for operator, value in logged.items() if value not in ("", "-")},
        {operator: value for operator, value in recorded.items() if value is not None},
    )


def correct_header(resources: dict) -> None:
    """Has a filter behind ours correct a header, as one that authenticates does."""
    header = {"key": "x-auth-email", "value": "ada@shop"}
    correction = {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    for listener in resources["listeners"]:
        connection_manager(listener)["http_filters"].insert(
            -1,
            {
                "name": "envoy.filters.http.header_mutation",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                    "mutations": {"request_mutations": [correction]},
                },
            },
        )


def keep_certificate(resources: dict) -> None:
    for listener in resources["listeners"]:
        connection_manager(listener)["forward_client_cert_details"] = "ALWAYS_FORWARD_ONLY"


EMAIL = "X-Auth-Email"
READ_WHEN = {
    "start": named("request_header", EMAIL),
    "end": named("request_header", EMAIL, read="end"),
    "absent": named("request_header", "x-none", read="end", default_value="d"),
    "format": {"value": f"<%REQ({EMAIL})%>", "read": "end"},
    # Read when the request arrives, though the other half is known at its end alone.
    "joined": {"value": f"%REQ({EMAIL})%-%RESPONSE_CODE%"},
}
TRAILERS = [
    {"tag": "status", **named("response_trailer", "grpc-status")},
    {"tag": "format", "value": "%TRAILER(grpc-status)%-%RESP(content-type)%"},
]
# As people paste them, from a Telemetry resource, from an EnvoyProxy and from a bootstrap.
ISTIO = {
    "user": {"header": {"name": "x-user", "defaultValue": "-"}},
    "region": {"environment": {"name": "REGION", "defaultValue": "none"}},
    "zone": {"environment": {"name": "ZONE", "defaultValue": "none"}},
    "mesh": {"literal": {"value": "prod"}},
    "code": {"formatter": {"value": "%RESPONSE_CODE%"}},
}
GATEWAY = {
    "user": {"type": "RequestHeader", "requestHeader": {"name": "x-user", "defaultValue": "-"}},
    "region": {"type": "Environment", "environment": {"name": "REGION", "defaultValue": "none"}},
    "zone": {"type": "Environment", "environment": {"name": "ZONE", "defaultValue": "none"}},
    "mesh": {"type": "Literal", "literal": {"value": "prod"}},
}
BOOTSTRAP = [
    {"tag": "user", "requestHeader": {"name": "x-user", "defaultValue": "-"}},
    {"tag": "region", "environment": {"name": "REGION", "defaultValue": "none"}},
    {"tag": "zone", "environment": {"name": "ZONE", "defaultValue": "none"}},
    {"tag": "mesh", "literal": {"value": "prod"}},
    {"tag": "code", "value": "%RESPONSE_CODE%"},
]
PASTED = {
    f"{source}-{key}": tagged(tags, key=key)
    for source, tags in [("telemetry", ISTIO), ("gateway", GATEWAY), ("bootstrap", BOOTSTRAP)]
    for key in ("custom_tags", "customTags")
}
TOO_MANY = [{"tag": f"tag.{index}", **named("request_header", "x-long")} for index in range(40)]
TOO_MANY += [{"tag": "tag.end", **named("response_header", "content-type")}]
LIMITS = {"attribute_count_limit": 30, "attribute_value_length_limit": 32}
WHO = [{"tag": "who", **named("request_header", "x-forwarded-client-cert"), "redact": "hash"}]


def named_tags(tags: dict[str, dict]) -> list[dict]:
    return [{"tag": f"tag.{name}", **tag} for name, tag in tags.items()]


def both(*changes):
    def change(resources: dict) -> None:
        for each in changes:
            each(resources)

    return change


@pytest.fixture(scope="module")
def access_logs(each_envoy, tmp_path_factory):
    """The access logs with OPERATORS, by lane."""
    folder = tmp_path_factory.mktemp("access-logs")
    return {lane: folder / lane for lane in ("operators", "operators-grpc")}


@pytest.fixture(scope="module")
def tagging_envoy(each_envoy, access_logs):
    """An Envoy with a lane for each set of tags."""
    with Peers() as peers:
        logs = {lane: log_operators(file) for lane, file in access_logs.items()}
        lanes = PASTED | {
            "sources": tagged(named_tags({name: tag for name, (tag, _) in SOURCES.items()}), change=add_metadata),
            "read-when": tagged(named_tags(READ_WHEN), change=correct_header),
            "trailers": tagged(TRAILERS, change=peers.join),
            "allowed": tagged(WHO, allow_sensitive_headers=["X-Forwarded-Client-Cert"], change=keep_certificate),
            "limits": tagged(TOO_MANY, attribute_limits=LIMITS),
            "operators": tagged(OPERATOR_TAGS, change=both(add_states, logs["operators"])),
            "operators-grpc": tagged(OPERATOR_TAGS, change=both(peers.join, logs["operators-grpc"])),
        }
        with SharedTopology(lanes, envoy=each_envoy) as running:
            yield running
            assert [line for line in running.log().splitlines() if "[error]" in line] == []


def test_every_source_has_its_value(tagging_envoy):
    span = only_span(tagging_envoy, "sources", "/a?q=a%20b%2Bc", REQUEST)

    found = {key: value for key, value in span.attributes.items() if key.startswith("tag.")}
    expected = {f"tag.{name}": value for name, (_, value) in SOURCES.items() if value is not None}
    assert found == expected


def test_attributes_of_tags_are_read_with_those_of_the_span(outermost_envoy):
    """A property that is read by itself costs Envoy four times as much as one of a list."""
    kinds = {"property", "metadata", "identity", "cel"}
    sources = {name: source for name, source in SOURCES.items() if kinds & source[0].keys()}
    assert len(sources) >= 10
    lanes = {"": tagged(named_tags({name: tag for name, (tag, _) in sources.items()}), change=add_metadata)}
    with SharedTopology(lanes, envoy=outermost_envoy, wasm_level="trace") as running:
        configured = len(running.log())
        span = only_span(running, headers=REQUEST)
        hostcalls = running.log()[configured:]
    found = {key: value for key, value in span.attributes.items() if key.startswith("tag.")}
    assert found == {f"tag.{name}": value for name, (_, value) in sources.items() if value is not None}
    assert "proxy_call_foreign_function(" in hostcalls
    assert "proxy_get_property(" not in hostcalls


def test_an_expression_that_fails_costs_no_fact(outermost_envoy):
    """It fails the list that it is in, and is read alone from then on."""
    fails, plain = {"cel": 'request.headers["x-plan"]'}, {"cel": "string(response.code)"}
    lanes = {"": tagged([{"tag": "plan", **fails}, {"tag": "code", **plain}])}

    def reads(running, headers):
        seen = len(running.log())
        span = only_span(running, headers=headers)
        hostcalls = running.log()[seen:]
        assert "proxy_get_property(" not in hostcalls
        assert (span.attributes["code"], span.attributes["http.response.status_code"]) == ("200", 200)
        return span.attributes.get("plan"), hostcalls.count("expr_evaluate value error")

    with SharedTopology(lanes, envoy=outermost_envoy, wasm_level="trace") as running:
        assert reads(running, [("x-plan", "gold")]) == ("gold", 0)
        # Both lists, the expression alone when it leaves them, and when it is read.
        assert reads(running, []) == (None, 4)
        assert reads(running, [("x-plan", "gold")]) == ("gold", 0)
        assert reads(running, []) == (None, 1)


def test_request_headers_are_read_when_the_tag_says(tagging_envoy):
    span = only_span(tagging_envoy, "read-when", headers=[("x-auth-email", "forged")])
    found = {key: value for key, value in span.attributes.items() if key.startswith("tag.")}
    assert found == {
        "tag.start": "forged",
        "tag.end": "ada@shop",
        "tag.absent": "d",
        "tag.format": "<ada@shop>",
        "tag.joined": "forged-200",
    }


def test_trailers_are_read(tagging_envoy):
    parent = new_context()
    address = f"127.0.0.1:{tagging_envoy.lane('trailers').frontend_inbound}"
    with grpc.insecure_channel(address) as channel:
        # It answers once, so that the status comes in trailers after a body.
        call = channel.unary_stream(f"/{GRPC_SERVICE}/Break")
        with pytest.raises(grpc.RpcError) as lost:
            list(call(b"", timeout=20, metadata=[("traceparent", parent.traceparent("01"))]))
    (span,) = tagging_envoy.receiver.trace(parent.trace_id, 1)

    assert lost.value.code() == grpc.StatusCode.DATA_LOSS
    assert (span.attributes["status"], span.attributes["format"]) == ("15", "15-application/grpc")


def test_format_strings_have_the_values_of_envoys_access_log(tagging_envoy, access_logs):
    headers = [("x-user", "ada"), ("x-link", "/l?m")]
    span = only_span(tagging_envoy, "operators", "/a?q=a%20b+c&p=xy", headers)
    logged, recorded = logged_and_recorded(tagging_envoy, access_logs["operators"], span)

    assert recorded == logged
    absent = {operator for operator in OPERATORS if "none" in operator.lower() and "?" not in operator}
    assert set(OPERATORS) - recorded.keys() == absent | {
        operator for operator in OPERATORS if "GRPC_STATUS" in operator or "SUBJECT" in operator
    }


def test_format_strings_have_the_grpc_status_of_envoys_access_log(tagging_envoy, access_logs):
    parent = new_context()
    address = f"127.0.0.1:{tagging_envoy.lane('operators-grpc').frontend_inbound}"
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_stream(f"/{GRPC_SERVICE}/Break")
        with pytest.raises(grpc.RpcError):
            list(call(b"", timeout=20, metadata=[("traceparent", parent.traceparent("01"))]))
    (span,) = tagging_envoy.receiver.trace(parent.trace_id, 1)
    logged, recorded = logged_and_recorded(tagging_envoy, access_logs["operators-grpc"], span)

    assert recorded == logged
    named = {operator: value for operator, value in recorded.items() if "GRPC_STATUS" in operator}
    assert list(named.values()) == ["DataLoss", "DATA_LOSS", "15", "15"]


def test_tags_are_taken_as_they_are_pasted(tagging_envoy):
    expected = {"user": "ada", "region": "eu-west-1", "zone": "none", "mesh": "prod", "code": "200"}
    for pasted in PASTED:
        span = only_span(tagging_envoy, pasted, headers=[("x-user", "ada")])
        # Envoy Gateway's spelling has no format strings.
        known = {key: text for key, text in expected.items() if key != "code" or "gateway" not in pasted}
        assert {key: span.attributes[key] for key in known} == known, pasted


CREDENTIALS = {
    "request header": (named("request_header", "Authorization"), "request_header.name"),
    "response header": (named("response_header", "set-cookie"), "response_header.name"),
    "format": ({"value": "%REQ(COOKIE)%"}, "value"),
    "expression": ({"cel": 'request.headers["x-api-key"]'}, "cel"),
    "attribute": ({"property": {"path": "request.headers.x-api-key"}}, "property.path"),
    "all headers": ({"property": {"path": "request.headers"}}, "property.path"),
}


def test_expressions_that_envoy_does_not_compile_are_refused(outermost_envoy):
    expressions = {"text": "1 +", "function": "split(request.path)", "several": "1), (2", "empty": " "}
    texts = {row: json.dumps({"custom_tags": [{"tag": "a", "cel": cel}]}) for row, cel in expressions.items()}
    for row, found in checked(outermost_envoy, texts).items():
        (error,) = found.errors
        assert not found.is_taken, row
        assert error == (
            "sidespan: configuration refused: custom_tags[0].cel: expected a CEL expression of at most 2048 bytes "
            f'that Envoy compiles (its log has the reason at `info`), but found "{expressions[row]}"'
        )


def test_credentials_are_refused(newest_envoy):
    texts = {row: json.dumps({"custom_tags": [{"tag": "a", **tag}]}) for row, (tag, _) in CREDENTIALS.items()}
    for row, found in checked(newest_envoy, texts).items():
        (error,) = found.errors
        assert not found.is_taken, row
        path = f"custom_tags[0].{CREDENTIALS[row][1]}"
        assert error.startswith(f"sidespan: configuration refused: {path}: expected "), row


def test_credentials_that_are_allowed_by_name_are_recorded(tagging_envoy):
    certificate = "By=spiffe://a;Hash=1"
    span = only_span(tagging_envoy, "allowed", headers=[("x-forwarded-client-cert", certificate)])
    assert span.attributes["who"] == hashlib.sha256(certificate.encode()).hexdigest()[:32]


def test_attributes_beyond_the_limits_are_left_out_and_counted(tagging_envoy):
    dropped_before = tagging_envoy.stats()["sidespan_attributes_dropped_total"]
    span = only_span(tagging_envoy, "limits", headers=[("x-long", ("é" * 40).encode())])
    kept = [key for key in span.attributes if key.startswith("tag.")]
    dropped = dropped_before + len(TOO_MANY) - len(kept)
    tagging_envoy.wait_for_stats(lambda stats: stats["sidespan_attributes_dropped_total"] == dropped)

    assert len(span.attributes) == 30
    assert kept == [f"tag.{index}" for index in range(len(kept))]
    assert {span.attributes[key] for key in kept} == {"é" * 32}
    assert "http.response.status_code" in span.attributes
