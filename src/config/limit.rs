//! Rate limits, which several sections have.

use serde::Deserialize;

use super::error::{ConfigError, Result};
use crate::http::digits;
use crate::sampling::limit::{Limit, MAX_PER_SECOND, MIN_PER_SECOND};

/// A rate limit that all workers of an Envoy share.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimit {
    /// Spans per second, from 0.001 to 1000000. Required. Example: `10`.
    #[serde(alias = "perSecond")]
    pub per_second: f64,
    /// The most spans that are allowed at once, from 1 to 1000000. Default: `per_second`, rounded up.
    pub burst: Option<u32>,
}

impl RawLimit {
    /// Returns the rate, which is in its range, and the burst.
    pub(super) fn numbers(&self) -> Result<(f64, u32)> {
        let rate = self.per_second;
        if !(MIN_PER_SECOND..=MAX_PER_SECOND).contains(&rate) {
            let expected = "a number from 0.001 to 1000000";
            return Err(ConfigError::new(expected, digits::float(rate)).under("per_second"));
        }
        Ok((rate, self.burst.unwrap_or(rate.ceil() as u32)))
    }

    /// Compiles a limit. Limits with the same name and the same numbers share their state.
    pub(super) fn compile(&self, name: &str) -> Result<Limit> {
        let (rate, burst) = self.numbers()?;
        Limit::new(name, rate, burst).ok_or_else(|| {
            ConfigError::new("a whole number from 1 to 1000000", burst).under("burst")
        })
    }
}
