// A small service on net/http, for the middle of a mesh, instrumented with OpenTelemetry's SDK.
//
// GET /call answers what the next service answered, GET /healthz that this one runs. $PORT is where
// it listens, on loopback or on $HOST, and $NEXT is the URL it calls; the last service has none.
// Where spans go, the sampler and the service's name come from OpenTelemetry's own environment
// variables.
package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/contrib/propagators/autoprop"
	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const stopSeconds = 5

// Attributes of the SERVER span, by the header that Envoy wrote.
var meshHeaders = map[string]string{
	"x-request-id":             "mesh.request_id",
	"x-envoy-external-address": "mesh.client_ip",
	"x-forwarded-for":          "http.forwarded_for",
	"x-b3-traceid":             "mesh.b3.trace_id",
}

func main() {
	// log.Fatal runs nothing that was deferred, so it stands alone.
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	exporter, err := otlptracehttp.New(context.Background())
	if err != nil {
		return err
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter))
	otel.SetTracerProvider(provider)
	composite := propagation.NewCompositeTextMapPropagator(
		propagation.TraceContext{},
		propagation.Baggage{},
		b3.New(b3.WithInjectEncoding(b3.B3MultipleHeader)),
	)
	// Go's SDK alone does not read $OTEL_PROPAGATORS: this does, and takes the composite without it.
	otel.SetTextMapPropagator(autoprop.NewTextMapPropagator(composite))

	mux := http.NewServeMux()
	client := &http.Client{Transport: otelhttp.NewTransport(http.DefaultTransport)}
	mux.Handle("GET /call", otelhttp.NewHandler(withMeshAttributes(call(client)), "GET /call"))
	// Not instrumented: a probe comes past the sidecar, so the SDK would start a trace for each.
	mux.HandleFunc("GET /healthz", ok)

	address := net.JoinHostPort(cmp.Or(os.Getenv("HOST"), "127.0.0.1"), os.Getenv("PORT"))
	server := &http.Server{Addr: address, Handler: mux}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-stopping.Done():
	}
	// What is queued would be lost with the process.
	soon, cancel := context.WithTimeout(context.Background(), stopSeconds*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(soon), provider.Shutdown(soon))
}

// withMeshAttributes puts what the mesh said of a request on the span that otelhttp has begun.
func withMeshAttributes(next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		span := trace.SpanFromContext(request.Context())
		for header, name := range meshHeaders {
			if value := request.Header.Get(header); value != "" {
				span.SetAttributes(attribute.String(name, value))
			}
		}
		if attempt, err := strconv.ParseUint(request.Header.Get("x-envoy-attempt-count"), 10, 31); err == nil {
			span.SetAttributes(attribute.Int64("mesh.retry_count", int64(attempt)))
		}
		next.ServeHTTP(response, request)
	})
}

func call(client *http.Client) http.HandlerFunc {
	return func(response http.ResponseWriter, request *http.Request) {
		url := os.Getenv("NEXT")
		if url == "" {
			ok(response, request)
			return
		}
		next, err := http.NewRequestWithContext(request.Context(), http.MethodGet, url, nil)
		if err != nil {
			http.Error(response, err.Error(), http.StatusInternalServerError)
			return
		}
		// The SDK writes the context. The request's id is Envoy's, which it keeps only if it comes along.
		if id := request.Header.Get("x-request-id"); id != "" {
			next.Header.Set("x-request-id", id)
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

func ok(response http.ResponseWriter, _ *http.Request) {
	io.WriteString(response, "ok\n")
}
