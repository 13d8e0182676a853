// Extracts contexts with the propagators of OpenTelemetry's Node SDK; lines as in ../python/extract.py.

const readline = require("node:readline");
const { ROOT_CONTEXT, isSpanContextValid, propagation, trace } = require("@opentelemetry/api");
const { W3CBaggagePropagator, W3CTraceContextPropagator } = require("@opentelemetry/core");
const { AWSXRayPropagator } = require("@opentelemetry/propagator-aws-xray");
const { B3Propagator } = require("@opentelemetry/propagator-b3");
const { JaegerPropagator } = require("@opentelemetry/propagator-jaeger");
const { OTTracePropagator } = require("@opentelemetry/propagator-ot-trace");

const PROPAGATORS = {
  tracecontext: new W3CTraceContextPropagator(),
  b3: new B3Propagator(),
  jaeger: new JaegerPropagator(),
  xray: new AWSXRayPropagator(),
  ottrace: new OTTracePropagator(),
  baggage: new W3CBaggagePropagator(),
};

// Header lines as Node's server has them in `headersDistinct`; one line is a value, several a list.
const getter = {
  get: (carrier, key) => carrier.get(key.toLowerCase()),
  keys: (carrier) => [...carrier.keys()],
};

function extract({ formats, headers }) {
  const carrier = new Map();
  for (const [name, value] of headers) {
    const known = carrier.get(name);
    carrier.set(name, known === undefined ? value : [].concat(known, value));
  }
  let context = ROOT_CONTEXT;
  // The last one that finds a context wins.
  for (const name of formats.toReversed()) {
    context = PROPAGATORS[name].extract(context, carrier, getter);
  }
  if (formats[0] === "baggage") {
    const entries = propagation.getBaggage(context)?.getAllEntries() ?? [];
    return Object.fromEntries(entries.map(([key, { value }]) => [key, value]));
  }
  const found = trace.getSpanContext(context);
  if (found === undefined || !isSpanContextValid(found)) {
    return null;
  }
  return {
    trace_id: found.traceId,
    span_id: found.spanId,
    sampled: (found.traceFlags & 1) === 1,
    trace_state: (found.traceState?.serialize() ?? "").split(",").filter((member) => member !== ""),
  };
}

readline
  .createInterface({ input: process.stdin, terminal: false })
  .on("line", (line) => console.log(JSON.stringify(extract(JSON.parse(line)))));
