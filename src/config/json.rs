//! JSON (RFC 8259) as a tree that knows whether an object repeats a key, and how its numbers were
//! written.
//!
//! <https://www.rfc-editor.org/rfc/rfc8259>
//!
//! ```text
//! number = [ "-" ] ( "0" / %x31-39 *DIGIT ) [ "." 1*DIGIT ] [ ( "e" / "E" ) [ "+" / "-" ] 1*DIGIT ]
//! ```
//!
//! serde_json, which knows neither, takes 25 KiB of the module, most of it for numbers.

use super::error::{ConfigError, quoted};

/// A JSON value. The keys of an object are in the order of the text, each once.
#[derive(Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    /// A number as it is written.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses one JSON value. Empty input and white space alone are the empty object.
    pub fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        let Ok(text) = std::str::from_utf8(text) else {
            return Err(ConfigError::new("one JSON object", "bytes that are not UTF-8"));
        };
        let mut parser = Parser { rest: text.as_bytes(), twice: None };
        parser.skip_space();
        if parser.rest.is_empty() {
            return Ok(Self::Object(Vec::new()));
        }
        match parser.value(0).and_then(|json| parser.expect_end().map(|()| json)) {
            Ok(json) => Ok(json),
            Err(expected) => Err(parser.error(text, expected)),
        }
    }

    /// Returns the error that an array or an object was expected here. A string is not shown: in place
    /// of the headers of the exporter, or of one's source, it holds a secret.
    pub fn unlike_shape(&self, expected: &str) -> ConfigError {
        match self {
            Self::Text(_) => ConfigError::new(expected, "a string"),
            other => other.unlike(expected),
        }
    }

    /// Returns the error that something else was expected here.
    pub fn unlike(&self, expected: &str) -> ConfigError {
        let found = match self {
            Self::Null => "null",
            Self::Bool(true) => "true",
            Self::Bool(false) => "false",
            Self::Number(number) => number,
            Self::Text(text) => &quoted(text),
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        };
        ConfigError::new(expected, found)
    }
}

/// What should have stood where a text is no JSON.
type Expected = &'static str;

struct Parser<'t> {
    rest: &'t [u8],
    /// The key that an object has twice.
    twice: Option<String>,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Result<Json, Expected> {
        self.skip_space();
        match self.rest {
            [b'{' | b'[', ..] if depth == MAX_DEPTH => {
                Err("at most 127 arrays and objects in each other")
            }
            [b'{', ..] => self.object(depth),
            [b'[', ..] => self.array(depth),
            [b'"', ..] => self.text().map(Json::Text),
            [b'-' | b'0'..=b'9', ..] => self.number(),
            [b'n', ..] => self.word(b"null", Json::Null),
            [b't', ..] => self.word(b"true", Json::Bool(true)),
            _ => self.word(b"false", Json::Bool(false)),
        }
    }

    fn word(&mut self, word: &[u8], json: Json) -> Result<Json, Expected> {
        self.rest = self.rest.strip_prefix(word).ok_or("a JSON value")?;
        Ok(json)
    }

    fn array(&mut self, depth: usize) -> Result<Json, Expected> {
        self.next();
        let mut values = Vec::new();
        if !self.takes(b']') {
            loop {
                values.push(self.value(depth + 1)?);
                if self.takes(b']') {
                    break;
                }
                if !self.takes(b',') {
                    return Err("a comma or ]");
                }
            }
        }
        Ok(Json::Array(values))
    }

    fn object(&mut self, depth: usize) -> Result<Json, Expected> {
        self.next();
        let mut entries: Vec<(String, Json)> = Vec::new();
        if !self.takes(b'}') {
            loop {
                self.skip_space();
                let key = self.text()?;
                for (known, _) in &entries {
                    if *known == key {
                        self.twice = Some(key);
                        return Err("one JSON object");
                    }
                }
                if !self.takes(b':') {
                    return Err("a colon");
                }
                entries.push((key, self.value(depth + 1)?));
                if self.takes(b'}') {
                    break;
                }
                if !self.takes(b',') {
                    return Err("a comma or }");
                }
            }
        }
        Ok(Json::Object(entries))
    }

    fn text(&mut self) -> Result<String, Expected> {
        if !self.eats(b'"') {
            return Err("a string");
        }
        let mut text = Vec::new();
        loop {
            match self.rest.first() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.next();
                    let char = self.escaped()?;
                    text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(byte) if *byte >= b' ' => {
                    text.push(*byte);
                    self.next();
                }
                _ => return Err("the end of the string, or a character that may stand in it"),
            }
        }
        self.next();
        // Whole characters were taken from a text that is UTF-8.
        String::from_utf8(text).map_err(|_| "a string")
    }

    fn escaped(&mut self) -> Result<char, Expected> {
        let escape = self.rest.first().copied().unwrap_or_default();
        let char = match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.code_point(),
            _ => return Err(ESCAPE),
        };
        self.next();
        Ok(char)
    }

    /// Reads `uXXXX`, or two of them that are a surrogate pair.
    fn code_point(&mut self) -> Result<char, Expected> {
        let unit = self.code_unit()?;
        let code = match unit {
            0xd800..0xdc00 => {
                if !self.eats(b'\\') {
                    return Err(ESCAPE);
                }
                match self.code_unit()? {
                    low @ 0xdc00..0xe000 => 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00),
                    _ => return Err(ESCAPE),
                }
            }
            other => other,
        };
        char::from_u32(code).ok_or(ESCAPE)
    }

    fn code_unit(&mut self) -> Result<u32, Expected> {
        if !self.eats(b'u') {
            return Err(ESCAPE);
        }
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.rest.first().and_then(|byte| char::from(*byte).to_digit(16));
            unit = unit << 4 | digit.ok_or(ESCAPE)?;
            self.next();
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<Json, Expected> {
        let from = self.rest;
        self.eats(b'-');
        if !self.eats(b'0') {
            self.digits()?;
        }
        if self.eats(b'.') {
            self.digits()?;
        }
        if self.eats(b'e') || self.eats(b'E') {
            if !self.eats(b'-') {
                self.eats(b'+');
            }
            self.digits()?;
        }
        let written = from.get(..from.len() - self.rest.len()).unwrap_or_default();
        Ok(Json::Number(String::from_utf8_lossy(written).into_owned()))
    }

    fn digits(&mut self) -> Result<(), Expected> {
        let before = self.rest.len();
        while self.rest.first().is_some_and(u8::is_ascii_digit) {
            self.next();
        }
        if self.rest.len() == before { Err("a digit") } else { Ok(()) }
    }

    /// Takes this byte where it comes next, and the white space before it.
    fn takes(&mut self, byte: u8) -> bool {
        self.skip_space();
        self.eats(byte)
    }

    /// Takes this byte where it comes next.
    #[inline(never)]
    fn eats(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.next();
        }
        found
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.rest.first() {
            self.next();
        }
    }

    fn next(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    fn expect_end(&mut self) -> Result<(), Expected> {
        self.skip_space();
        if self.rest.is_empty() { Ok(()) } else { Err("the end of the configuration") }
    }

    /// Says what was found at this place of the text.
    fn error(&self, text: &str, expected: Expected) -> ConfigError {
        // Never in the middle of a character: no parser stops after a part of one.
        let place = text.len() - self.rest.len();
        let (before, after) = text.split_at_checked(place).unwrap_or_default();
        let mut found = match (&self.twice, after.chars().next()) {
            (Some(key), _) => ["the key ", &quoted(key), " twice"].concat(),
            (None, Some(char)) => quoted(char.encode_utf8(&mut [0; 4])),
            (None, None) => "the end".to_owned(),
        };
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        for part in [" at line ", &line.to_string(), " column ", &column.to_string()] {
            found.push_str(part);
        }
        ConfigError::new(expected, found)
    }
}

/// Returns the number that a JSON number stands for, and none for one that is too large.
///
/// It is the nearest double where the digits without their point are at most 2^53 and the power of
/// ten at most 22, since then one operation rounds; else it may be a few units in the last place
/// away. Exactness beyond that is what makes the standard library's parser large.
pub fn number(written: &str) -> Option<f64> {
    let (mut digits, mut scale, mut exponent) = (0u64, 0i32, 0i32);
    let (mut after_point, mut after_e, mut negative_exponent) = (false, false, false);
    for byte in written.bytes() {
        match byte {
            b'.' => after_point = true,
            b'e' | b'E' => after_e = true,
            b'-' if after_e => negative_exponent = true,
            b'0'..=b'9' if after_e => {
                exponent = exponent.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
            }
            b'0'..=b'9' if digits < MAX_DIGITS => {
                digits = digits * 10 + u64::from(byte - b'0');
                scale -= i32::from(after_point);
            }
            b'0'..=b'9' => scale += i32::from(!after_point),
            _ => {}
        }
    }
    let signed = if negative_exponent { -exponent } else { exponent };
    let scale = signed.saturating_add(scale);
    let mut number = digits as f64;
    let mut left = scale.unsigned_abs().min(MAX_SCALE);
    while left > 0 && number != 0.0 {
        let step = left.min(EXACT_POWER);
        let mut power = 1.0;
        for _ in 0..step {
            power *= 10.0;
        }
        number = if scale < 0 { number / power } else { number * power };
        left -= step;
    }
    let number = if written.starts_with('-') { -number } else { number };
    number.is_finite().then_some(number)
}

const ESCAPE: Expected = "an escape sequence of JSON";
/// As deep as a configuration may be, which is as deep as serde_json goes; the parser calls itself
/// for each array and object, and the module's stack ends.
const MAX_DEPTH: usize = 127;
/// A further digit still fits into 64 bits.
const MAX_DIGITS: u64 = (u64::MAX - 9) / 10;
/// More than any number has, with its digits, between zero and infinity.
const MAX_SCALE: u32 = 700;
/// The largest power of ten that a double holds exactly.
const EXACT_POWER: u32 = 22;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What serde_json makes of the same text.
    fn reference(json: &Json) -> serde_json::Value {
        match json {
            Json::Null => serde_json::Value::Null,
            Json::Bool(value) => (*value).into(),
            Json::Number(written) => serde_json::from_str(written).unwrap(),
            Json::Text(text) => text.as_str().into(),
            Json::Array(values) => values.iter().map(reference).collect(),
            Json::Object(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.clone(), reference(value)));
                serde_json::Value::Object(entries.collect())
            }
        }
    }

    #[track_caller]
    fn check_text(text: &str, expected: &str) {
        assert_eq!(Json::parse(text.as_bytes()), Ok(Json::Text(expected.to_owned())), "{text}");
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let error = Json::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }

    /// Holds the parser to serde_json: both accept the same text, and read the same from it.
    #[track_caller]
    fn check_agrees(text: &[u8]) {
        let theirs = serde_json::from_slice::<serde_json::Value>(text);
        let shown = String::from_utf8_lossy(text);
        match (Json::parse(text), theirs) {
            (Ok(ours), Ok(theirs)) => assert_eq!(reference(&ours), theirs, "{shown}"),
            (Err(_), Err(_)) => {}
            // It takes the last value of a key.
            (Err(ours), Ok(_)) => {
                assert!(ours.to_string().contains(" twice at line "), "{ours}: {shown}");
            }
            // It knows no empty configuration, and refuses numbers that are too large, which are
            // refused here where they are read.
            (Ok(_), Err(theirs)) => {
                let huge = theirs.to_string().contains("number out of range");
                assert!(huge || shown.trim().is_empty(), "{theirs}: {shown}");
            }
        }
    }

    #[test]
    fn strings_have_their_escapes_resolved() {
        check_text(r#""""#, "");
        check_text(r#" "a\"\\\/\b\f\n\r\tz" "#, "a\"\\/\u{8}\u{c}\n\r\tz");
        check_text(r#""\u0041\u00e9\uD83D\ude00é😀""#, "Aé😀é😀");
        check_text(r#""\u0000""#, "\0");
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        let deep = "[".repeat(100_000);
        for (text, expected) in [
            ("{", "expected a string, but found the end at line 1 column 2"),
            ("\n {a", "expected a string, but found \"a\" at line 2 column 3"),
            ("{\"a\"}", "expected a colon, but found \"}\" at line 1 column 5"),
            ("{\"a\": 1 \"b\"}", "expected a comma or }, but found \"\\\"\" at line 1 column 9"),
            ("{\"a\": 1,}", "expected a string, but found \"}\" at line 1 column 9"),
            ("{\"a\": }", "expected a JSON value, but found \"}\" at line 1 column 7"),
            ("[1 2]", "expected a comma or ], but found \"2\" at line 1 column 4"),
            ("[1,]", "expected a JSON value, but found \"]\" at line 1 column 4"),
            ("[", "expected a JSON value, but found the end at line 1 column 2"),
            ("{} é", "expected the end of the configuration, but found \"é\" at line 1 column 4"),
            ("\u{10}", "expected a JSON value, but found \"\\u{10}\" at line 1 column 1"),
            ("nul", "expected a JSON value, but found \"n\" at line 1 column 1"),
            ("-", "expected a digit, but found the end at line 1 column 2"),
            ("01", "expected the end of the configuration, but found \"1\" at line 1 column 2"),
            ("1.", "expected a digit, but found the end at line 1 column 3"),
            (".5", "expected a JSON value, but found \".\" at line 1 column 1"),
            ("+1", "expected a JSON value, but found \"+\" at line 1 column 1"),
            ("1e", "expected a digit, but found the end at line 1 column 3"),
            ("\"\\x\"", "expected an escape sequence of JSON, but found \"x\" at line 1 column 3"),
            (
                "\"\\u12g4\"",
                "expected an escape sequence of JSON, but found \"g\" at line 1 column 6",
            ),
            (
                "\"\\ud800\"",
                "expected an escape sequence of JSON, but found \"\\\"\" at line 1 column 8",
            ),
            (
                "\"\\udc00\"",
                "expected an escape sequence of JSON, but found \"\\\"\" at line 1 column 8",
            ),
            (
                "\"a\nb\"",
                "expected the end of the string, or a character that may stand in it, but found \
                 \"\\n\" at line 1 column 3",
            ),
            (
                "\"a",
                "expected the end of the string, or a character that may stand in it, but found \
                 the end at line 1 column 3",
            ),
            (
                "\"\\ud800\\u0041\"",
                "expected an escape sequence of JSON, but found \"\\\"\" at line 1 column 14",
            ),
            ("\u{feff}{}", "expected a JSON value, but found \"\\u{feff}\" at line 1 column 1"),
            (
                &deep,
                "expected at most 127 arrays and objects in each other, but found \"[\" at line 1 \
                 column 128",
            ),
        ] {
            check_refused(text, expected);
        }
        let error = Json::parse(b"\"\xff\"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected one JSON object, but found bytes that are not UTF-8"
        );
    }

    #[test]
    fn every_byte_and_surrogate_is_read_as_serde_json_reads_it() {
        for byte in 0..=u8::MAX {
            for (before, after) in [("", ""), ("1", ""), ("[1", "2]"), ("\"", "\""), ("\"\\", "\"")]
            {
                check_agrees(&[before.as_bytes(), &[byte], after.as_bytes()].concat());
            }
        }
        let units = ["0000", "D7ff", "d800", "DBFF", "dc00", "dfff", "e000", "ffff"];
        for (first, second) in units.iter().flat_map(|first| units.map(|second| (first, second))) {
            check_agrees(format!("\"\\u{first}\"").as_bytes());
            check_agrees(format!("\"\\u{first}\\u{second}\"").as_bytes());
        }
    }

    #[test]
    fn values_nest_as_deep_as_serde_json_goes() {
        let mut accepted = Vec::new();
        for depth in [1, 126, 127, 128, 129] {
            for (open, middle, close) in [("[", "", "]"), ("[", "1", "]"), ("{\"a\":", "1", "}")] {
                let text = [&*open.repeat(depth), middle, &*close.repeat(depth)].concat();
                check_agrees(text.as_bytes());
                accepted.push(Json::parse(text.as_bytes()).is_ok());
            }
        }
        assert_eq!(accepted, [[true; 9].as_slice(), &[false; 6]].concat());
    }

    #[test]
    fn numbers_are_what_their_digits_say() {
        for written in [
            "0",
            "-0",
            "1",
            "-1",
            "0.1",
            "0.05",
            "0.25",
            "1.0",
            "1e3",
            "1E-3",
            "2.5e+2",
            "1e22",
            "1e23",
            "123456789.125",
            "0.000001",
            "1e-400",
            "18446744073709551615",
            "0e999999999999",
            "1024",
            "0.3333333333333333",
        ] {
            assert_eq!(number(written), written.parse().ok(), "{written}");
        }
        assert_eq!(number("1e400"), None);
        assert_eq!(number("1e99999999999"), None);
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    /// A byte that means something to a parser of JSON, or any.
    fn any_byte() -> impl Strategy<Value = u8> {
        let known = br#"{}[]:,"\\/u0123456789abcdefDd.eE+-tnrls "#;
        prop_oneof![4 => prop::sample::select(known.as_slice()), 1 => any::<u8>()]
    }

    proptest! {
        #[test]
        fn values_are_read_as_serde_json_reads_them(value in any_json()) {
            for text in [value.to_string(), format!("{value:#}")] {
                prop_assert!(Json::parse(text.as_bytes()).is_ok());
                check_agrees(text.as_bytes());
            }
        }

        #[test]
        fn what_serde_json_refuses_is_refused(
            value in any_json(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any_byte(), 0..3), 1..4),
        ) {
            let mut text = value.to_string().into_bytes();
            for (place, byte, edit) in edits {
                let place = place.index(text.len() + 1);
                let replaced = place..text.len().min(place + usize::from(edit > 0));
                text.splice(replaced, (edit < 2).then_some(byte));
            }
            check_agrees(&text);
        }

        #[test]
        fn short_texts_are_read_as_serde_json_reads_them(
            text in prop::collection::vec(any_byte(), 0..12),
        ) {
            check_agrees(&text);
        }

        #[test]
        fn numbers_of_53_bits_are_exact(
            digits in 0u64..=1 << 53,
            power in -22..=22,
            places in 1u32..16,
        ) {
            let (whole, rest) = (digits / 10u64.pow(places), digits % 10u64.pow(places));
            let places = places as usize;
            for written in [format!("{digits}e{power}"), format!("-{whole}.{rest:0places$}")] {
                prop_assert_eq!(number(&written), written.parse().ok());
            }
        }

        #[test]
        fn other_numbers_are_near(exact in -1e308..1e308f64, scale in 0i32..640) {
            let exact = exact / 10f64.powi(scale / 2) / 10f64.powi(scale - scale / 2);
            for written in [format!("{exact}"), format!("{exact:e}")] {
                let read = number(&written).unwrap();
                prop_assert!(read.to_bits().abs_diff(exact.to_bits()) <= 20, "{}: {}", written, read);
            }
        }
    }
}
