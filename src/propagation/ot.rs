//! OpenTelemetry's member of `tracestate`:
//! <https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/>.
//!
//! ```text
//! value = sub *( ";" sub )           ; at most 256 bytes
//! sub   = "th:" 1*14HEXDIG           ; rejection threshold, without the zeros at its end
//!       / "rv:" 14HEXDIG             ; randomness of the trace, in place of its id's
//!       / key ":" *chr               ; any other, passed on as it came
//! ```
//!
//! The specification's grammar allows hex digits in either case; they are written in lower case.

use opentelemetry::trace::TraceId;

use crate::http::digits::{hex_digit, hex_number};

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
    hex_number::<u64>(digits).map(|number| number << (4 * missing))
}

/// Returns the randomness that a value states.
pub fn randomness(value: &[u8]) -> Option<u64> {
    sub(value, b"rv:").filter(|digits| digits.len() == DIGITS as usize).and_then(hex_number)
}

/// Returns the random bits of a trace id: its right-most 7 bytes (W3C Trace Context Level 2).
pub fn randomness_of_id(trace_id: TraceId) -> u64 {
    u128::from_be_bytes(trace_id.to_bytes()) as u64 % RANDOMNESS
}

/// Returns a value with this threshold, or without one. It leaves out a randomness that breaks the
/// grammar, and a threshold that would make the value too long. The result may be empty.
pub fn rewritten(value: &[u8], threshold: Option<u64>) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut has_randomness = false;
    for sub in subs(value) {
        if sub.is_empty() || sub.starts_with(b"th:") {
            continue;
        }
        if sub.starts_with(b"rv:") {
            // Only the first is read, whether it is valid or not.
            let is_repeated = std::mem::replace(&mut has_randomness, true);
            if is_repeated || randomness(sub).is_none() {
                continue;
            }
        }
        rest.push(b';');
        rest.extend_from_slice(sub);
    }
    let mut value = Vec::new();
    if let Some(threshold) = threshold {
        value.extend_from_slice(b"th:");
        value.extend_from_slice(&threshold_digits(threshold));
        if value.len() + rest.len() <= MAX_VALUE_BYTES {
            value.extend_from_slice(&rest);
            return value;
        }
        value.clear();
    }
    value.extend_from_slice(rest.get(1..).unwrap_or_default());
    value
}

/// Returns a value with this threshold and this randomness, and nothing else.
pub fn with_randomness(threshold: u64, randomness: u64) -> Vec<u8> {
    let mut value = [b"th:", threshold_digits(threshold).as_slice(), b";rv:"].concat();
    let digits = (0..DIGITS).rev().map(|index| hex_digit((randomness >> (4 * index)) as u8 & 0xf));
    value.extend(digits);
    value
}

/// Returns the digits of a threshold, without the zeros at its end.
pub fn threshold_digits(threshold: u64) -> Vec<u8> {
    let mut digits = Vec::with_capacity(DIGITS as usize);
    let mut rest = threshold << (64 - 4 * DIGITS);
    loop {
        let nibble = (rest >> 60) as u8;
        digits.push(hex_digit(nibble));
        rest <<= 4;
        if rest == 0 {
            return digits;
        }
    }
}

/// Returns the text after the first sub-key like this, if there is one.
fn sub<'v>(value: &'v [u8], key: &[u8]) -> Option<&'v [u8]> {
    subs(value).find_map(|sub| sub.strip_prefix(key))
}

/// Splits a value at its semicolons. Spaces are not part of the grammar, and one at the end of a value
/// would break the list, so they are trimmed.
fn subs(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// The number of different random values: each is less.
pub const RANDOMNESS: u64 = 1 << 56;
/// The hex digits of a randomness, and the most of a threshold.
pub const DIGITS: u64 = 14;
/// The key of the member in `tracestate`.
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
    fn values_that_break_the_grammar_are_not_read() {
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
        fn a_rewritten_threshold_is_read_back(found in 0..RANDOMNESS, rest in "[a-z]{1,2}:[a-z0-9]{0,9}") {
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
