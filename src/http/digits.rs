//! Numbers as text: hex, decimal, and floating-point numbers.
//!
//! ```text
//! hex bytes  = *( 2HEXDIGLC )       ; HEXDIGLC = DIGIT / %x61-66
//! hex number = 1*HEXDIG             ; in either case
//! decimal    = 1*DIGIT
//! ```

use serde_json::Number;

/// Reads `N` bytes from exactly `2 * N` digits of lower-case hex.
pub(crate) fn decode_hex<const N: usize>(hex: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, rest) = hex.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut all = 0;
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (high, low) = (nibble(*high), nibble(*low));
        all |= high | low;
        *byte = high << 4 | low;
    }
    (all < NOT_A_NIBBLE).then_some(bytes)
}

/// Writes bytes as lower-case hex into a buffer of twice their length.
pub(crate) fn encode_hex(bytes: &[u8], hex: &mut [u8]) {
    let (pairs, _) = hex.as_chunks_mut::<2>();
    for ([high, low], byte) in pairs.iter_mut().zip(bytes) {
        *high = hex_digit(byte >> 4);
        *low = hex_digit(byte & 15);
    }
}

/// Returns bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex_digit).map(char::from).collect()
}

/// Returns the lower-case hex digit of a number below 16.
pub(crate) fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

/// Returns the value of a hex digit in either case.
pub(crate) fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Reads a hex number: only digits, in either case. Returns `None` for anything else, for no digits,
/// and for a number that `T` cannot hold.
pub(crate) fn hex_number<T: TryFrom<u64>>(digits: &[u8]) -> Option<T> {
    if digits.is_empty() {
        return None;
    }
    let mut number = 0u64;
    for digit in digits {
        number = number.checked_mul(16)? | u64::from(hex_value(*digit)?);
    }
    T::try_from(number).ok()
}

/// Reads a decimal number: only digits, no sign and no spaces. Returns `None` for anything else, for
/// no digits, and for a number that `T` cannot hold.
pub(crate) fn decimal<T: TryFrom<u64>>(digits: &[u8]) -> Option<T> {
    if digits.is_empty() {
        return None;
    }
    let mut number = 0u64;
    for digit in digits {
        let value = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number = number.checked_mul(10)?.checked_add(value)?;
    }
    T::try_from(number).ok()
}

/// Returns a number as JSON: the shortest text that reads back as the same number. Whole numbers have no
/// fraction, and very large and very small ones have an exponent. Numbers that JSON cannot write become
/// `NaN`, `Infinity` and `-Infinity`, as in protobuf's JSON.
///
/// <https://protobuf.dev/programming-guides/json/>
pub(crate) fn float(number: f64) -> String {
    match Number::from_f64(number) {
        Some(finite) => {
            let mut text = finite.to_string();
            if text.ends_with(".0") {
                text.truncate(text.len() - 2);
            }
            text
        }
        None if number.is_nan() => "NaN".to_owned(),
        None if number > 0.0 => "Infinity".to_owned(),
        None => "-Infinity".to_owned(),
    }
}

/// Returns the value of a lower-case hex digit, or [`NOT_A_NIBBLE`].
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => NOT_A_NIBBLE,
    }
}

/// Greater than every nibble, and still so after `|` with one.
const NOT_A_NIBBLE: u8 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(digits: &str, expected: Option<u16>) {
        assert_eq!(decimal(digits.as_bytes()), expected, "{digits:?}");
    }

    #[test]
    fn decimal_numbers_are_only_digits() {
        check("0", Some(0));
        check("7", Some(7));
        check("007", Some(7));
        check("65535", Some(65535));
        check("65536", None);
        check("18446744073709551616", None);
        check("", None);
        check("+7", None);
        check("-7", None);
        check(" 7", None);
        check("7 ", None);
        check("7.0", None);
        check("7e0", None);
        check("0x7", None);
        check("7_0", None);
        check("٧", None);
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
    }

    #[test]
    fn hex_bytes_have_two_lower_case_digits_each() {
        for (hex, expected) in [
            ("00ff", Some([0, 0xff])),
            ("a1b2", Some([0xa1, 0xb2])),
            ("00FF", None),
            ("00f", None),
            ("00ff0", None),
            ("00ff00", None),
            ("0xff", None),
            ("00f ", None),
            ("+0ff", None),
            ("", None),
        ] {
            assert_eq!(decode_hex(hex.as_bytes()), expected, "{hex:?}");
        }
    }

    #[test]
    fn hex_numbers_have_digits_in_either_case() {
        for (digits, expected) in [
            ("0", Some(0)),
            ("fF", Some(0xff)),
            ("0000000000000000000000ffff", Some(0xffff)),
            ("10000", None),
            ("10000000000000000", None),
            ("", None),
            ("g", None),
            ("+1", None),
            ("0x1", None),
            ("é", None),
        ] {
            assert_eq!(hex_number::<u16>(digits.as_bytes()), expected, "{digits:?}");
        }
        assert_eq!(hex_number(b"ffffffffffffffff"), Some(u64::MAX));
    }

    #[test]
    fn floats_are_the_shortest_that_read_back() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (10.0, "10"),
            (-1.5, "-1.5"),
            (-2.5, "-2.5"),
            (0.25, "0.25"),
            (0.1, "0.1"),
            (11.1, "11.1"),
            (100.0, "100"),
            (12.345_678_9, "12.3456789"),
            (2.0 / 3.0, "0.6666666666666666"),
            (1.000_001, "1.000001"),
            (0.999_999_9, "0.9999999"),
            (2.5e-4, "0.00025"),
            (1e-9, "1e-9"),
            (1e-21, "1e-21"),
            (1e-30, "1e-30"),
            (1_234_567.25, "1234567.25"),
            (4_294_967_296.0, "4294967296"),
            (1e11, "100000000000"),
            (1e20, "1e+20"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(float(number), expected, "{number:e}");
        }
    }

    proptest! {
        #[test]
        fn floats_are_read_back(number: f64) {
            let text = float(number);
            let read: f64 = text.parse().unwrap();
            prop_assert!(read.to_bits() == number.to_bits() || read.is_nan() && number.is_nan());
            prop_assert!(!text.ends_with(".0"));
        }

        #[test]
        fn hex_is_read_back(bytes: [u8; 16]) {
            let mut digits = [0; 32];
            encode_hex(&bytes, &mut digits);
            let text = hex(&bytes);
            prop_assert_eq!(text.as_bytes(), digits);
            prop_assert_eq!(decode_hex(&digits), Some(bytes));
        }

        #[test]
        fn decimal_numbers_are_read_back(number: u64) {
            prop_assert_eq!(decimal(number.to_string().as_bytes()), Some(number));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = (decimal::<u64>(&bytes), hex_number::<u64>(&bytes), decode_hex::<8>(&bytes));
        }
    }
}
