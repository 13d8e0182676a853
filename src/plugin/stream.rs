//! One request, from its headers to its end.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, MapType};

use super::attached::Attached;
use super::host;
use crate::filter::late::LateRequest;
use crate::http::head::{Head, pairs};
use crate::propagation;
use crate::propagation::response::ResponseContext;
use crate::span::ActiveSpan;

/// One request.
pub(super) struct Stream {
    attached: Option<Rc<Attached>>,
    /// Boxed, since most requests have none.
    pub span: Option<Box<ActiveSpan>>,
    /// The parts of a span, in case the request meets a condition of `export_on`.
    pub late: Option<Box<LateRequest>>,
    pub response_context: ResponseContext,
    /// The trace headers of this filter, for the few requests that are checked.
    pub written_headers: Option<Box<TraceHeaders>>,
}

/// Names and values of the header lines that name a trace, sorted.
pub(super) type TraceHeaders = Vec<(Vec<u8>, Vec<u8>)>;

impl Stream {
    pub(super) fn new(attached: Option<Rc<Attached>>) -> Self {
        Self {
            attached,
            span: None,
            late: None,
            response_context: ResponseContext::Unchanged,
            written_headers: None,
        }
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        if let Some(attached) = self.attached.clone() {
            attached.plugin.on_request(end_of_stream, self);
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if !matches!(self.response_context, ResponseContext::Unchanged) {
            self.edit_response();
        }
        if let Some(span) = &mut self.span {
            span.response_started(host::now());
        } else if let Some(late) = &mut self.late {
            late.first_byte_unix_nanos.get_or_insert_with(host::now);
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let Some(attached) = &self.attached else {
            return;
        };
        if let Some(written) = self.written_headers.take() {
            attached.plugin.check_overwritten(&written);
        }
        if let Some(span) = self.span.take() {
            attached.on_end(span);
        } else if let Some(late) = self.late.take() {
            attached.on_late_end(&late);
        }
    }
}

impl Stream {
    /// Edits the headers of the response as `response_context` says. A second call does nothing.
    #[inline(never)]
    fn edit_response(&mut self) {
        if let Some(attached) = &self.attached {
            let context = std::mem::take(&mut self.response_context);
            for edit in attached.plugin.config.response.edits(&context) {
                host::edit_header(MapType::HttpResponseHeaders, &edit);
            }
        }
    }
}

/// Reads the trace headers of the current request.
pub(super) fn trace_headers() -> TraceHeaders {
    let headers = host::headers(MapType::HttpRequestHeaders).unwrap_or_default();
    propagation::trace_headers(&Head::new(pairs(&headers)))
}
