// A small service, instrumented with OpenTelemetry's SDK and net/http instrumentation.
//
// GET /call answers what the next service answered. $PORT is where it listens, $NEXT whom it calls;
// the rest is OpenTelemetry's own environment variables.
package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"os"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/contrib/propagators/autoprop"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	exporter, err := otlptracehttp.New(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithBatcher(exporter)))
	// Go's SDK alone does not read $OTEL_PROPAGATORS.
	otel.SetTextMapPropagator(autoprop.NewTextMapPropagator())

	client := http.Client{Transport: otelhttp.NewTransport(http.DefaultTransport)}
	http.Handle("GET /call", otelhttp.NewHandler(call(&client), "call"))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}

func call(client *http.Client) http.HandlerFunc {
	return func(response http.ResponseWriter, request *http.Request) {
		next, err := http.NewRequestWithContext(request.Context(), http.MethodGet, os.Getenv("NEXT"), nil)
		if err != nil {
			http.Error(response, err.Error(), http.StatusInternalServerError)
			return
		}
		answer, err := client.Do(next)
		if err != nil {
			http.Error(response, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		response.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
		response.WriteHeader(answer.StatusCode)
		if _, err := io.Copy(response, answer.Body); err != nil {
			log.Print(err)
		}
	}
}
