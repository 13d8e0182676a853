"""A small service on Flask, for the middle of a mesh, instrumented with OpenTelemetry's SDK.

GET /call answers what the next service answered, GET /healthz that this one runs. $PORT is where
it listens, on loopback or on $HOST, and $NEXT is the URL it calls; the last service has none. Where
spans go, the sampler and the service's name come from OpenTelemetry's own environment variables.
"""

import os
import signal
import sys

import requests
import waitress
from flask import Flask, request
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.propagate import set_global_textmap
from opentelemetry.propagators.b3 import B3MultiFormat
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

# Attributes of the SERVER span, by the header that Envoy wrote, as WSGI names it.
MESH_HEADERS = {
    "HTTP_X_REQUEST_ID": "mesh.request_id",
    "HTTP_X_ENVOY_EXTERNAL_ADDRESS": "mesh.client_ip",
    "HTTP_X_FORWARDED_FOR": "http.forwarded_for",
    "HTTP_X_B3_TRACEID": "mesh.b3.trace_id",
}
ATTEMPT_COUNT = "HTTP_X_ENVOY_ATTEMPT_COUNT"
LONGEST_COUNT = 9


def add_mesh_attributes(span, environ):
    """Puts what the mesh said of a request on the SERVER span, before the handler runs."""
    for header, attribute in MESH_HEADERS.items():
        if value := environ.get(header):
            span.set_attribute(attribute, value)
    attempt = environ.get(ATTEMPT_COUNT, "")
    if attempt.isascii() and attempt.isdigit() and len(attempt) <= LONGEST_COUNT:
        span.set_attribute("mesh.retry_count", int(attempt))


provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
# Where the variable is set, the API has followed it by now.
if not os.environ.get("OTEL_PROPAGATORS"):
    set_global_textmap(
        CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator(), B3MultiFormat()])
    )

# The attributes' names that the filter and the SDKs for Node and Go use; Flask's instrumentation has older ones.
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
app = Flask(__name__)
# A probe comes past the sidecar, so the SDK would start a trace for each.
FlaskInstrumentor().instrument_app(app, request_hook=add_mesh_attributes, excluded_urls="/healthz$")
RequestsInstrumentor().instrument()


@app.get("/healthz")
def healthz():
    return "ok\n"


@app.get("/call")
def call():
    if not (next_url := os.environ.get("NEXT")):
        return "ok\n"
    # The SDK writes the context. The request's id is Envoy's, which it keeps only if it comes along.
    id = request.headers.get("x-request-id")
    try:
        answer = requests.get(next_url, headers={"x-request-id": id} if id else {}, timeout=10)
    except requests.RequestException as error:
        return f"{error}\n", 502, {"content-type": "text/plain"}
    return answer.content, answer.status_code, {"content-type": answer.headers.get("content-type", "text/plain")}


# The end of the program sends what is queued; without this, SIGTERM would be no such end.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
waitress.serve(app, host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ["PORT"]))
