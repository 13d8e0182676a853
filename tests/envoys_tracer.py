"""Envoy's own tracer, left on beside the filter."""

from topology import connection_manager

_TRACE = "type.googleapis.com/envoy.config.trace.v3"
_CLUSTER = {"cluster_name": "otel-collector"}
PROVIDERS = {
    "opentelemetry": {
        "@type": f"{_TRACE}.OpenTelemetryConfig",
        "grpc_service": {"envoy_grpc": _CLUSTER, "timeout": "0.25s"},
        "service_name": "envoy",
    },
    "zipkin": {
        "@type": f"{_TRACE}.ZipkinConfig",
        "collector_cluster": "otel-collector",
        "collector_endpoint": "/api/v2/spans",
        "collector_endpoint_version": "HTTP_JSON",
    },
}


def trace_too(resources: dict, provider: str = "opentelemetry") -> None:
    """Switches Envoy's own tracing on in every listener of a lane."""
    typed = PROVIDERS[provider]
    for listener in resources["listeners"]:
        connection_manager(listener)["tracing"] = {
            "random_sampling": {"value": 100},
            "provider": {"name": f"envoy.tracers.{provider}", "typed_config": typed},
        }
