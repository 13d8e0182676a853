use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LIMITS: QueueLimits = QueueLimits {
    max_queue_spans: 4,
    max_queue_bytes: 100,
    max_batch_spans: 2,
    max_batch_bytes: 50,
};
const RETRY: RetryPolicy = RetryPolicy {
    initial_interval: Duration::from_nanos(10),
    max_interval: Duration::from_nanos(20),
    max_elapsed_time: Duration::from_nanos(60),
};
const ACCEPTED: Verdict = Verdict::Accepted { rejected: 0 };
const UNAVAILABLE: Verdict = Verdict::Retry { after: None };

fn queue() -> Queue {
    Queue::new(LIMITS, RETRY, b"resource".to_vec())
}

fn spans_of(batch: &Batch) -> usize {
    otlp::spans(&batch.encoded_spans).count()
}

fn send(queue: &mut Queue, now: u64) -> Option<usize> {
    queue.next_to_send(now).map(spans_of)
}

/// Checks how many spans were exported, are queued, and were dropped by reason.
#[track_caller]
fn check(queue: &Queue, exported: u64, queued: u64, dropped: &[(DropReason, u64)]) {
    let counts = queue.counts();
    let mut expected = SpanCounts { exported, queued, ..counts };
    expected.dropped = [0; DropReason::ALL.len()];
    dropped.iter().for_each(|(reason, spans)| expected.drop(*spans, *reason));
    assert_eq!(counts, expected);
    assert_eq!(counts.recorded, exported + queued + counts.dropped.iter().sum::<u64>());
}

#[test]
fn a_full_batch_is_urgent_and_a_partial_one_is_sent_when_due() {
    let mut queue = queue();
    assert_eq!(send(&mut queue, 0), None);
    queue.push(b"");
    assert!(!queue.is_urgent());
    queue.push(b"");
    assert!(queue.is_urgent());
    queue.push(b"");
    assert_eq!(send(&mut queue, 0), Some(2));
    assert!(!queue.is_urgent());
    assert_eq!(send(&mut queue, 0), None, "one batch is in flight at a time");
    queue.settle(ACCEPTED, 0, 0);
    assert_eq!(send(&mut queue, 0), Some(1));
    queue.settle(Verdict::Refused, 0, 0);
    check(&queue, 2, 0, &[(DropReason::Rejected, 1)]);
}

#[test]
fn a_batch_is_closed_before_it_has_too_many_bytes() {
    let mut queue = queue();
    for len in [30, 30, 34] {
        queue.push(&vec![0; len]);
    }
    assert!(queue.is_urgent());
    assert_eq!(queue.counts().queued_bytes, 100, "two bytes before each span");
    queue.push(b"");
    check(&queue, 0, 3, &[(DropReason::QueueFull, 1)]);
    for _ in 0..3 {
        assert_eq!(send(&mut queue, 0), Some(1));
        queue.settle(ACCEPTED, 0, 0);
    }
    assert_eq!(queue.counts().queued_bytes, 0);
}

#[test]
fn the_newest_span_is_dropped_when_the_queue_is_full() {
    let mut queue = queue();
    (0..5).for_each(|_| queue.push(b""));
    check(&queue, 0, 4, &[(DropReason::QueueFull, 1)]);
    assert_eq!(send(&mut queue, 0), Some(2));
    queue.push(b"");
    check(&queue, 0, 4, &[(DropReason::QueueFull, 2)]);
}

#[test]
fn a_batch_that_was_not_accepted_is_sent_again_after_a_pause() {
    let mut queue = queue();
    queue.push(b"");
    assert_eq!(send(&mut queue, 100), Some(1));
    assert_eq!(queue.remaining_nanos(100), None, "it is in flight");
    queue.settle(UNAVAILABLE, 100, 0);
    assert_eq!(queue.remaining_nanos(100), Some(5));
    queue.push(b"");
    queue.push(b"");
    assert!(!queue.is_urgent(), "the batches behind it wait");
    assert_eq!(send(&mut queue, 104), None);
    assert_eq!(send(&mut queue, 105), Some(1));
    queue.settle(ACCEPTED, 105, 0);
    assert!(queue.is_urgent());
    check(&queue, 1, 2, &[]);
}

#[test]
fn a_batch_is_dropped_when_the_receiver_stays_unavailable() {
    let mut queue = queue();
    queue.push(b"");
    for now in [0, 20, 40] {
        assert_eq!(send(&mut queue, now), Some(1), "at {now}");
        queue.settle(UNAVAILABLE, now, 0);
    }
    assert_eq!(send(&mut queue, 60), Some(1));
    queue.settle(UNAVAILABLE, 60, 0);
    check(&queue, 0, 0, &[(DropReason::RetriesExhausted, 1)]);
}

#[test]
fn a_batch_that_is_too_large_is_split() {
    let limits = QueueLimits { max_queue_spans: 5, max_batch_spans: 5, ..LIMITS };
    let mut queue = Queue::new(limits, RETRY, Vec::new());
    (0..5).for_each(|_| queue.push(b"x"));
    for spans in [5, 2, 1, 1, 3, 1, 2] {
        assert_eq!(send(&mut queue, 0), Some(spans));
        let alone = spans == 1;
        queue.settle(if alone { ACCEPTED } else { Verdict::TooLarge }, 0, 0);
        if spans == 2 && queue.counts().exported == 3 {
            break;
        }
    }
    check(&queue, 3, 2, &[]);
    assert_eq!(send(&mut queue, 0), Some(1));
    queue.settle(Verdict::TooLarge, 0, 0);
    check(&queue, 3, 1, &[(DropReason::TooLarge, 1)]);
}

#[test]
fn no_more_spans_are_rejected_than_were_sent() {
    for (rejected, exported) in [(0, 2), (1, 1), (9, 0)] {
        let mut queue = queue();
        queue.push(b"");
        queue.push(b"");
        assert_eq!(send(&mut queue, 0), Some(2));
        queue.settle(Verdict::Accepted { rejected }, 0, 0);
        check(&queue, exported, 0, &[(DropReason::PartialSuccess, 2 - exported)]);
    }
}

#[test]
fn a_batch_that_is_taken_over_keeps_its_pause_and_its_first_attempt() {
    let (mut old, mut new) = (queue(), queue());
    old.push(b"");
    assert_eq!(send(&mut old, 0), Some(1));
    old.settle(Verdict::Retry { after: Some(Duration::from_nanos(50)) }, 0, 0);
    old.take_all().into_iter().for_each(|batch| new.take_over(batch));
    assert_eq!(send(&mut new, 49), None);
    assert_eq!(new.remaining_nanos(49), Some(1));
    assert_eq!(send(&mut new, 60), Some(1));
    new.settle(UNAVAILABLE, 60, 0);
    assert_eq!(new.counts().dropped.iter().sum::<u64>(), 1);
}

#[test]
fn another_queue_takes_over_the_batches_that_fit() {
    let (mut old, mut new) = (queue(), Queue::new(LIMITS, RETRY, b"other".to_vec()));
    (0..3).for_each(|_| old.push(b""));
    assert_eq!(send(&mut old, 0), Some(2));
    (0..2).for_each(|_| new.push(b""));
    let batches = old.take_all();
    assert_eq!((old.counts().queued, old.counts().queued_bytes), (0, 0));
    old.settle(ACCEPTED, 0, 0);
    batches.into_iter().for_each(|batch| new.take_over(batch));
    let counts = new.counts();
    assert_eq!((counts.recorded, counts.queued), (2, 4));
    assert_eq!(counts.dropped.iter().sum::<u64>(), 1);
    new.push(b"");
    let mut resources = Vec::new();
    while let Some(batch) = new.next_to_send(0) {
        resources.push(batch.resource.clone());
        new.settle(ACCEPTED, 0, 0);
    }
    let expected: [&[u8]; 2] = [b"other", b"resource"];
    assert_eq!(resources.iter().map(|it| &**it).collect::<Vec<_>>(), expected);
}

proptest! {
    #[test]
    fn the_counts_balance_and_the_bounds_hold(
        steps in prop::collection::vec((0u8..9, 0usize..60), 0..200),
    ) {
        let mut queue = queue();
        let (mut now, mut gone) = (0, 0u64);
        for (step, size) in steps {
            now += size as u64 / 4;
            match step {
                0..3 => queue.push(&vec![0; size]),
                3 => drop(send(&mut queue, now)),
                4 => queue.settle(ACCEPTED, now, 7),
                5 => queue.settle(Verdict::Accepted { rejected: size as u64 }, now, 7),
                6 => queue.settle(UNAVAILABLE, now, u32::MAX),
                7 => queue.settle(Verdict::TooLarge, now, 7),
                _ if size < 9 => {
                    gone += queue.take_all().iter().map(|it| u64::from(it.spans)).sum::<u64>();
                }
                _ => queue.settle(Verdict::Refused, now, 7),
            }
            let counts = queue.counts();
            let current = queue.current.iter().map(|current| &current.batch);
            let batches: Vec<_> = queue.waiting.iter().chain(current).collect();
            let spans: u32 = batches.iter().map(|batch| batch.spans).sum();
            let bytes: usize = batches.iter().map(|batch| batch.encoded_spans.len()).sum();
            prop_assert_eq!((counts.queued, counts.queued_bytes), (spans.into(), bytes as u64));
            let dropped: u64 = counts.dropped.iter().sum();
            let left = counts.exported + dropped + counts.queued + gone;
            prop_assert_eq!(counts.recorded, left);
            prop_assert!(spans <= LIMITS.max_queue_spans && bytes <= 100);
            for batch in batches {
                prop_assert_eq!(spans_of(batch), batch.spans as usize);
                prop_assert!(batch.spans == 1 || batch.encoded_spans.len() <= 50 && batch.spans <= 2);
            }
        }
    }
}
