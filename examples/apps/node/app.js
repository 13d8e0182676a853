// A small service, instrumented with OpenTelemetry's SDK for Node and its HTTP instrumentation.
//
// GET /call answers what the next service answered. $PORT is where it listens, $NEXT whom it calls;
// the rest is OpenTelemetry's own environment variables.
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
const { NodeSDK } = require("@opentelemetry/sdk-node");

// Before node:http is loaded, since that is what it instruments.
new NodeSDK({ instrumentations: [new HttpInstrumentation()] }).start();

const http = require("node:http");

const server = http.createServer((request, response) => {
  const next = http.get(process.env.NEXT, (answer) => {
    response.writeHead(answer.statusCode, { "content-type": answer.headers["content-type"] ?? "text/plain" });
    answer.pipe(response);
  });
  next.on("error", (error) => response.writeHead(502).end(String(error)));
});
server.listen(Number(process.env.PORT), "127.0.0.1");
