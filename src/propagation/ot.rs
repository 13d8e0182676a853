//! OpenTelemetry's member of `tracestate`:
//! <https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/>.
//!
//! ```text
//! value = sub *( ";" sub )           ; at most 256 bytes
//! sub   = "th:" 1*14HEXDIG           ; rejection threshold, without the zeros at its end
//!       / "rv:" 14HEXDIG             ; randomness of the trace, in place of that of its id
//!       / key ":" *chr               ; of others, which go on as they came
//! ```
//!
//! The specification's grammar allows for digits in either case; they are written in lower case.

use crate::http::digits::hex_digit;
use opentelemetry::trace::TraceId;

/// What a sampling decision does to the threshold, `th`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThresholdUpdate {
    /// The parent's decision was followed: its threshold stays, unless it contradicts that decision.
    Keep,
    /// A ratio sampled the trace: its threshold is written.
    Set(u64),
    /// The trace is not sampled, or not by a known probability: no threshold is written.
    Erase,
}

/// Returns the threshold that a value states.
pub fn threshold(value: &[u8]) -> Option<u64> {
    let digits = sub(value, b"th:")?;
    if digits.len() > DIGITS as usize {
        return None;
    }
    let missing = DIGITS - digits.len() as u64;
    number(digits).map(|number| number << (4 * missing))
}

/// Returns the randomness that a value states.
pub fn randomness(value: &[u8]) -> Option<u64> {
    sub(value, b"rv:").filter(|digits| digits.len() == DIGITS as usize).and_then(number)
}

/// Returns the random bits of a trace id: its right-most 7 bytes (W3C Trace Context Level 2).
pub fn randomness_of_id(trace_id: TraceId) -> u64 {
    u128::from_be_bytes(trace_id.to_bytes()) as u64 % RANDOMNESS
}

/// Returns a value with this threshold, or without one. A randomness that breaks the grammar is gone
/// then, and so is a threshold that makes the value too long. Nothing may be left.
pub fn rewritten(value: &[u8], threshold: Option<u64>) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut has_randomness = false;
    for sub in subs(value) {
        if sub.is_empty() || sub.starts_with(b"th:") {
            continue;
        }
        if sub.starts_with(b"rv:") {
            // Only the first is read, valid or not.
            let again = std::mem::replace(&mut has_randomness, true);
            if again || randomness(sub).is_none() {
                continue;
            }
        }
        rest.push(b';');
        rest.extend_from_slice(sub);
    }
    let mut value = Vec::new();
    if let Some(threshold) = threshold {
        value.extend_from_slice(b"th:");
        value.extend_from_slice(&written(threshold));
        if value.len() + rest.len() <= MAX_VALUE_BYTES {
            value.extend_from_slice(&rest);
            return value;
        }
        value.clear();
    }
    value.extend_from_slice(rest.get(1..).unwrap_or_default());
    value
}

/// Returns a value that states a threshold and a randomness.
pub fn stated(threshold: u64, randomness: u64) -> Vec<u8> {
    let mut value = [b"th:", written(threshold).as_slice(), b";rv:"].concat();
    let digits = (0..DIGITS).rev().map(|place| hex_digit((randomness >> (4 * place)) as u8 & 0xf));
    value.extend(digits);
    value
}

/// Returns a threshold as it is written.
pub fn written(threshold: u64) -> Vec<u8> {
    let mut digits = Vec::with_capacity(DIGITS as usize);
    let mut left = threshold << (64 - 4 * DIGITS);
    loop {
        let nibble = (left >> 60) as u8;
        digits.push(hex_digit(nibble));
        left <<= 4;
        if left == 0 {
            return digits;
        }
    }
}

/// Returns what follows a sub-key, where it is there.
fn sub<'v>(value: &'v [u8], key: &[u8]) -> Option<&'v [u8]> {
    subs(value).find_map(|sub| sub.strip_prefix(key))
}

/// Spaces have no place between them, and at the end of a value would break the list.
fn subs(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// Reads hex digits, at least one and at most 16.
fn number(digits: &[u8]) -> Option<u64> {
    let mut number = 0;
    for digit in digits {
        number = number << 4 | u64::from(char::from(*digit).to_digit(16)?);
    }
    (!digits.is_empty()).then_some(number)
}

/// One more than any randomness.
pub const RANDOMNESS: u64 = 1 << 56;
/// Hex digits of a threshold and of a randomness.
pub const DIGITS: u64 = 14;
/// Of the member's key in `tracestate`.
pub const KEY: &[u8] = b"ot";
const MAX_VALUE_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(value: &str, threshold: Option<u64>, randomness: Option<u64>) {
        let value = value.as_bytes();
        assert_eq!((super::threshold(value), super::randomness(value)), (threshold, randomness));
    }

    #[test]
    fn thresholds_and_randomness_are_read() {
        check("th:0", Some(0), None);
        check("th:8", Some(RANDOMNESS / 2), None);
        check("th:fd70a4", Some(0xfd_70a4_0000_0000), None);
        check("th:FD70A4", Some(0xfd_70a4_0000_0000), None);
        check("rv:00000000000001", None, Some(1));
        check("th:ffffffffffffff;rv:ffffffffffffff", Some(RANDOMNESS - 1), Some(RANDOMNESS - 1));
        check("p:8;rv:d29d6a7215ced0;th:c;pn:abc", Some(0xc << 52), Some(0xd2_9d6a_7215_ced0));
        check("th:c;th:8", Some(0xc << 52), None);
        check("a:1; th:c ;b:1", Some(0xc << 52), None);
    }

    #[test]
    fn what_breaks_the_grammar_is_not_read() {
        for value in [
            "",
            ";",
            "th",
            "th:",
            "rv:",
            "th:g",
            "th:-1",
            "th:+1",
            "th:000000000000000",
            "th: 8",
            "xth:8",
            "rv:1",
            "rv:0000000000000g",
            "rv:000000000000000",
            "TH:8",
            "th=8",
            "th:8,",
            "th:é",
        ] {
            check(value, None, None);
        }
    }

    #[test]
    fn values_are_rewritten() {
        let half = Some(RANDOMNESS / 2);
        let long = format!("k:{}", "v".repeat(250));
        let rows = [
            ("", half, "th:8"),
            ("", Some(0), "th:0"),
            ("", None, ""),
            ("th:c", half, "th:8"),
            ("th:c", None, ""),
            ("th:c;rv:d29d6a7215ced0;pn:abc", half, "th:8;rv:d29d6a7215ced0;pn:abc"),
            ("a:1;th:c;rv:d29d6a7215ced0", None, "a:1;rv:d29d6a7215ced0"),
            ("rv:d29d6a7215ced0;rv:00000000000000", half, "th:8;rv:d29d6a7215ced0"),
            ("rv:short;a:1", half, "th:8;a:1"),
            ("rv:short", None, ""),
            ("rv:short;rv:d29d6a7215ced0", half, "th:8"),
            ("th:rubbish;th:8;a:1", None, "a:1"),
            (";;a:1;", None, "a:1"),
            ("th:8;a:1 ;", None, "a:1"),
            ("a:1; th:8 ; b:1", None, "a:1;b:1"),
            (long.as_str(), half, long.as_str()),
        ];
        for (value, threshold, expected) in rows {
            let found = String::from_utf8(rewritten(value.as_bytes(), threshold)).unwrap();
            assert_eq!(found, expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(found in 0..RANDOMNESS, rest in "[a-z]{1,2}:[a-z0-9]{0,9}") {
            prop_assume!(!rest.starts_with("th:") && !rest.starts_with("rv:"));
            let value = rewritten(rest.as_bytes(), Some(found));
            prop_assert_eq!(threshold(&value), Some(found));
            prop_assert_eq!(rewritten(&value, None), rest.into_bytes());
        }

        #[test]
        fn no_bytes_panic(value: Vec<u8>, found: Option<u64>) {
            let _ = (threshold(&value), randomness(&value), rewritten(&value, found));
        }
    }
}
