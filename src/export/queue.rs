//! Finished spans on their way to the collector, bounded, and the books over them.
//!
//! Always: `recorded = exported + dropped + queued`, where queued counts spans that wait and spans
//! whose export is under way or will be tried again. What is queued is given up for one of the
//! reasons of [`DropReason`] alone.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::export::delivery::Verdict;
use crate::export::otlp;
use crate::export::retry::{Backoff, RetryPolicy};

/// Bounds of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Spans that wait or are under way at most.
    pub max_queue_spans: u32,
    /// Their encoded bytes at most.
    pub max_queue_bytes: u32,
    /// Spans in one batch at most; at least 1 and at most `max_queue_spans`.
    pub max_batch_spans: u32,
    /// Encoded bytes in one batch at most, unless it is one span that has more.
    pub max_batch_bytes: u32,
}

/// Why a span was not exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// It was the newest, and the queue held what it may.
    QueueFull,
    /// The collector refused its batch for good.
    Rejected,
    /// The collector took its batch, but not this span.
    PartialSuccess,
    /// The collector was not there for as long as is waited for it.
    RetriesExhausted,
    /// The collector found it too large, though it was alone.
    TooLarge,
    /// Its configuration is gone, and no other took it over.
    ConfigurationRemoved,
}

impl DropReason {
    pub const ALL: [Self; 6] = [
        Self::QueueFull,
        Self::Rejected,
        Self::PartialSuccess,
        Self::RetriesExhausted,
        Self::TooLarge,
        Self::ConfigurationRemoved,
    ];

    /// Returns its name in metrics and logs.
    pub fn name(self) -> &'static str {
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

/// How many spans went which way, ever, and what is queued now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    pub recorded: u64,
    pub exported: u64,
    /// By reason, in the order of [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
    pub queued: u64,
    pub queued_bytes: u64,
}

impl Books {
    fn drop(&mut self, spans: u64, reason: DropReason) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += spans;
        }
    }

    /// Takes what is no longer queued off.
    fn leave(&mut self, batch: &Batch) {
        self.queued = self.queued.saturating_sub(batch.spans.into());
        self.queued_bytes = self.queued_bytes.saturating_sub(batch.run.len() as u64);
    }
}

/// A run of encoded spans that have the same resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The encoded resource of its spans.
    pub resource: Rc<[u8]>,
    pub run: Vec<u8>,
    pub spans: u32,
    /// Since it was sent, and until its fate is known.
    tries: Option<Tries>,
}

/// What was tried with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tries {
    first_sent_unix_nanos: u64,
    /// Since it was not taken at first.
    backoff: Option<Backoff>,
}

/// A queue of encoded spans for one exporter, with at most one batch under way.
#[derive(Debug)]
pub struct Queue {
    limits: QueueLimits,
    retry: RetryPolicy,
    resource: Rc<[u8]>,
    /// Batches in the order of their spans; the last takes further ones.
    waiting: VecDeque<Batch>,
    head: Option<Head>,
    books: Books,
}

/// The batch that is next or under way.
#[derive(Debug)]
struct Head {
    batch: Batch,
    /// A call with it was made, and its answer is not here.
    under_way: bool,
}

impl Batch {
    fn new(resource: Rc<[u8]>, run: Vec<u8>, spans: u32) -> Self {
        Self { resource, run, spans, tries: None }
    }

    /// Returns what was tried with it; its first try is now, if there was none.
    fn tries(&mut self, now_unix_nanos: u64) -> &mut Tries {
        let first = Tries { first_sent_unix_nanos: now_unix_nanos, backoff: None };
        self.tries.get_or_insert(first)
    }

    fn backoff(&self) -> Option<&Backoff> {
        self.tries.as_ref()?.backoff.as_ref()
    }
}

impl Queue {
    /// `resource` is the encoded resource of all spans.
    pub fn new(limits: QueueLimits, retry: RetryPolicy, resource: Vec<u8>) -> Self {
        let (waiting, books) = (VecDeque::new(), Books::default());
        Self { limits, retry, resource: resource.into(), waiting, head: None, books }
    }

    /// Takes a finished span, or drops it where the queue is full.
    pub fn push(&mut self, span: &[u8]) {
        self.books.recorded += 1;
        let len = otlp::appended_len(span);
        if !self.has_room(1, len) {
            self.books.drop(1, DropReason::QueueFull);
            return;
        }
        let QueueLimits { max_batch_spans, max_batch_bytes, .. } = self.limits;
        let takes_it = self.waiting.back().is_some_and(|batch| {
            batch.spans < max_batch_spans
                && batch.run.len() + len <= max_batch_bytes as usize
                && Rc::ptr_eq(&batch.resource, &self.resource)
        });
        if !takes_it {
            let resource = self.resource.clone();
            self.waiting.push_back(Batch::new(resource, Vec::new(), 0));
        }
        if let Some(batch) = self.waiting.back_mut() {
            otlp::append_span(&mut batch.run, span);
            batch.spans += 1;
            self.books.queued += 1;
            self.books.queued_bytes += len as u64;
        }
    }

    /// Tells whether a batch waits that takes no more spans, and none is before it.
    pub fn is_urgent(&self) -> bool {
        let full = |batch: &Batch| {
            batch.spans >= self.limits.max_batch_spans
                || batch.run.len() >= self.limits.max_batch_bytes as usize
        };
        self.head.is_none() && (self.waiting.len() > 1 || self.waiting.front().is_some_and(full))
    }

    /// Returns the batch that is to be sent now, and takes it for sent: [`Queue::answered`] is due.
    /// There is none while one is under way, or rests before it is tried again.
    pub fn next_to_send(&mut self, now_unix_nanos: u64) -> Option<&Batch> {
        if self.head.is_none() {
            self.head = Some(Head { batch: self.waiting.pop_front()?, under_way: false });
        }
        let Head { batch, under_way } = self.head.as_mut()?;
        if *under_way || batch.backoff().is_some_and(|backoff| !backoff.is_over(now_unix_nanos)) {
            return None;
        }
        *under_way = true;
        batch.tries(now_unix_nanos);
        Some(batch)
    }

    /// Books what became of the batch under way, if there is one. `random` spreads the next try.
    pub fn answered(&mut self, verdict: Verdict, now_unix_nanos: u64, random: u32) {
        let Some(mut head) = self.head.take_if(|head| head.under_way) else {
            return;
        };
        match verdict {
            Verdict::Accepted { rejected } => {
                let spans = u64::from(head.batch.spans);
                let rejected = rejected.min(spans);
                self.books.exported += spans - rejected;
                self.books.drop(rejected, DropReason::PartialSuccess);
                self.books.leave(&head.batch);
            }
            Verdict::Refused => self.give_up(&head.batch, DropReason::Rejected),
            Verdict::TooLarge if head.batch.spans < 2 => {
                self.give_up(&head.batch, DropReason::TooLarge);
            }
            Verdict::TooLarge => {
                let second = otlp::split_run(&mut head.batch.run, head.batch.spans / 2);
                let spans = head.batch.spans - head.batch.spans / 2;
                head.batch.spans /= 2;
                let resource = head.batch.resource.clone();
                self.waiting.push_front(Batch::new(resource, second, spans));
                self.waiting.push_front(Batch { tries: None, ..head.batch });
            }
            Verdict::Retry { after } => {
                let tries = head.batch.tries(now_unix_nanos);
                let elapsed = now_unix_nanos.saturating_sub(tries.first_sent_unix_nanos);
                if self.retry.gives_up_after(elapsed) {
                    self.give_up(&head.batch, DropReason::RetriesExhausted);
                    return;
                }
                let former = tries.backoff.take();
                tries.backoff =
                    Some(self.retry.next(former, elapsed, after, now_unix_nanos, random));
                self.head = Some(Head { under_way: false, ..head });
            }
        }
    }

    /// Returns how long the batch that was not taken still rests, in nanoseconds.
    pub fn rest_nanos(&self, now_unix_nanos: u64) -> Option<u64> {
        let head = self.head.as_ref().filter(|head| !head.under_way)?;
        Some(head.batch.backoff()?.rest_nanos(now_unix_nanos))
    }

    /// Gives all batches away that wait or are under way: they are no longer of these books.
    pub fn take_all(&mut self) -> Vec<Batch> {
        (self.books.queued, self.books.queued_bytes) = (0, 0);
        let mut batches = Vec::from(std::mem::take(&mut self.waiting));
        if let Some(head) = self.head.take() {
            batches.insert(0, head.batch);
        }
        batches
    }

    /// Takes a batch of another queue, or drops it where this one is full.
    pub fn take_over(&mut self, batch: Batch) {
        if !self.has_room(batch.spans, batch.run.len()) {
            self.books.drop(batch.spans.into(), DropReason::QueueFull);
            return;
        }
        self.books.queued += u64::from(batch.spans);
        self.books.queued_bytes += batch.run.len() as u64;
        self.waiting.push_back(batch);
    }

    /// Drops what another queue gave away and nobody took over.
    pub fn abandon(&mut self, batches: &[Batch]) {
        let spans = batches.iter().map(|batch| u64::from(batch.spans)).sum();
        self.books.drop(spans, DropReason::ConfigurationRemoved);
    }

    pub fn books(&self) -> Books {
        self.books
    }

    fn has_room(&self, spans: u32, bytes: usize) -> bool {
        self.books.queued + u64::from(spans) <= self.limits.max_queue_spans.into()
            && self.books.queued_bytes + bytes as u64 <= self.limits.max_queue_bytes.into()
    }

    fn give_up(&mut self, batch: &Batch, reason: DropReason) {
        self.books.drop(batch.spans.into(), reason);
        self.books.leave(batch);
    }
}

#[cfg(test)]
mod tests;
