//! `exporter.batch` and `exporter.retry`: the queue of spans, and retries.

use std::time::Duration;

use serde::Deserialize;

use super::error::{ConfigError, InPath, Result};
use super::shapes::at_least;
use crate::export::queue::QueueLimits;
use crate::export::retry::RetryPolicy;

/// Bounds of the export queue, for each worker.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBatch {
    /// The most spans that are queued or in flight, from 1. Further spans are dropped and counted.
    /// Default: `2048`.
    #[serde(alias = "maxQueueSpans")]
    pub max_queue_spans: Option<u32>,
    /// The most bytes of these spans, encoded as OTLP, from 1. Further spans are dropped and counted.
    /// Default: `8388608`.
    #[serde(alias = "maxQueueBytes")]
    pub max_queue_bytes: Option<u32>,
    /// The most spans in one export request, from 1. A batch of this size is sent at once. Default: `512`.
    #[serde(alias = "maxBatchSpans")]
    pub max_batch_spans: Option<u32>,
    /// The most bytes of spans in one export request, from 1. A larger span is sent alone.
    /// Default: `2097152`.
    #[serde(alias = "maxBatchBytes")]
    pub max_batch_bytes: Option<u32>,
    /// How often a batch that is not full is sent, in milliseconds, from 10. It is not sent while another
    /// batch is in flight. Default: `1000`.
    #[serde(alias = "intervalMs")]
    pub interval_ms: Option<u32>,
}

/// How a batch that the receiver did not accept is retried, as by the Collector's `retry_on_failure`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRetry {
    /// The pause before the first retry, in milliseconds. Each further pause is half as long again. Every pause
    /// varies at random by up to half of its length. Default: `1000`.
    #[serde(alias = "initialIntervalMs")]
    pub initial_interval_ms: Option<u32>,
    /// The longest pause, before the random variation, in milliseconds. Default: `30000`.
    #[serde(alias = "maxIntervalMs")]
    pub max_interval_ms: Option<u32>,
    /// How long a batch is retried after it was first sent, in milliseconds. If a later attempt fails, its
    /// spans are dropped and counted. `0` means no limit. Default: `300000`.
    #[serde(alias = "maxElapsedTimeMs")]
    pub max_elapsed_time_ms: Option<u32>,
}

impl RawBatch {
    pub(super) fn compile(&self) -> Result<(QueueLimits, Duration)> {
        let (max_queue_spans, max_batch_spans) = bounds(
            ("max_queue_spans", self.max_queue_spans.unwrap_or(DEFAULT_MAX_QUEUE_SPANS)),
            ("max_batch_spans", self.max_batch_spans, DEFAULT_MAX_BATCH_SPANS),
        )?;
        let (max_queue_bytes, max_batch_bytes) = bounds(
            ("max_queue_bytes", self.max_queue_bytes.unwrap_or(DEFAULT_MAX_QUEUE_BYTES)),
            ("max_batch_bytes", self.max_batch_bytes, DEFAULT_MAX_BATCH_BYTES),
        )?;
        let interval_ms = self.interval_ms.unwrap_or(DEFAULT_INTERVAL_MS);
        let interval_ms = at_least(MIN_INTERVAL_MS, interval_ms).under("interval_ms")?;
        let limits =
            QueueLimits { max_queue_spans, max_queue_bytes, max_batch_spans, max_batch_bytes };
        Ok((limits, Duration::from_millis(interval_ms.into())))
    }
}

/// Checks the bounds of the queue and of a batch, each given with its key. A batch's default bound is lowered
/// to the bound of the queue.
fn bounds(queue: (&str, u32), batch: (&str, Option<u32>, u32)) -> Result<(u32, u32)> {
    let (queue_key, queue) = queue;
    let queue = at_least(1, queue).under(queue_key)?;
    let (batch_key, batch, default) = batch;
    let batch = at_least(1, batch.unwrap_or(default.min(queue))).under(batch_key)?;
    not_above(queue_key, queue, batch).under(batch_key)?;
    Ok((queue, batch))
}

fn not_above(bound_key: &str, bound: u32, value: u32) -> Result<()> {
    if value > bound {
        let expected = format_args!("at most {bound_key}, which is {bound}");
        return Err(ConfigError::new(expected, value));
    }
    Ok(())
}

impl RawRetry {
    pub(super) fn compile(&self) -> Result<RetryPolicy> {
        let max = at_least(1, self.max_interval_ms.unwrap_or(DEFAULT_MAX_INTERVAL_MS));
        let max = max.under("max_interval_ms")?;
        let initial = self.initial_interval_ms.unwrap_or(DEFAULT_INITIAL_INTERVAL_MS.min(max));
        at_least(1, initial)
            .and_then(|initial| not_above("max_interval_ms", max, initial))
            .under("initial_interval_ms")?;
        let elapsed = self.max_elapsed_time_ms.unwrap_or(DEFAULT_MAX_ELAPSED_TIME_MS);
        let millis = |millis: u32| Duration::from_millis(millis.into());
        Ok(RetryPolicy {
            initial_interval: millis(initial),
            max_interval: millis(max),
            max_elapsed_time: millis(elapsed),
        })
    }
}

const DEFAULT_MAX_QUEUE_SPANS: u32 = 2_048;
const DEFAULT_MAX_BATCH_SPANS: u32 = 512;
const DEFAULT_MAX_QUEUE_BYTES: u32 = 8 << 20;
/// Half of the bytes that gRPC servers accept by default.
const DEFAULT_MAX_BATCH_BYTES: u32 = 2 << 20;
const DEFAULT_INTERVAL_MS: u32 = 1_000;
const DEFAULT_INITIAL_INTERVAL_MS: u32 = 1_000;
const DEFAULT_MAX_INTERVAL_MS: u32 = 30_000;
const DEFAULT_MAX_ELAPSED_TIME_MS: u32 = 300_000;
/// The tick that sends batches also publishes the metrics. More frequent ticks cost CPU without a use.
const MIN_INTERVAL_MS: u32 = 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::testing::{check_refused, parse};

    fn batch(member: &str) -> String {
        format!(r#"{{"exporter": {{"otlp": {{"cluster": "c"}}, "batch": {{{member}}}}}}}"#)
    }

    fn retry(member: &str) -> String {
        format!(r#"{{"exporter": {{"otlp": {{"cluster": "c"}}, "retry": {{{member}}}}}}}"#)
    }

    #[test]
    fn whole_numbers_may_be_written_as_doubles() {
        let config = parse(&batch(r#""interval_ms": 5e1, "maxQueueSpans": 10.0"#)).unwrap();
        let exporter = config.exporter.unwrap();
        assert_eq!(exporter.interval, Duration::from_millis(50));
        assert_eq!((exporter.limits.max_queue_spans, exporter.limits.max_batch_spans), (10, 10));
    }

    #[test]
    fn wrong_bounds_are_refused_with_their_path() {
        let whole = "a whole number from 0 to 4294967295";
        for (json, path, findings) in [
            (batch(r#""max_batch_spans": 0"#), "batch.max_batch_spans", ["from 1 up", "found 0"]),
            (batch(r#""max_queue_spans": 0"#), "batch.max_queue_spans", ["from 1 up", "found 0"]),
            (
                batch(r#""max_batch_spans": 9, "max_queue_spans": 8"#),
                "batch.max_batch_spans",
                ["at most max_queue_spans, which is 8", "found 9"],
            ),
            (
                batch(r#""max_batch_bytes": 9, "max_queue_bytes": 8"#),
                "batch.max_batch_bytes",
                ["at most max_queue_bytes, which is 8", "found 9"],
            ),
            (batch(r#""interval_ms": 1"#), "batch.interval_ms", ["from 10 up", "found 1"]),
            (batch(r#""interval_ms": -10"#), "batch.interval_ms", [whole, "found -10"]),
            (
                batch(r#""interval_ms": 4294967296"#),
                "batch.interval_ms",
                [whole, "found 4294967296"],
            ),
            (batch(r#""interval_ms": 1e300"#), "batch.interval_ms", [whole, "found 1e+300"]),
            (batch(r#""interval_ms": "10""#), "batch.interval_ms", [whole, "found \"10\""]),
            (retry(r#""max_interval_ms": 0"#), "retry.max_interval_ms", ["from 1 up", "found 0"]),
            (
                retry(r#""initial_interval_ms": 0"#),
                "retry.initial_interval_ms",
                ["from 1 up", "found 0"],
            ),
            (
                retry(r#""initialIntervalMs": 40000"#),
                "retry.initial_interval_ms",
                ["at most max_interval_ms, which is 30000", "found 40000"],
            ),
        ] {
            check_refused(&json, &format!("exporter.{path}"), &findings);
        }
    }
}
