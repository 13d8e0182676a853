//! The time at which a request arrived, as format strings write it: in UTC, by a format like that of C's
//! `strftime`.
//!
//! ```text
//! format = *( text / "%" ( "Y" / "m" / "d" / "H" / "M" / "S" / "F" / "T" / "z" / "Z"
//!                          / "s"                    ; seconds since 1970
//!                          / [ 1-9 ] "f"            ; the first digits of the second's fraction, else 9
//!                          / "E" 1-9 "S" ) )        ; the second with as many digits of its fraction
//! ```
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/advanced/substitution_formatter>

use std::ops::Range;

/// The CEL expression whose value [`append_time`] reads.
pub(crate) const START_TIME: &str = r#""+0000UTC"+string(int(request.time))+string(request.time)"#;
/// A value of that expression.
pub(crate) const EXAMPLE: &[u8] = b"+0000UTC17958100632026-11-27T20:07:43.566134Z";

/// Appends the value of [`START_TIME`] in a format. Returns `None` if the format has anything else.
#[inline(never)]
pub(crate) fn append_time(text: &mut Vec<u8>, format: &str, time: &[u8]) -> Option<()> {
    let mut format = format.bytes();
    while let Some(byte) = format.next() {
        if byte != b'%' {
            text.push(byte);
            continue;
        }
        let mut specifier = format.next()?;
        let mut end = b'f';
        if specifier == b'E' {
            (end, specifier) = (b'S', format.next()?);
            text.extend_from_slice(time.get(SECOND)?);
            text.push(b'.');
        }
        let digits = match specifier {
            b'1'..=b'9' if format.next() == Some(end) => specifier - b'0',
            b'f' if end == b'f' => 9,
            _ if end == b'S' => return None,
            _ => {
                let (_, field) = FIELDS.iter().find(|(known, _)| *known == specifier)?;
                text.extend_from_slice(time.get(field.clone())?);
                continue;
            }
        };
        for index in 0..usize::from(digits) {
            let digit = time.get(SECOND.end + 1 + index).filter(|byte| byte.is_ascii_digit());
            text.push(*digit.unwrap_or(&b'0'));
        }
    }
    Some(())
}

/// Where each field stands in the value.
const FIELDS: [(u8, Range<usize>); 11] = [
    (b'Y', 18..22),
    (b'm', 23..25),
    (b'd', 26..28),
    (b'H', 29..31),
    (b'M', 32..34),
    (b'S', SECOND),
    (b'F', 18..28),
    (b'T', 29..37),
    (b's', 8..18),
    (b'z', 0..5),
    (b'Z', 5..8),
];
const SECOND: Range<usize> = 35..37;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(format: &str, value: &str, expected: Option<&str>) {
        let mut text = Vec::new();
        let found = append_time(&mut text, format, value.as_bytes());
        let found = found.map(|()| String::from_utf8(text).unwrap());
        assert_eq!(found.as_deref(), expected, "{format} of {value}");
    }

    #[test]
    fn a_time_is_formatted() {
        let example = std::str::from_utf8(EXAMPLE).unwrap();
        for (format, expected) in [
            ("%Y-%m-%dT%H:%M:%E3SZ", "2026-11-27T20:07:43.566Z"),
            ("%F %T %z %Z", "2026-11-27 20:07:43 +0000 UTC"),
            ("%s.%3f", "1795810063.566"),
            ("%S.%f é", "43.566134000 é"),
            ("%E9S %1f", "43.566134000 5"),
            ("", ""),
        ] {
            check(format, example, Some(expected));
        }
        check("%E3S", "+0000UTC17958100632026-11-27T20:07:43Z", Some("43.000"));
    }

    #[test]
    fn other_formats_are_refused() {
        let example = std::str::from_utf8(EXAMPLE).unwrap();
        for format in [
            "%", "%a", "%j", "%%", "%0f", "%3S", "%3", "%E", "%Ef", "%ES", "%E3f", "%E3", "%E0S",
            "%E*S", "%Ez", "%é",
        ] {
            check(format, example, None);
        }
        for value in ["", "+0000UTC1795810063", "+0000UTC17958100632026-11-27T20:07"] {
            check("%Y%T", value, None);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(format in "[%YmE0-9fSé]{0,8}", value in "[0-9 :TZ.é-]{0,50}") {
            let _ = append_time(&mut Vec::new(), &format, value.as_bytes());
        }
    }
}
