//! When a batch that the receiver did not accept is sent again, and when it is dropped.
//!
//! The numbers mean the same as in the Collector's `retry_on_failure`
//! (<https://github.com/open-telemetry/opentelemetry-collector/tree/main/config/configretry>): each pause is
//! half as long again as the one before, up to a longest one, and varies at random by up to half.

use std::time::Duration;

/// How long to wait before a batch is sent again, and for how long to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The pause after the first failure. Each further pause is half as long again.
    pub initial_interval: Duration,
    pub max_interval: Duration,
    /// Time since the batch was first sent. A failure after that is the last. Zero never gives up.
    pub max_elapsed_time: Duration,
}

/// A pause before a batch is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// The pause before jitter is added, and before the receiver's own wish is considered.
    interval: Duration,
    since_unix_nanos: u64,
    delay_nanos: u64,
}

impl RetryPolicy {
    /// Tells whether a failure is the last, `elapsed_nanos` after the batch was first sent.
    pub fn gives_up_after(&self, elapsed_nanos: u64) -> bool {
        !self.max_elapsed_time.is_zero()
            && Duration::from_nanos(elapsed_nanos) >= self.max_elapsed_time
    }

    /// Returns the pause after a failure. `random` chooses between half and one and a half of the
    /// interval. The pause is at least `after`, which the receiver asked for. It is at most
    /// [`MAX_REQUESTED_INTERVALS`] times the longest interval, and at most the time that is left for
    /// retries.
    pub fn next(
        &self,
        former: Option<Backoff>,
        elapsed_nanos: u64,
        after: Option<Duration>,
        now_unix_nanos: u64,
        random: u32,
    ) -> Backoff {
        let interval = match former {
            Some(former) => (former.interval * 3 / 2).min(self.max_interval),
            None => self.initial_interval.min(self.max_interval),
        };
        let half = saturating_nanos(interval / 2);
        let jitter = ((u128::from(half) * 2 * u128::from(random)) >> 32) as u64;
        let longest = self.max_interval * MAX_REQUESTED_INTERVALS;
        let requested = saturating_nanos(after.unwrap_or_default().min(longest));
        let left = match self.max_elapsed_time {
            Duration::ZERO => u64::MAX,
            all => saturating_nanos(all).saturating_sub(elapsed_nanos),
        };
        let delay_nanos = (half + jitter).max(requested).min(left);
        Backoff { interval, since_unix_nanos: now_unix_nanos, delay_nanos }
    }
}

impl Backoff {
    pub fn is_over(&self, now_unix_nanos: u64) -> bool {
        self.remaining_nanos(now_unix_nanos) == 0
    }

    /// Returns the time until the pause is over, in nanoseconds. The pause is over if the clock was set back.
    pub fn remaining_nanos(&self, now_unix_nanos: u64) -> u64 {
        match now_unix_nanos.checked_sub(self.since_unix_nanos) {
            Some(elapsed) => self.delay_nanos.saturating_sub(elapsed),
            None => 0,
        }
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// The longest pause that a receiver can ask for, as a multiple of `max_interval`. One response must not stop
/// exports.
const MAX_REQUESTED_INTERVALS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        initial_interval: Duration::from_secs(4),
        max_interval: Duration::from_secs(8),
        max_elapsed_time: Duration::from_secs(60),
    };
    const NOW: u64 = 100;

    fn rest(backoff: &Backoff) -> Duration {
        Duration::from_nanos(backoff.remaining_nanos(NOW))
    }

    /// Checks the pause after the first failure, `elapsed` seconds after the batch was first sent, if the
    /// receiver asks for `after` seconds. Without jitter, the pause is 2 seconds; jitter would add up to 4.
    #[track_caller]
    fn check(elapsed: u64, after: Option<u64>, expected: u64) {
        let elapsed = Duration::from_secs(elapsed).as_nanos() as u64;
        let backoff = POLICY.next(None, elapsed, after.map(Duration::from_secs), NOW, 0);
        assert_eq!(rest(&backoff), Duration::from_secs(expected));
    }

    #[test]
    fn pauses_grow_by_half_up_to_the_longest() {
        let first = POLICY.next(None, 0, None, NOW, 0);
        assert_eq!(rest(&first), Duration::from_secs(2));
        let second = POLICY.next(Some(first), 0, None, NOW, 0);
        assert_eq!(rest(&second), Duration::from_secs(3));
        let third = POLICY.next(Some(second), 0, None, NOW, 0);
        assert_eq!(rest(&third), Duration::from_secs(4));
        let fourth = POLICY.next(Some(third), 0, None, NOW, 0);
        assert_eq!(rest(&fourth), Duration::from_secs(4));
    }

    #[test]
    fn jitter_spreads_a_pause_by_half() {
        let longest = rest(&POLICY.next(None, 0, None, NOW, u32::MAX));
        assert!(longest > Duration::from_millis(5_999) && longest < Duration::from_secs(6));
        let middle = rest(&POLICY.next(None, 0, None, NOW, 1 << 31));
        assert_eq!(middle, Duration::from_secs(4));
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_pause_within_bounds() {
        check(0, Some(9), 9);
        check(0, Some(1), 2);
        // Four times the longest interval.
        check(0, Some(u64::MAX), 32);
        // Ten seconds are left for retries, and one.
        check(50, Some(u64::MAX), 10);
        check(59, None, 1);
    }

    #[test]
    fn a_pause_ends_in_time_or_when_the_clock_is_set_back() {
        let backoff = POLICY.next(None, 0, None, NOW, 0);
        assert!(!backoff.is_over(NOW) && !backoff.is_over(NOW + 1_999_999_999));
        assert!(backoff.is_over(NOW + 2_000_000_000));
        assert!(backoff.is_over(NOW - 1));
    }

    #[test]
    fn a_failure_after_the_whole_time_is_the_last() {
        assert!(!POLICY.gives_up_after(59_999_999_999) && POLICY.gives_up_after(60_000_000_000));
        let for_ever = RetryPolicy { max_elapsed_time: Duration::ZERO, ..POLICY };
        assert!(!for_ever.gives_up_after(u64::MAX));
    }
}
