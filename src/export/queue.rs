//! Finished spans on their way to the receiver: a bounded queue, and its counts.
//!
//! At any moment, `recorded = exported + dropped + queued`. A queued span waits, is in flight, or will
//! be sent again. A span is dropped only for a [`DropReason`].

use std::collections::VecDeque;
use std::rc::Rc;

use crate::export::delivery::Verdict;
use crate::export::otlp;
use crate::export::retry::{Backoff, RetryPolicy};

/// Bounds of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Most spans that wait or are in flight.
    pub max_queue_spans: u32,
    /// Most bytes of these spans, encoded.
    pub max_queue_bytes: u32,
    /// Most spans in one batch, from 1 to `max_queue_spans`.
    pub max_batch_spans: u32,
    /// Most encoded bytes in one batch, unless one span has more.
    pub max_batch_bytes: u32,
}

/// Why a span was not exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// The queue was full when the span ended.
    QueueFull,
    /// The receiver refused its batch for good.
    Rejected,
    /// The receiver accepted its batch without this span.
    PartialSuccess,
    /// The receiver did not accept its batch within the time for retries.
    RetriesExhausted,
    /// The receiver found a batch of this span alone too large.
    TooLarge,
    /// Its configuration was removed, and no other exporter took it over.
    ConfigurationRemoved,
}

impl DropReason {
    pub(crate) const ALL: [Self; 6] = [
        Self::QueueFull,
        Self::Rejected,
        Self::PartialSuccess,
        Self::RetriesExhausted,
        Self::TooLarge,
        Self::ConfigurationRemoved,
    ];

    /// Returns the name in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Rejected => "rejected",
            Self::PartialSuccess => "partial_success",
            Self::RetriesExhausted => "retries_exhausted",
            Self::TooLarge => "too_large",
            Self::ConfigurationRemoved => "configuration_removed",
        }
    }
}

/// How many spans were recorded, and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SpanCounts {
    pub recorded: u64,
    pub exported: u64,
    /// By reason, in the order of [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
    pub queued: u64,
    pub queued_bytes: u64,
}

impl SpanCounts {
    fn drop(&mut self, spans: u64, reason: DropReason) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += spans;
        }
    }

    /// Counts a batch in the queue as dropped.
    fn give_up(&mut self, batch: &Batch, reason: DropReason) {
        self.drop(batch.spans.into(), reason);
        self.subtract(batch);
    }

    /// Subtracts a batch that left the queue.
    fn subtract(&mut self, batch: &Batch) {
        self.queued = self.queued.saturating_sub(batch.spans.into());
        self.queued_bytes = self.queued_bytes.saturating_sub(batch.encoded_spans.len() as u64);
    }
}

/// Spans of the same resource that are sent together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The encoded resource of the spans.
    pub resource: Rc<[u8]>,
    /// The spans one after the other, as `ScopeSpans` holds them.
    pub encoded_spans: Vec<u8>,
    /// How many spans these are.
    pub spans: u32,
    /// None until the batch is first sent.
    attempts: Option<Attempts>,
}

/// The history of a batch that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempts {
    first_sent_unix_nanos: u64,
    /// None until the first failure.
    backoff: Option<Backoff>,
}

/// A queue of encoded spans for one exporter, with at most one batch in flight.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    retry: RetryPolicy,
    resource: Rc<[u8]>,
    /// Batches in the order of their spans. New spans join the last one.
    waiting: VecDeque<Batch>,
    current: Option<CurrentBatch>,
    counts: SpanCounts,
}

/// The batch that is sent next, or in flight.
#[derive(Debug)]
struct CurrentBatch {
    batch: Batch,
    is_in_flight: bool,
}

impl Batch {
    fn new(resource: Rc<[u8]>, encoded_spans: Vec<u8>, spans: u32) -> Self {
        Self { resource, encoded_spans, spans, attempts: None }
    }

    /// Splits a batch of at least two spans. Both halves are new batches, not sent before.
    fn halves(mut self) -> [Self; 2] {
        let spans = self.spans / 2;
        let second = otlp::split_spans(&mut self.encoded_spans, spans);
        let second = Self::new(self.resource.clone(), second, self.spans - spans);
        [Self::new(self.resource, self.encoded_spans, spans), second]
    }

    /// Returns the attempts to send it. The first one is now, if there was none.
    fn attempts(&mut self, now_unix_nanos: u64) -> &mut Attempts {
        let first = Attempts { first_sent_unix_nanos: now_unix_nanos, backoff: None };
        self.attempts.get_or_insert(first)
    }

    fn backoff(&self) -> Option<&Backoff> {
        self.attempts.as_ref()?.backoff.as_ref()
    }
}

impl Queue {
    /// `resource` is the encoded resource of all spans.
    pub(crate) fn new(limits: QueueLimits, retry: RetryPolicy, resource: Vec<u8>) -> Self {
        let (waiting, counts) = (VecDeque::new(), SpanCounts::default());
        Self { limits, retry, resource: resource.into(), waiting, current: None, counts }
    }

    /// Adds a finished span, or drops it if the queue is full.
    pub(crate) fn push(&mut self, span: &[u8]) {
        self.counts.recorded += 1;
        let len = otlp::appended_len(span);
        if !self.has_room(1, len) {
            self.counts.drop(1, DropReason::QueueFull);
            return;
        }
        let QueueLimits { max_batch_spans, max_batch_bytes, .. } = self.limits;
        let has_room = self.waiting.back().is_some_and(|batch| {
            batch.spans < max_batch_spans
                && batch.encoded_spans.len() + len <= max_batch_bytes as usize
                && Rc::ptr_eq(&batch.resource, &self.resource)
        });
        if !has_room {
            let resource = self.resource.clone();
            self.waiting.push_back(Batch::new(resource, Vec::new(), 0));
        }
        if let Some(batch) = self.waiting.back_mut() {
            otlp::append_span(&mut batch.encoded_spans, span);
            batch.spans += 1;
            self.counts.queued += 1;
            self.counts.queued_bytes += len as u64;
        }
    }

    /// Tells whether the next batch is full, and no other batch is in flight or waits for a retry.
    pub(crate) fn is_urgent(&self) -> bool {
        let is_full = |batch: &Batch| {
            batch.spans >= self.limits.max_batch_spans
                || batch.encoded_spans.len() >= self.limits.max_batch_bytes as usize
        };
        self.current.is_none()
            && (self.waiting.len() > 1 || self.waiting.front().is_some_and(is_full))
    }

    /// Returns the batch to send now, if any, and marks it as in flight until [`Queue::settle`]. There
    /// is none while another is in flight or waits for its next attempt.
    pub(crate) fn next_to_send(&mut self, now_unix_nanos: u64) -> Option<&Batch> {
        if self.current.is_none() {
            self.current =
                Some(CurrentBatch { batch: self.waiting.pop_front()?, is_in_flight: false });
        }
        let CurrentBatch { batch, is_in_flight } = self.current.as_mut()?;
        if *is_in_flight || batch.backoff().is_some_and(|backoff| !backoff.is_over(now_unix_nanos))
        {
            return None;
        }
        *is_in_flight = true;
        batch.attempts(now_unix_nanos);
        Some(batch)
    }

    /// Settles the batch in flight, if there is one. `random` spreads the pause before a retry.
    pub(crate) fn settle(&mut self, verdict: Verdict, now_unix_nanos: u64, random: u32) {
        let Some(mut current) = self.current.take_if(|current| current.is_in_flight) else {
            return;
        };
        let batch = &mut current.batch;
        match verdict {
            Verdict::Accepted { rejected } => {
                let spans = u64::from(batch.spans);
                let rejected = rejected.min(spans);
                self.counts.exported += spans - rejected;
                self.counts.drop(rejected, DropReason::PartialSuccess);
                self.counts.subtract(batch);
            }
            Verdict::Refused => self.counts.give_up(batch, DropReason::Rejected),
            Verdict::TooLarge if batch.spans < 2 => {
                self.counts.give_up(batch, DropReason::TooLarge);
            }
            Verdict::TooLarge => {
                let [first, second] = current.batch.halves();
                self.waiting.push_front(second);
                self.waiting.push_front(first);
            }
            Verdict::Retry { after } => {
                let attempts = batch.attempts(now_unix_nanos);
                let elapsed = now_unix_nanos.saturating_sub(attempts.first_sent_unix_nanos);
                if self.retry.gives_up_after(elapsed) {
                    self.counts.give_up(batch, DropReason::RetriesExhausted);
                    return;
                }
                let former = attempts.backoff.take();
                let backoff = self.retry.next(former, elapsed, after, now_unix_nanos, random);
                attempts.backoff = Some(backoff);
                self.current = Some(CurrentBatch { is_in_flight: false, ..current });
            }
        }
    }

    /// Returns the time until a batch is sent again, in nanoseconds; none if no batch waits for a retry.
    pub(crate) fn remaining_nanos(&self, now_unix_nanos: u64) -> Option<u64> {
        let current = self.current.as_ref().filter(|current| !current.is_in_flight)?;
        Some(current.batch.backoff()?.remaining_nanos(now_unix_nanos))
    }

    /// Removes and returns all batches that wait or are in flight. They no longer count as queued here.
    pub(crate) fn take_all(&mut self) -> Vec<Batch> {
        (self.counts.queued, self.counts.queued_bytes) = (0, 0);
        let mut batches = Vec::from(std::mem::take(&mut self.waiting));
        if let Some(current) = self.current.take() {
            batches.insert(0, current.batch);
        }
        batches
    }

    /// Adds a batch of another queue, or drops it if this one is full.
    pub(crate) fn take_over(&mut self, batch: Batch) {
        if !self.has_room(batch.spans, batch.encoded_spans.len()) {
            self.counts.drop(batch.spans.into(), DropReason::QueueFull);
            return;
        }
        self.counts.queued += u64::from(batch.spans);
        self.counts.queued_bytes += batch.encoded_spans.len() as u64;
        self.waiting.push_back(batch);
    }

    /// Counts batches that were taken from this queue as dropped, because no other queue took them over.
    pub(crate) fn abandon(&mut self, batches: &[Batch]) {
        let spans = batches.iter().map(|batch| u64::from(batch.spans)).sum();
        self.counts.drop(spans, DropReason::ConfigurationRemoved);
    }

    pub(crate) fn counts(&self) -> SpanCounts {
        self.counts
    }

    fn has_room(&self, spans: u32, bytes: usize) -> bool {
        self.counts.queued + u64::from(spans) <= self.limits.max_queue_spans.into()
            && self.counts.queued_bytes + bytes as u64 <= self.limits.max_queue_bytes.into()
    }
}

#[cfg(test)]
mod tests;
