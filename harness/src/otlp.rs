//! Exported spans. Their OTLP bytes are decoded by the crate opentelemetry-proto, independently of the
//! filter's encoder. <https://github.com/open-telemetry/opentelemetry-proto>

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// A span with its resource and the name of its scope.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportedSpan {
    pub(crate) resource: Vec<KeyValue>,
    pub(crate) scope: String,
    pub span: Span,
}

/// Decodes the body of an export call into its spans.
pub fn decode(body: &[u8]) -> Result<Vec<ExportedSpan>, String> {
    let request = ExportTraceServiceRequest::decode(body)
        .map_err(|error| format!("expected an ExportTraceServiceRequest, but found {error}"))?;
    let mut spans = Vec::new();
    for resource_spans in request.resource_spans {
        let resource =
            resource_spans.resource.map(|resource| resource.attributes).unwrap_or_default();
        for scope_spans in resource_spans.scope_spans {
            let scope = scope_spans.scope.map(|scope| scope.name).unwrap_or_default();
            spans.extend(scope_spans.spans.into_iter().map(|span| ExportedSpan {
                resource: resource.clone(),
                scope: scope.clone(),
                span,
            }));
        }
    }
    Ok(spans)
}
