"""An application whose metrics OpenTelemetry's SDK serves to Prometheus.

$PORT is where it listens, $METRICS_PORT where its metrics are; the rest is OpenTelemetry's own
environment variables. It is not among the examples, which leave metrics to the user.
"""

import os

from flask import Flask
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))
start_http_server(int(os.environ["METRICS_PORT"]), "127.0.0.1")

app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)


@app.get("/orders/<number>")
def order(number):
    return number


@app.get("/fail")
def fail():
    return "failed", 503


app.run("127.0.0.1", int(os.environ["PORT"]))
