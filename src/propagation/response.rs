//! Response headers that tell the client which trace its request belongs to.
//!
//! ```text
//! traceresponse = "00-" trace-id "-" span-id "-" flags      ; as in traceparent
//! server-timing = "traceparent;desc=" DQUOTE traceresponse DQUOTE
//! ```
//!
//! <https://w3c.github.io/trace-context/#traceresponse-header>. `server-timing` is the only response
//! header of a page that scripts in a browser can read: <https://www.w3.org/TR/server-timing/>.

use std::borrow::Cow;

use crate::http::digits::encode_hex;
use crate::http::edits::HeaderEdit;
use crate::propagation::context::Context;
use crate::propagation::format::tracecontext;

/// Which headers are added to which responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    pub trace_id_header: Option<String>,
    pub traceresponse: bool,
    pub server_timing: bool,
    pub when: When,
}

/// Which requests get headers in their responses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum When {
    #[default]
    Always,
    /// Requests that are sampled.
    Sampled,
    /// Requests that a rule forced.
    Forced,
}

/// What to do with the trace headers of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ResponseContext {
    /// Leave them as the upstream wrote them.
    #[default]
    Unchanged,
    /// Remove those that only the filter may write: the upstream may have forged them.
    Remove,
    /// Write this context. Boxed, because most requests have none.
    Write(Box<Context>),
}

impl Response {
    /// Decides what to do with the trace headers of the response. `shown` returns the context to write.
    #[inline]
    pub fn context(
        &self,
        is_forced: bool,
        context: &Context,
        shown: impl FnOnce() -> Context,
    ) -> ResponseContext {
        if self.trace_id_header.is_none() && !self.traceresponse && !self.server_timing {
            return ResponseContext::Unchanged;
        }
        let writes = match self.when {
            When::Always => true,
            When::Sampled => context.sampling.is_sampled(),
            // A limit may refuse a request that a rule forced.
            When::Forced => is_forced && context.sampling.is_sampled(),
        };
        if writes { ResponseContext::Write(Box::new(shown())) } else { ResponseContext::Remove }
    }

    /// Returns the changes to the headers of a response.
    pub fn edits(&self, context: &ResponseContext) -> Vec<HeaderEdit<'_>> {
        match context {
            ResponseContext::Unchanged => Vec::new(),
            ResponseContext::Remove => {
                let own = self.own_headers().map(Cow::Borrowed);
                own.map(|name| HeaderEdit::Remove { name }).collect()
            }
            ResponseContext::Write(context) => self.headers(context),
        }
    }

    /// Returns the names of the headers that only the filter may write: clients trust them.
    fn own_headers(&self) -> impl Iterator<Item = &str> {
        let traceresponse = self.traceresponse.then_some(TRACERESPONSE);
        self.trace_id_header.as_deref().into_iter().chain(traceresponse)
    }

    /// Returns the changes that write this context.
    fn headers(&self, context: &Context) -> Vec<HeaderEdit<'_>> {
        let mut headers = Vec::new();
        if let Some(name) = &self.trace_id_header {
            let mut value = vec![0; 32];
            encode_hex(&context.trace_id.to_bytes(), &mut value);
            headers.push(HeaderEdit::Set { name, value });
        }
        let traceresponse = tracecontext::traceparent(context);
        if self.traceresponse {
            let value = traceresponse.to_vec();
            headers.push(HeaderEdit::Set { name: TRACERESPONSE, value });
        }
        if self.server_timing {
            let mut value = b"traceparent;desc=\"".to_vec();
            value.extend_from_slice(&traceresponse);
            value.push(b'"');
            headers.push(HeaderEdit::Add { name: SERVER_TIMING, value });
        }
        headers
    }
}

const TRACERESPONSE: &str = "traceresponse";
const SERVER_TIMING: &str = "server-timing";

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceId};

    use super::*;
    use crate::propagation::context::Sampling;

    const CONTEXT: Context = Context {
        trace_id: TraceId::from_bytes([0xab; 16]),
        span_id: SpanId::from_bytes([0xcd; 8]),
        sampling: Sampling::Sampled,
        random: true,
        short_trace_id: true,
    };
    const TRACE: &str = "abababababababababababababababab";

    #[track_caller]
    fn check(response: Response, expected: &[HeaderEdit<'_>]) {
        assert_eq!(response.edits(&ResponseContext::Write(Box::new(CONTEXT))), expected);
        assert_eq!(response.edits(&ResponseContext::Unchanged), []);
        let writes = response.context(false, &CONTEXT, || CONTEXT) != ResponseContext::Unchanged;
        assert_eq!(writes, !expected.is_empty());
    }

    fn set<'n>(name: &'n str, value: &str) -> HeaderEdit<'n> {
        HeaderEdit::Set { name, value: value.as_bytes().to_vec() }
    }

    #[test]
    fn configured_headers_are_written() {
        let traceresponse = format!("00-{TRACE}-cdcdcdcdcdcdcdcd-03");
        let timing = format!("traceparent;desc=\"{traceresponse}\"");
        let named =
            Response { trace_id_header: Some("x-trace-id".to_owned()), ..Response::default() };
        check(Response::default(), &[]);
        check(named.clone(), &[set("x-trace-id", TRACE)]);
        check(
            Response { traceresponse: true, ..Response::default() },
            &[set("traceresponse", &traceresponse)],
        );
        check(
            Response { traceresponse: true, server_timing: true, ..named },
            &[
                set("x-trace-id", TRACE),
                set("traceresponse", &traceresponse),
                HeaderEdit::Add { name: "server-timing", value: timing.into_bytes() },
            ],
        );
    }

    #[test]
    fn headers_that_the_filter_replaces_are_removed() {
        let all = Response {
            trace_id_header: Some("x-trace-id".to_owned()),
            traceresponse: true,
            server_timing: true,
            when: When::Forced,
        };
        let written = all.edits(&ResponseContext::Write(Box::new(CONTEXT)));
        let replaced: Vec<_> = written
            .into_iter()
            .filter_map(|edit| match edit {
                HeaderEdit::Set { name, .. } => Some(HeaderEdit::Remove { name: name.into() }),
                _ => None,
            })
            .collect();
        assert_eq!(replaced.len(), 2);
        assert_eq!(all.edits(&ResponseContext::Remove), replaced);
        assert_eq!(Response::default().edits(&ResponseContext::Remove), []);
    }

    #[test]
    fn the_decision_selects_the_responses_with_headers() {
        let unsampled = Context { sampling: Sampling::NotSampled, ..CONTEXT };
        for (when, is_forced, context, expected) in [
            (When::Always, false, unsampled, true),
            (When::Sampled, false, unsampled, false),
            (When::Sampled, false, CONTEXT, true),
            (When::Forced, false, CONTEXT, false),
            (When::Forced, true, CONTEXT, true),
            (When::Forced, true, unsampled, false),
        ] {
            let response = Response { traceresponse: true, when, ..Response::default() };
            let expected = if expected {
                ResponseContext::Write(Box::new(CONTEXT))
            } else {
                ResponseContext::Remove
            };
            let found = response.context(is_forced, &context, || CONTEXT);
            assert_eq!(found, expected, "{when:?} {is_forced}");
            let without_headers = Response { when, ..Response::default() };
            let found = without_headers.context(is_forced, &context, || CONTEXT);
            assert_eq!(found, ResponseContext::Unchanged, "{when:?} {is_forced}");
        }
    }
}
