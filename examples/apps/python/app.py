"""A small service, instrumented with OpenTelemetry's SDK for Python, for Flask and for requests.

GET /call answers what the next service answered. $PORT is where it listens, $NEXT whom it calls;
the rest is OpenTelemetry's own environment variables.
"""

import os

import requests
from flask import Flask
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)

app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)
RequestsInstrumentor().instrument()


@app.get("/call")
def call():
    answer = requests.get(os.environ["NEXT"], timeout=10)
    return answer.content, answer.status_code, {"content-type": answer.headers["content-type"]}


app.run("127.0.0.1", int(os.environ["PORT"]))
