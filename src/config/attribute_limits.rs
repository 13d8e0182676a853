//! `attribute_limits`: how many attributes a span may have, and how long their values may be.

use serde::Deserialize;

use super::error::{InPath, Result};
use super::shapes::within;
use crate::span::encoding::AttributeLimits;

/// The `attribute_limits` of OpenTelemetry's declarative configuration.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAttributeLimits {
    /// The most attributes of a span, from 0 to 1024. The span's own attributes are recorded first.
    /// Custom tags fill the rest: first fixed values, then values from the request's headers, then values
    /// from the request's end. Tags beyond the limit are left out and counted. Default: `128`.
    /// Example: `64`.
    #[serde(alias = "attributeCountLimit")]
    pub attribute_count_limit: Option<u32>,
    /// The most characters of a string value, from 32 to 16384. Longer values are cut and counted.
    /// Default: `1024`. Example: `256`.
    #[serde(alias = "attributeValueLengthLimit")]
    pub attribute_value_length_limit: Option<u32>,
}

impl RawAttributeLimits {
    pub(super) fn compile(&self) -> Result<AttributeLimits> {
        let default = AttributeLimits::default();
        let count = self.attribute_count_limit.unwrap_or(default.count);
        let length = self.attribute_value_length_limit.unwrap_or(default.value_length);
        Ok(AttributeLimits {
            count: within(0, MAX_COUNT, count).under("attribute_count_limit")?,
            value_length: within(MIN_LENGTH, MAX_LENGTH, length)
                .under("attribute_value_length_limit")?,
        })
    }
}

const MAX_COUNT: u32 = 1_024;
const MIN_LENGTH: u32 = 32;
const MAX_LENGTH: u32 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{check_refused, parse};

    #[test]
    fn limits_have_bounds() {
        let limits = |members: &str| format!(r#"{{"attribute_limits": {{{members}}}}}"#);
        let default = AttributeLimits { count: 128, value_length: 1024 };
        assert_eq!(parse("").unwrap().span.attribute_limits, default);
        let json = limits(r#""attribute_count_limit": 0, "attributeValueLengthLimit": 32"#);
        let least = AttributeLimits { count: 0, value_length: 32 };
        assert_eq!(parse(&json).unwrap().span.attribute_limits, least);
        for (key, value, bounds) in [
            ("attribute_count_limit", 1025, "0 to 1024"),
            ("attribute_value_length_limit", 31, "32 to 16384"),
            ("attribute_value_length_limit", 16385, "32 to 16384"),
        ] {
            check_refused(
                &limits(&format!(r#""{key}": {value}"#)),
                &format!("attribute_limits.{key}"),
                &[bounds, &format!("but found {value}")],
            );
        }
    }
}
