// A small service on Express, for the middle of a mesh.
//
// GET /call answers what the next service answered, GET /healthz that this one runs. $PORT is where
// it listens, on loopback or on $HOST, and $NEXT is the URL it calls; the last service has none.
require("./tracing");

const express = require("express");
const http = require("node:http");

const app = express();

app.get("/healthz", (request, response) => response.send("ok\n"));

app.get("/call", (request, response) => {
  if (!process.env.NEXT) return response.send("ok\n");
  // The SDK writes the context. The request's id is Envoy's, which it keeps only if it comes along.
  const id = request.get("x-request-id");
  const next = http.get(process.env.NEXT, { headers: id ? { "x-request-id": id } : {} }, (answer) => {
    response.writeHead(answer.statusCode, { "content-type": answer.headers["content-type"] ?? "text/plain" });
    answer.pipe(response);
  });
  next.on("error", (error) => response.status(502).type("text").send(`${error.message}\n`));
});

app.listen(Number(process.env.PORT), process.env.HOST ?? "127.0.0.1");
