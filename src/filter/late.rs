//! A request that is not sampled, kept until its end shows whether it is exported late.

use super::TakePermits;
use super::stream_end::request_end;
use crate::config::Config;
use crate::sampling::export_on::ExportOn;
use crate::sampling::export_reason::ExportReason;
use crate::sampling::held_heads::{HeldHead, HeldHeads};
use crate::sampling::limit::{BurstShare, Permits};
use crate::span::property_list::ReadProperty;
use crate::span::{self, ActiveSpan, Recording, SpanSettings};

/// Returns the store of request heads; none without `export_on`.
pub(crate) fn held_heads(config: &Config) -> Option<HeldHeads> {
    let export_on = config.export_on.as_ref()?;
    let max_chars = config.span.attribute_limits.value_length as usize;
    Some(HeldHeads::new(export_on.max_held_bytes, max_chars, config.span.uncut_headers()))
}

/// What is kept of such a request to make its span later.
pub(crate) struct LateRequest {
    pub recording: Recording<'static>,
    /// The headers as they arrived: other filters may change them later.
    pub head: HeldHead,
    pub end_of_stream: bool,
    pub start_unix_nanos: u64,
    pub first_byte_unix_nanos: Option<u64>,
}

impl LateRequest {
    /// Returns the condition that the end of the request meets, if any. `values` are those of
    /// [`END_ATTRIBUTES`](super::stream_end::END_ATTRIBUTES), or empty.
    pub(crate) fn reason(
        &self,
        export_on: &ExportOn,
        values: [&[u8]; 2],
        end_unix_nanos: u64,
        property: &ReadProperty<'_>,
    ) -> Option<ExportReason> {
        let duration_nanos = end_unix_nanos.saturating_sub(self.start_unix_nanos);
        let is_grpc = || span::is_grpc(&self.head.head());
        let end = request_end(export_on, values, duration_nanos, &is_grpc, property);
        export_on.matching(&end)
    }

    /// Takes permits for its spans from the limit of late spans and from that of all spans, and tells
    /// whether both granted them.
    pub(crate) fn take_permits(
        &self,
        config: &Config,
        export_on: &ExportOn,
        reason: ExportReason,
        take_permits: &mut TakePermits<'_>,
    ) -> bool {
        let of_all = config.limit.as_ref().map(|limit| (limit, BurstShare::ExceptReserve));
        let permits = Permits::of_request(self.recording.upstream_span_id.is_some());
        export_on.limit.take(reason, &mut |limit| {
            take_permits([Some((limit, BurstShare::Full)), of_all], permits)
        })
    }

    /// Returns its span, which starts when the request started.
    pub(crate) fn span(&self, settings: &SpanSettings, reason: ExportReason) -> Box<ActiveSpan> {
        let Self { recording, end_of_stream, start_unix_nanos, .. } = self;
        let head = self.head.head();
        let mut span =
            ActiveSpan::start(settings, &head, *end_of_stream, recording, *start_unix_nanos);
        span.export_on(reason.key());
        if let Some(unix_nanos) = self.first_byte_unix_nanos {
            span.response_started(unix_nanos);
        }
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::testing::head;
    use crate::sampling::limit::Limit;
    use crate::span::attributes as key;
    use crate::span::testing::{FACTS, decoded, recording};

    fn config(sampling: &str) -> Config {
        let json = format!(
            r#"{{"exporter": {{"otlp": {{"cluster": "c"}}}}, "sampling": {{{sampling} "export_on":
                {{"status": ["5xx"], "min_duration_ms": 2, "limit": {{"per_second": 1}}}}}}}}"#
        );
        Config::parse(json.as_bytes(), &|_| None).unwrap()
    }

    fn request() -> LateRequest {
        let heads = HeldHeads::new(1 << 20, 32, std::iter::empty());
        let lines = [(":method", "GET"), (":path", "/a")];
        LateRequest {
            recording: recording(),
            head: heads.hold(&head(&lines)).unwrap(),
            end_of_stream: true,
            start_unix_nanos: 1_000_000,
            first_byte_unix_nanos: None,
        }
    }

    #[test]
    fn the_end_of_a_request_is_compared_with_the_conditions() {
        let config = config("");
        let export_on = config.export_on.as_ref().unwrap();
        for (status, end_unix_nanos, expected) in [
            (503, 1_000_001, Some(ExportReason::StatusClass(5))),
            (200, 2_999_999, None),
            (200, 3_000_000, Some(ExportReason::Duration)),
            (200, 999_999, None),
        ] {
            let (status, flags) = (u64::to_le_bytes(status), u64::to_le_bytes(0));
            let found = request().reason(export_on, [&status, &flags], end_unix_nanos, &|_| None);
            assert_eq!(found, expected, "{status:?} {end_unix_nanos}");
        }
    }

    #[test]
    fn permits_are_taken_from_the_limits_of_late_spans_and_of_all_spans() {
        for (sampling, has_limit) in [("", false), (r#""limit": {"per_second": 9},"#, true)] {
            let config = config(sampling);
            let export_on = config.export_on.as_ref().unwrap();
            let of_all =
                config.limit.as_ref().map(|limit| (limit.key(), BurstShare::ExceptReserve));
            assert_eq!(of_all.is_some(), has_limit);
            let mut request = request();
            for (upstream_span_id, permits) in
                [(None, Permits::One), (Some(4.into()), Permits::Two)]
            {
                request.recording.upstream_span_id = upstream_span_id;
                for (granted, expected) in [(Ok(()), true), (Err(1), false)] {
                    let mut calls = 0;
                    let mut take = |[of_late, all]: [Option<(&Limit, BurstShare)>; 2], taken| {
                        calls += 1;
                        let (of_late, share) = of_late.unwrap();
                        assert!(of_late.key().starts_with("sidespan.limit.export_on"));
                        assert_eq!(share, BurstShare::Full);
                        assert_eq!(all.map(|(limit, share)| (limit.key(), share)), of_all);
                        assert_eq!(taken, permits);
                        granted
                    };
                    let reason = ExportReason::Duration;
                    let found = request.take_permits(&config, export_on, reason, &mut take);
                    assert_eq!((found, calls), (expected, 1));
                }
            }
        }
    }

    #[test]
    fn heads_are_held_only_for_export_on() {
        let without = Config::parse(b"{}", &|_| None).unwrap();
        assert!(held_heads(&without).is_none());
        let config = config(r#""ratio": 0,"#);
        let heads = held_heads(&config).unwrap();
        let long = "a".repeat(10_000);
        let held = heads.hold(&head(&[("user-agent", long.as_str())])).unwrap();
        let max_chars = config.span.attribute_limits.value_length as usize;
        assert_eq!(held.head().first("user-agent").map(<[u8]>::len), Some(4 * (max_chars + 1)));
    }

    #[test]
    fn a_late_span_has_the_time_of_the_request_and_the_reason() {
        let config = config("");
        let mut request = request();
        for first_byte_unix_nanos in [None, Some(1_000_500)] {
            request.first_byte_unix_nanos = first_byte_unix_nanos;
            let span = request.span(&config.span, ExportReason::GrpcStatus);
            let (span, attributes) = decoded(&span.finish(FACTS).0);
            assert_eq!(span.start_time_unix_nano, 1_000_000);
            assert_eq!(attributes["sidespan.export_on"], "grpc_status");
            assert_eq!(attributes["url.path"], "/a");
            let waited = attributes.get(key::UPSTREAM_TIME_TO_FIRST_BYTE_MS).map(String::as_str);
            assert_eq!(waited, first_byte_unix_nanos.map(|_| "=0.0005"));
        }
    }
}
