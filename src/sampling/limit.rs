//! Rate limits: the generic cell rate algorithm (ITU-T I.371, annex A), whose state is one number.
//!
//! The state is the time at which the next one would be due if they came evenly. One is let through
//! as long as that time is at most `burst - 1` intervals ahead. So in any `t` seconds there are at
//! most `burst + t * per_second`.

/// How many a second, and how many at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    key: String,
    interval_nanos: u64,
    /// How far the state may be ahead of the clock before one more.
    tolerance_nanos: u64,
    /// The part of the tolerance that is kept for requests that a rule forces.
    reserve_nanos: u64,
}

/// How much of a burst may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    Whole,
    /// All but a tenth, at least one, which is kept back; of a burst of one nothing is.
    ButReserve,
}

impl Limit {
    /// Returns a limit, and none unless `per_second` is from 0.001 to 1,000,000 and `burst` from 1 to
    /// 1,000,000. Limits of the same name and numbers share their state.
    pub fn new(name: &str, per_second: f64, burst: u32) -> Option<Self> {
        if !(0.001..=1e6).contains(&per_second) || !(1..=MAX_BURST).contains(&burst) {
            return None;
        }
        // Rounded up, so that no more than `per_second` get through.
        let interval_nanos = (NANOS_PER_SECOND / per_second).ceil() as u64;
        let tolerance_nanos = interval_nanos * u64::from(burst - 1);
        let reserve = if burst == 1 { 0 } else { (burst / 10).max(1) };
        let reserve_nanos = interval_nanos * u64::from(reserve);
        let numbers = [interval_nanos.to_string(), burst.to_string()];
        let [interval, burst] = &numbers;
        let key = ["sidespan.limit.", name, "/", interval, "/", burst].concat();
        Some(Self { key, interval_nanos, tolerance_nanos, reserve_nanos })
    }

    /// Returns the name under which the state is kept.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the state after one more, and none where there is no room for it. A state that is
    /// further ahead than any can be is from before the clock was set back; it counts as that of a
    /// burst just now.
    pub fn take(&self, state: Option<u64>, now_unix_nanos: u64, share: Share) -> Option<u64> {
        let full = now_unix_nanos.saturating_add(self.tolerance_nanos);
        let possible = full.saturating_add(self.interval_nanos + CLOCK_SKEW_NANOS);
        let due = match state {
            Some(state) if state > possible => full,
            Some(state) => state.max(now_unix_nanos),
            None => now_unix_nanos,
        };
        let latest = match share {
            Share::Whole => full,
            Share::ButReserve => full.saturating_sub(self.reserve_nanos),
        };
        (due <= latest).then(|| due.saturating_add(self.interval_nanos))
    }

    /// Returns the state as it was before one that was taken, for one that is not used after all.
    pub fn give_back(&self, state: u64) -> u64 {
        state.saturating_sub(self.interval_nanos)
    }
}

/// Takes one from each limit or, where one has none left, from none of them, and then returns the
/// index of the one that refused. `take` takes one, where one is left; `give_back` returns it.
pub fn take_each(
    limits: [Option<(&Limit, Share)>; 2],
    take: &mut dyn FnMut(&Limit, Share) -> bool,
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

/// By how much the clocks of workers may differ that share a state.
const CLOCK_SKEW_NANOS: u64 = 1_000_000_000;
const NANOS_PER_SECOND: f64 = 1e9;
const MAX_BURST: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_800_000_000 * SECOND;

    /// Asks at these times, and returns at which of them there was room.
    fn granted(limit: &Limit, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut state = None;
        let grant = |now: &u64| match limit.take(state, *now, Share::Whole) {
            Some(next) => {
                state = Some(next);
                true
            }
            None => false,
        };
        times.into_iter().filter(grant).collect()
    }

    #[test]
    fn one_that_is_given_back_is_there_for_the_next() {
        let limit = Limit::new("a", 1.0, 2).unwrap();
        let one = limit.take(None, START, Share::Whole).unwrap();
        let two = limit.take(Some(one), START, Share::Whole).unwrap();
        assert_eq!(limit.take(Some(two), START, Share::Whole), None);
        assert_eq!(limit.give_back(two), one);
        assert_eq!(limit.take(Some(limit.give_back(two)), START, Share::Whole), Some(two));
    }

    #[test]
    fn where_one_limit_refuses_no_other_is_used_up() {
        let limits = [1.0, 2.0].map(|rate| Limit::new("a", rate, 1).unwrap());
        let [one, two] = &limits;
        for (asked, full, expected, left) in [
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
                let has_room = Some(limit) != full;
                add(limit, i32::from(has_room));
                has_room
            };
            let asked = asked.map(|limit| limit.map(|limit| (limit, Share::Whole)));
            assert_eq!(take_each(asked, &mut take, &mut |limit| add(limit, -1)), expected);
            assert_eq!(taken.get(), left);
        }
    }

    /// Under a flood of others there is room for what may use the whole, and in the long run no more
    /// than the limit says.
    #[test]
    fn a_tenth_of_the_burst_is_kept_back() {
        for (burst, kept) in [(1, 0), (2, 1), (9, 1), (100, 10)] {
            let limit = Limit::new("a", 1.0, burst).unwrap();
            let mut state = None;
            let mut count = |share| {
                let mut taken = 0;
                while let Some(next) = limit.take(state, START, share) {
                    state = Some(next);
                    taken += 1;
                }
                taken
            };
            assert_eq!((count(Share::ButReserve), count(Share::Whole)), (burst - kept, kept));
        }
    }

    #[track_caller]
    fn check(per_second: f64, burst: u32, times: &[u64], expected: &[u64]) {
        let limit = Limit::new("a", per_second, burst).unwrap();
        assert_eq!(granted(&limit, times.iter().copied()), expected);
    }

    #[test]
    fn bursts_are_let_through_and_then_one_an_interval() {
        let tenth = SECOND / 10;
        check(10.0, 1, &[0, 0, tenth - 1, tenth], &[0, tenth]);
        check(10.0, 2, &[0, 0, 0, tenth, tenth], &[0, 0, tenth]);
        check(10.0, 2, &[0, 0, SECOND, SECOND, SECOND], &[0, 0, SECOND, SECOND]);
        check(0.5, 1, &[0, SECOND, 2 * SECOND], &[0, 2 * SECOND]);
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing_for_long() {
        let limit = Limit::new("a", 1.0, 3).unwrap();
        let hour_ahead = limit.take(None, START + 3600 * SECOND, Share::Whole);
        assert_eq!(limit.take(hour_ahead, START, Share::Whole), Some(START + 3 * SECOND));
        assert_eq!(limit.take(Some(START + 3 * SECOND), START, Share::Whole), None);
        let skewed = Some(START + 4 * SECOND);
        assert_eq!(
            limit.take(skewed, START, Share::Whole),
            None,
            "another worker's clock is a second ahead"
        );
    }

    #[test]
    fn only_rates_are_limits() {
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
        /// In any window there are at most a burst and what the rate allows for, and where there is
        /// always one that asks, hardly fewer than the rate allows for.
        #[test]
        fn no_window_has_more(
            per_second in 0.1f64..1000.0, burst in 1u32..50, step in 1u64..100_000_000,
        ) {
            let limit = Limit::new("a", per_second, burst).unwrap();
            let times: Vec<_> = (0..2000).map(|count| START + count * step).collect();
            let granted = granted(&limit, times.iter().copied());
            for (count, first) in granted.iter().enumerate() {
                for (further, last) in granted.iter().enumerate().skip(count) {
                    let window = (last - first) as f64 / 1e9;
                    let most = f64::from(burst) + window * per_second + 1e-6;
                    prop_assert!((further - count + 1) as f64 <= most);
                }
            }
            let asked_enough = step as f64 / 1e9 * per_second < 0.01;
            let whole = (times[times.len() - 1] - START) as f64 / 1e9;
            if asked_enough {
                prop_assert!(granted.len() as f64 >= (whole * per_second * 0.98).floor());
            }
        }

        #[test]
        fn no_state_panics(state: Option<u64>, now: u64) {
            let _ = Limit::new("a", 0.001, 1_000_000).unwrap().take(state, now, Share::Whole);
        }
    }
}
