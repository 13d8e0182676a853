// OpenTelemetry's SDK for Node beside the sidecar: HTTP and Express, three formats of context, and
// what the mesh said of a request in headers.
//
// Load it before anything that it instruments: `require("./tracing")` is the application's first
// line. Where spans go, the sampler and the service's name come from OpenTelemetry's own
// environment variables.
const { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } = require("@opentelemetry/core");
const { ExpressInstrumentation, ExpressLayerType } = require("@opentelemetry/instrumentation-express");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
const { B3InjectEncoding, B3Propagator } = require("@opentelemetry/propagator-b3");
const { NodeSDK } = require("@opentelemetry/sdk-node");

const propagator = new CompositePropagator({
  propagators: [
    new W3CTraceContextPropagator(),
    new W3CBaggagePropagator(),
    new B3Propagator({ injectEncoding: B3InjectEncoding.MULTI_HEADER }),
  ],
});

// Attributes of the SERVER span, by the header that Envoy wrote.
const MESH_HEADERS = {
  "x-request-id": "mesh.request_id",
  "x-envoy-external-address": "mesh.client_ip",
  "x-forwarded-for": "http.forwarded_for",
  "x-b3-traceid": "mesh.b3.trace_id",
};

function meshAttributes(headers) {
  const attributes = {};
  for (const [header, attribute] of Object.entries(MESH_HEADERS)) {
    if (headers[header]) attributes[attribute] = headers[header];
  }
  const attempt = headers["x-envoy-attempt-count"];
  if (/^[0-9]{1,9}$/.test(attempt)) attributes["mesh.retry_count"] = Number(attempt);
  return attributes;
}

const sdk = new NodeSDK({
  // Without one in the code the SDK follows the variable.
  textMapPropagator: process.env.OTEL_PROPAGATORS ? undefined : propagator,
  instrumentations: [
    new HttpInstrumentation({
      // Of incoming requests alone. `requestHook` is called for outgoing ones too, which have no `headers`.
      startIncomingSpanHook: (request) => meshAttributes(request.headers),
      // A probe comes past the sidecar, so the SDK would start a trace for each.
      ignoreIncomingRequestHook: (request) => request.url === "/healthz",
    }),
    // For the route alone, which names the SERVER span. A span for each middleware and one for the
    // handler would stand between it and the CLIENT spans, and say the same.
    new ExpressInstrumentation({ ignoreLayersType: [ExpressLayerType.MIDDLEWARE, ExpressLayerType.REQUEST_HANDLER] }),
  ],
  // Traces alone: the SDK would send metrics and logs to the same place.
  metricReaders: [],
  logRecordProcessors: [],
});
sdk.start();

// What is queued would be lost with the process.
process.once("SIGTERM", () => sdk.shutdown().finally(() => process.exit(0)));
