//! Response headers that tell the client its trace.
//!
//! ```text
//! traceresponse = "00-" trace-id "-" span-id "-" flags      ; as in traceparent
//! server-timing = "traceparent;desc=" DQUOTE traceresponse DQUOTE
//! ```
//!
//! <https://w3c.github.io/trace-context/#traceresponse-header>. `server-timing` is the only response
//! header of a page that scripts in a browser can read: <https://www.w3.org/TR/server-timing/>.

use crate::http::digits::encode_hex;
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

/// One header to add to a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHeader<'c> {
    pub name: &'c str,
    pub value: Vec<u8>,
    /// Whether lines of that name from the upstream are removed.
    pub replace: bool,
}

impl Response {
    /// Tells whether the response to a request with this context gets headers.
    #[inline]
    pub fn is_for(&self, is_forced: bool, context: &Context) -> bool {
        if self.trace_id_header.is_none() && !self.traceresponse && !self.server_timing {
            return false;
        }
        match self.when {
            When::Always => true,
            When::Sampled => context.sampling.is_sampled(),
            // A limit may refuse a request that a rule forced.
            When::Forced => is_forced && context.sampling.is_sampled(),
        }
    }

    /// Returns the headers that only the filter may write: a client trusts them to be the filter's.
    pub fn own_headers(&self) -> impl Iterator<Item = &str> {
        let traceresponse = self.traceresponse.then_some(TRACERESPONSE);
        self.trace_id_header.as_deref().into_iter().chain(traceresponse)
    }

    /// Returns the headers of the response to a request with this context.
    pub fn headers(&self, context: &Context) -> Vec<ResponseHeader<'_>> {
        let mut headers = Vec::new();
        if let Some(name) = &self.trace_id_header {
            let mut value = vec![0; 32];
            encode_hex(&context.trace_id.to_bytes(), &mut value);
            headers.push(ResponseHeader { name, value, replace: true });
        }
        let traceresponse = tracecontext::traceparent(context);
        if self.traceresponse {
            let value = traceresponse.to_vec();
            headers.push(ResponseHeader { name: TRACERESPONSE, value, replace: true });
        }
        if self.server_timing {
            let mut value = b"traceparent;desc=\"".to_vec();
            value.extend_from_slice(&traceresponse);
            value.push(b'"');
            headers.push(ResponseHeader { name: SERVER_TIMING, value, replace: false });
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
    fn check(response: Response, expected: &[(&str, &str, bool)]) {
        let headers = response.headers(&CONTEXT);
        let found: Vec<_> = headers
            .iter()
            .map(|header| {
                (header.name, std::str::from_utf8(&header.value).unwrap(), header.replace)
            })
            .collect();
        assert_eq!(found, expected);
        assert_eq!(response.is_for(false, &CONTEXT), !expected.is_empty());
    }

    #[test]
    fn configured_headers_are_written() {
        let traceresponse = format!("00-{TRACE}-cdcdcdcdcdcdcdcd-03");
        let timing = format!("traceparent;desc=\"{traceresponse}\"");
        let named =
            Response { trace_id_header: Some("x-trace-id".to_owned()), ..Response::default() };
        check(Response::default(), &[]);
        check(named.clone(), &[("x-trace-id", TRACE, true)]);
        check(
            Response { traceresponse: true, ..Response::default() },
            &[("traceresponse", &traceresponse, true)],
        );
        check(
            Response { traceresponse: true, server_timing: true, ..named },
            &[
                ("x-trace-id", TRACE, true),
                ("traceresponse", &traceresponse, true),
                ("server-timing", &timing, false),
            ],
        );
    }

    #[test]
    fn own_headers_are_those_that_are_replaced() {
        let all = Response {
            trace_id_header: Some("x-trace-id".to_owned()),
            traceresponse: true,
            server_timing: true,
            when: When::Forced,
        };
        let written = all.headers(&CONTEXT);
        let replaced = written.iter().filter(|header| header.replace).map(|header| header.name);
        assert!(replaced.eq(all.own_headers()));
        assert_eq!(Response::default().own_headers().count(), 0);
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
            assert_eq!(response.is_for(is_forced, &context), expected, "{when:?} {is_forced}");
        }
    }
}
