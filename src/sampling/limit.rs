//! Rate limits: the generic cell rate algorithm (ITU-T I.371, annex A), whose state is one number.
//!
//! A limit grants permits. Its state is the time at which the next permit would be due if permits were
//! taken evenly. A permit is granted as long as that time is at most `burst - 1` intervals ahead of the
//! clock. So a limit grants at most `burst + t * per_second` permits in any `t` seconds, with one exception:
//! a request with two spans gets both permits even if only one is left. The burst is then exceeded by one
//! permit, but not the rate: the next permit is due one interval later than otherwise.

/// A number of permits a second, with bursts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    key: String,
    interval_nanos: u64,
    /// How far the state may be ahead of the clock when a permit is granted.
    tolerance_nanos: u64,
    /// The part of the tolerance that is reserved for requests that a rule forces.
    reserve_nanos: u64,
}

/// How much of a burst may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BurstShare {
    Full,
    /// All permits except the reserve. The reserve is a tenth of the burst, but at least one permit; a burst
    /// of one has no reserve.
    ExceptReserve,
}

/// How many permits a request takes: one for each of its spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permits {
    One,
    Two,
}

impl Permits {
    /// Returns the permits of a request by whether it makes a second span, for its call upstream.
    pub fn of_request(has_upstream_span: bool) -> Self {
        if has_upstream_span { Self::Two } else { Self::One }
    }

    fn count(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

impl Limit {
    /// Returns a limit, or none unless `per_second` is from 0.001 to 1,000,000 and `burst` from 1 to
    /// 1,000,000. Limits of the same name and numbers share their state.
    pub fn new(name: &str, per_second: f64, burst: u32) -> Option<Self> {
        let is_rate = (MIN_PER_SECOND..=MAX_PER_SECOND).contains(&per_second);
        if !is_rate || !(1..=MAX_BURST).contains(&burst) {
            return None;
        }
        // Rounded up, so that the rate is never above `per_second`.
        let interval_nanos = (NANOS_PER_SECOND / per_second).ceil() as u64;
        let tolerance_nanos = interval_nanos * u64::from(burst - 1);
        let reserve = if burst == 1 { 0 } else { (burst / 10).max(1) };
        let reserve_nanos = interval_nanos * u64::from(reserve);
        let numbers = [interval_nanos.to_string(), burst.to_string()];
        let [interval, burst] = &numbers;
        let key = ["sidespan.limit.", name, "/", interval, "/", burst].concat();
        Some(Self { key, interval_nanos, tolerance_nanos, reserve_nanos })
    }

    /// Returns the key of the state in the data that workers share.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Takes the permits of one request: returns the new state, or none if not even one permit is left.
    /// A state further ahead of the clock than the limit allows is from before the clock was set back;
    /// it counts as a burst that was used up just now.
    pub fn take(
        &self,
        state: Option<u64>,
        now_unix_nanos: u64,
        share: BurstShare,
        permits: Permits,
    ) -> Option<u64> {
        let latest_due = now_unix_nanos.saturating_add(self.tolerance_nanos);
        let latest_taken = Permits::Two.count() * self.interval_nanos;
        let latest_state = latest_due.saturating_add(latest_taken + CLOCK_SKEW_NANOS);
        let due = match state {
            Some(state) if state > latest_state => latest_due,
            Some(state) => state.max(now_unix_nanos),
            None => now_unix_nanos,
        };
        let latest_due = match share {
            BurstShare::Full => latest_due,
            BurstShare::ExceptReserve => latest_due.saturating_sub(self.reserve_nanos),
        };
        let taken = permits.count() * self.interval_nanos;
        (due <= latest_due).then(|| due.saturating_add(taken))
    }

    /// Gives back permits that were not used, and returns the new state.
    pub fn give_back(&self, state: u64, permits: Permits) -> u64 {
        state.saturating_sub(permits.count() * self.interval_nanos)
    }
}

/// Takes the permits of one request from each of two limits, or from neither if one of them refuses;
/// the error is the index of that limit. `take` tells whether the limit granted them; `give_back` gives
/// them back.
pub(crate) fn take_permits(
    limits: [Option<(&Limit, BurstShare)>; 2],
    take: &mut dyn FnMut(&Limit, BurstShare) -> bool,
    give_back: &mut dyn FnMut(&Limit),
) -> Result<(), usize> {
    let [first, second] = limits;
    if first.is_some_and(|(limit, share)| !take(limit, share)) {
        return Err(0);
    }
    if second.is_some_and(|(limit, share)| !take(limit, share)) {
        if let Some((limit, _)) = first {
            give_back(limit);
        }
        return Err(1);
    }
    Ok(())
}

/// The lowest rate of a limit.
pub(crate) const MIN_PER_SECOND: f64 = 0.001;
/// The highest rate of a limit.
pub(crate) const MAX_PER_SECOND: f64 = 1e6;
const MAX_BURST: u32 = 1_000_000;
/// The most by which the clocks of workers that share a state may differ.
const CLOCK_SKEW_NANOS: u64 = 1_000_000_000;
const NANOS_PER_SECOND: f64 = 1e9;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_800_000_000 * SECOND;

    /// Requests a permit at each of these times, and returns the times at which it was granted.
    fn granted(limit: &Limit, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut state = None;
        let mut is_granted = |now: &u64| {
            let next = limit.take(state, *now, BurstShare::Full, Permits::One);
            state = next.or(state);
            next.is_some()
        };
        times.into_iter().filter(|now| is_granted(now)).collect()
    }

    #[test]
    fn a_permit_that_is_given_back_is_granted_again() {
        let limit = Limit::new("a", 1.0, 2).unwrap();
        let one = limit.take(None, START, BurstShare::Full, Permits::One).unwrap();
        let two = limit.take(Some(one), START, BurstShare::Full, Permits::One).unwrap();
        assert_eq!(limit.take(Some(two), START, BurstShare::Full, Permits::One), None);
        assert_eq!(limit.give_back(two, Permits::One), one);
        assert_eq!(
            limit.take(
                Some(limit.give_back(two, Permits::One)),
                START,
                BurstShare::Full,
                Permits::One
            ),
            Some(two)
        );
    }

    #[test]
    fn a_request_with_two_spans_takes_two_permits_if_one_is_left() {
        let take = |limit: &Limit, state| limit.take(state, START, BurstShare::Full, Permits::Two);
        for (burst, requests) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
            let limit = Limit::new("a", 1.0, burst).unwrap();
            let mut states = vec![None];
            while let Some(next) = take(&limit, states[states.len() - 1]) {
                states.push(Some(next));
            }
            assert_eq!(states.len() - 1, requests, "{burst}");
            // The permit beyond the burst is missing later.
            let taken = 2 * requests as u64;
            assert_eq!(states[requests], Some(START + taken * SECOND));
            let when_free = START + (taken + 1 - u64::from(burst)) * SECOND;
            let one = |now| limit.take(states[requests], now, BurstShare::Full, Permits::One);
            assert_eq!((one(when_free - 1), one(when_free).is_some()), (None, true), "{burst}");
            assert_eq!(
                limit.give_back(states[requests].unwrap(), Permits::Two),
                START + (taken - 2) * SECOND
            );
        }
    }

    #[test]
    fn a_limit_keeps_its_permit_if_the_other_refuses() {
        let limits = [1.0, 2.0].map(|rate| Limit::new("a", rate, 1).unwrap());
        let [one, two] = &limits;
        for (requested, exhausted, expected, permits_taken) in [
            ([Some(one), Some(two)], None, Ok(()), [1, 1]),
            ([Some(one), Some(two)], Some(one), Err(0), [0, 0]),
            ([Some(one), Some(two)], Some(two), Err(1), [0, 0]),
            ([None, Some(two)], Some(two), Err(1), [0, 0]),
            ([None, Some(two)], None, Ok(()), [0, 1]),
            ([None, None], None, Ok(()), [0, 0]),
        ] {
            let taken = std::cell::Cell::new([0, 0]);
            let add = |limit: &Limit, by: i32| {
                let mut counts = taken.get();
                counts[usize::from(limit == two)] += by;
                taken.set(counts);
            };
            let mut take = |limit: &Limit, _| {
                let is_granted = Some(limit) != exhausted;
                add(limit, i32::from(is_granted));
                is_granted
            };
            let requested = requested.map(|limit| limit.map(|limit| (limit, BurstShare::Full)));
            assert_eq!(take_permits(requested, &mut take, &mut |limit| add(limit, -1)), expected);
            assert_eq!(taken.get(), permits_taken);
        }
    }

    /// Requests that may use the full burst get permits under a flood of those that may not.
    #[test]
    fn a_tenth_of_the_burst_is_reserved() {
        for (burst, reserve) in [(1, 0), (2, 1), (9, 1), (100, 10)] {
            let limit = Limit::new("a", 1.0, burst).unwrap();
            let mut state = None;
            let mut count = |share| {
                let mut taken = 0;
                while let Some(next) = limit.take(state, START, share, Permits::One) {
                    state = Some(next);
                    taken += 1;
                }
                taken
            };
            assert_eq!(
                (count(BurstShare::ExceptReserve), count(BurstShare::Full)),
                (burst - reserve, reserve)
            );
        }
    }

    #[track_caller]
    fn check(per_second: f64, burst: u32, times: &[u64], expected: &[u64]) {
        let limit = Limit::new("a", per_second, burst).unwrap();
        assert_eq!(granted(&limit, times.iter().copied()), expected);
    }

    #[test]
    fn a_burst_is_granted_and_then_one_permit_an_interval() {
        let tenth = SECOND / 10;
        check(10.0, 1, &[0, 0, tenth - 1, tenth], &[0, tenth]);
        check(10.0, 2, &[0, 0, 0, tenth, tenth], &[0, 0, tenth]);
        check(10.0, 2, &[0, 0, SECOND, SECOND, SECOND], &[0, 0, SECOND, SECOND]);
        check(0.5, 1, &[0, SECOND, 2 * SECOND], &[0, 2 * SECOND]);
    }

    #[test]
    fn a_limit_recovers_within_a_burst_after_the_clock_is_set_back() {
        let limit = Limit::new("a", 1.0, 3).unwrap();
        let hour_ahead = limit.take(None, START + 3600 * SECOND, BurstShare::Full, Permits::One);
        assert_eq!(
            limit.take(hour_ahead, START, BurstShare::Full, Permits::One),
            Some(START + 3 * SECOND)
        );
        assert_eq!(
            limit.take(Some(START + 3 * SECOND), START, BurstShare::Full, Permits::One),
            None
        );
        let skewed = Some(START + 4 * SECOND);
        assert_eq!(
            limit.take(skewed, START, BurstShare::Full, Permits::One),
            None,
            "another worker's clock is a second ahead"
        );
    }

    #[test]
    fn numbers_out_of_range_are_no_limit() {
        for (per_second, burst) in
            [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (1e7, 1), (1.0, 0), (1.0, 1_000_001)]
        {
            assert_eq!(Limit::new("a", per_second, burst), None, "{per_second} {burst}");
        }
    }

    #[test]
    fn limits_of_the_same_name_and_numbers_share_their_state() {
        let key = |name, rate, burst| Limit::new(name, rate, burst).unwrap().key().to_owned();
        assert_eq!(key("a", 10.0, 2), key("a", 10.0, 2));
        for other in [key("b", 10.0, 2), key("a", 11.0, 2), key("a", 10.0, 3)] {
            assert_ne!(key("a", 10.0, 2), other);
        }
    }

    proptest! {
        /// In any window at most a burst and the permits of the rate are granted. Under a flood of
        /// requests hardly fewer permits are granted than the rate allows.
        #[test]
        fn no_window_has_more_permits_than_the_rate_and_a_burst(
            per_second in 0.1f64..1000.0, burst in 1u32..50, step in 1u64..100_000_000,
        ) {
            let limit = Limit::new("a", per_second, burst).unwrap();
            let times: Vec<_> = (0..2000).map(|count| START + count * step).collect();
            let granted = granted(&limit, times.iter().copied());
            for (count, first) in granted.iter().enumerate() {
                for (later, last) in granted.iter().enumerate().skip(count) {
                    let window = (last - first) as f64 / 1e9;
                    let most = f64::from(burst) + window * per_second + 1e-6;
                    prop_assert!((later - count + 1) as f64 <= most);
                }
            }
            let is_flood = step as f64 / 1e9 * per_second < 0.01;
            let whole = (times[times.len() - 1] - START) as f64 / 1e9;
            if is_flood {
                prop_assert!(granted.len() as f64 >= (whole * per_second * 0.98).floor());
            }
        }

        #[test]
        fn no_state_panics(state: Option<u64>, now: u64) {
            let _ = Limit::new("a", 0.001, 1_000_000).unwrap().take(state, now, BurstShare::Full, Permits::One);
        }
    }
}
