"""Extracts contexts with the propagators of OpenTelemetry's Python SDK.

A line of JSON in, `{"formats": ["tracecontext"], "headers": [["name", "value"]]}`, a line out:
`{"trace_id", "span_id", "sampled", "trace_state"}`, or null where there is no context. For the format
`baggage` values by key come out.
"""

import json
import logging
import sys

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.aws import AwsXRayPropagator
from opentelemetry.propagators.b3 import B3MultiFormat
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.propagators.ot_trace import OTTracePropagator
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

PROPAGATORS = {
    "tracecontext": TraceContextTextMapPropagator(),
    "b3": B3MultiFormat(),
    "jaeger": JaegerPropagator(),
    "xray": AwsXRayPropagator(),
    "ottrace": OTTracePropagator(),
    "baggage": W3CBaggagePropagator(),
}


class Lines(Getter):
    """Header lines as a server has them: names in any case, each line of its own."""

    def get(self, carrier, key):
        return [value for name, value in carrier if name == key.lower()] or None

    def keys(self, carrier):
        return [name for name, _ in carrier]


def extract(formats: list[str], headers: list[list[str]]) -> dict | None:
    context = Context()
    # The last one that finds a context wins.
    for name in reversed(formats):
        context = PROPAGATORS[name].extract(headers, context, Lines())
    if formats == ["baggage"]:
        return dict(baggage.get_all(context))
    found = trace.get_current_span(context).get_span_context()
    if not found.is_valid:
        return None
    return {
        "trace_id": trace.format_trace_id(found.trace_id),
        "span_id": trace.format_span_id(found.span_id),
        "sampled": found.trace_flags.sampled,
        "trace_state": [f"{key}={value}" for key, value in found.trace_state.items()],
    }


logging.disable()
for line in sys.stdin:
    print(json.dumps(extract(**json.loads(line))))
