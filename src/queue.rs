//! Finished spans on their way to the collector, bounded, and the books over them.
//!
//! Always: `recorded = exported + dropped + queued`, where queued counts spans that wait and spans
//! whose export is under way.

use std::collections::VecDeque;

use crate::otlp;

/// Bounds of a queue, in spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Spans that wait or are under way at most.
    pub max_queue_spans: u32,
    /// Spans in one batch at most; at least 1 and at most `max_queue_spans`.
    pub max_batch_spans: u32,
}

/// How many spans went which way, ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    pub recorded: u64,
    pub exported: u64,
    pub dropped: u64,
}

impl Books {
    pub fn queued(&self) -> u64 {
        self.recorded - self.exported - self.dropped
    }
}

/// A queue of encoded spans for one exporter, with at most one batch under way.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    /// Batches in the order of their spans; only the last is not full.
    batches: VecDeque<Batch>,
    /// Spans of the batch under way.
    in_flight: Option<u32>,
    books: Books,
    /// The buffer of a batch that was sent, kept for the next.
    spare: Vec<u8>,
}

/// A run of encoded spans.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Batch {
    run: Vec<u8>,
    spans: u32,
}

impl Queue {
    pub fn new(limits: Limits) -> Self {
        let books = Books::default();
        Self { limits, batches: VecDeque::new(), in_flight: None, books, spare: Vec::new() }
    }

    /// Takes a finished span, or drops it where the queue is full.
    pub fn push(&mut self, span: &[u8]) {
        self.books.recorded += 1;
        if self.books.queued() > u64::from(self.limits.max_queue_spans) {
            self.books.dropped += 1;
            return;
        }
        let full = |batch: &Batch| batch.spans >= self.limits.max_batch_spans;
        if self.batches.back().is_none_or(full) {
            let run = std::mem::take(&mut self.spare);
            self.batches.push_back(Batch { run, spans: 0 });
        }
        if let Some(batch) = self.batches.back_mut() {
            otlp::append_span(&mut batch.run, span);
            batch.spans += 1;
        }
    }

    /// Tells whether a full batch waits and none is under way.
    pub fn is_urgent(&self) -> bool {
        let full = |batch: &Batch| batch.spans >= self.limits.max_batch_spans;
        self.in_flight.is_none() && self.batches.front().is_some_and(full)
    }

    /// Hands the oldest batch to `send`, as an export request with this resource, unless one is
    /// under way already. Where `send` fails, its spans are dropped and the error is returned.
    pub fn send_next<E>(
        &mut self,
        resource: &[u8],
        send: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.in_flight.is_some() {
            return Ok(());
        }
        let Some(mut batch) = self.batches.pop_front() else {
            return Ok(());
        };
        let sent = send(&otlp::export_request(resource, &batch.run));
        match sent {
            Ok(()) => self.in_flight = Some(batch.spans),
            Err(_) => self.books.dropped += u64::from(batch.spans),
        }
        batch.run.clear();
        self.spare = batch.run;
        sent
    }

    /// Books the batch under way as exported or dropped.
    pub fn answered(&mut self, accepted: bool) {
        let spans = u64::from(self.in_flight.take().unwrap_or_default());
        if accepted {
            self.books.exported += spans;
        } else {
            self.books.dropped += spans;
        }
    }

    /// Books all spans that wait or are under way as dropped.
    pub fn abandon(&mut self) {
        self.books.dropped += self.books.queued();
        self.batches.clear();
        self.in_flight = None;
    }

    pub fn books(&self) -> Books {
        self.books
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    const LIMITS: Limits = Limits { max_queue_spans: 4, max_batch_spans: 2 };

    fn spans_of(body: &[u8]) -> usize {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        request.resource_spans[0].scope_spans[0].spans.len()
    }

    fn send(queue: &mut Queue) -> Option<usize> {
        let mut sent = None;
        let accept = |body: &[u8]| {
            sent = Some(spans_of(body));
            Ok::<(), ()>(())
        };
        queue.send_next(&[], accept).unwrap();
        sent
    }

    #[test]
    fn a_full_batch_is_urgent_and_a_partial_one_is_sent_when_due() {
        let mut queue = Queue::new(LIMITS);
        assert_eq!(send(&mut queue), None);
        queue.push(b"");
        assert!(!queue.is_urgent());
        queue.push(b"");
        assert!(queue.is_urgent());
        queue.push(b"");
        assert_eq!(send(&mut queue), Some(2));
        assert!(!queue.is_urgent());
        assert_eq!(send(&mut queue), None, "one batch under way at a time");
        queue.answered(true);
        assert_eq!(send(&mut queue), Some(1));
        queue.answered(false);
        assert_eq!(queue.books(), Books { recorded: 3, exported: 2, dropped: 1 });
    }

    #[test]
    fn the_newest_span_is_dropped_when_the_queue_is_full() {
        let mut queue = Queue::new(LIMITS);
        (0..5).for_each(|_| queue.push(b""));
        assert_eq!(queue.books(), Books { recorded: 5, exported: 0, dropped: 1 });
        assert_eq!(send(&mut queue), Some(2));
        queue.push(b"");
        assert_eq!(queue.books().queued(), 4, "a batch under way still counts");
    }

    #[test]
    fn spans_that_cannot_be_sent_are_dropped() {
        let mut queue = Queue::new(LIMITS);
        queue.push(b"");
        assert_eq!(queue.send_next(&[], |_| Err("no cluster")), Err("no cluster"));
        assert_eq!(queue.books(), Books { recorded: 1, exported: 0, dropped: 1 });
    }

    proptest! {
        #[test]
        fn the_books_balance_and_the_bounds_hold(steps in prop::collection::vec(0u8..7, 0..200)) {
            let mut queue = Queue::new(LIMITS);
            for step in steps {
                match step {
                    0..3 => queue.push(b"x"),
                    3 => drop(queue.send_next(&[], |_| Ok::<(), ()>(()))),
                    4 => queue.answered(true),
                    5 => queue.answered(false),
                    _ => queue.abandon(),
                }
                let waiting: u32 = queue.batches.iter().map(|batch| batch.spans).sum();
                let under_way = queue.in_flight.unwrap_or_default();
                prop_assert_eq!(queue.books().queued(), u64::from(waiting + under_way));
                prop_assert!(waiting + under_way <= LIMITS.max_queue_spans);
                prop_assert!(queue.batches.iter().all(|batch| batch.spans <= LIMITS.max_batch_spans));
            }
        }
    }
}
