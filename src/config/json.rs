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
#[derive(Debug, Clone, PartialEq)]
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
            _ if depth > MAX_DEPTH => Err("at most 100 arrays and objects in each other"),
            [b'{', ..] => self.object(depth),
            [b'[', ..] => self.array(depth),
            [b'"', ..] => self.text().map(Json::Text),
            [b'-' | b'0'..=b'9', ..] => self.number(),
            _ => {
                for (word, json) in
                    [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))]
                {
                    if let Some(rest) = self.rest.strip_prefix(word.as_bytes()) {
                        self.rest = rest;
                        return Ok(json);
                    }
                }
                Err("a JSON value")
            }
        }
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
        if self.rest.first() != Some(&b'"') {
            return Err("a string");
        }
        self.next();
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
                if self.rest.first() != Some(&b'\\') {
                    return Err(ESCAPE);
                }
                self.next();
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
        if self.rest.first() != Some(&b'u') {
            return Err(ESCAPE);
        }
        self.next();
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
        if self.rest.first() == Some(&b'-') {
            self.next();
        }
        if self.rest.first() == Some(&b'0') {
            self.next();
        } else {
            self.digits()?;
        }
        if self.rest.first() == Some(&b'.') {
            self.next();
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.rest.first() {
            self.next();
            if let Some(b'+' | b'-') = self.rest.first() {
                self.next();
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
        let mut place = text.len() - self.rest.len();
        // In the middle of a character only where its first byte was taken.
        while !text.is_char_boundary(place) {
            place += 1;
        }
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

/// Returns the number that a JSON number stands for. It is exact where no more than 19 digits and
/// a power of ten up to 22 make it, and else as near as a few more multiplications leave it.
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
/// As deep as a configuration may be; the parser calls itself for each.
const MAX_DEPTH: usize = 100;
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

    #[test]
    fn strings_have_their_escapes_resolved() {
        check_text(r#""""#, "");
        check_text(r#" "a\"\\\/\b\f\n\r\tz" "#, "a\"\\/\u{8}\u{c}\n\r\tz");
        check_text(r#""\u0041\u00e9\uD83D\ude00é😀""#, "Aé😀é😀");
        check_text(r#""\u0000""#, "\0");
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        let long = "[".repeat(102);
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
                &long,
                "expected at most 100 arrays and objects in each other, but found \"[\" at line 1 \
                 column 102",
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

    /// Any JSON value, as text.
    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|value| value.to_string()),
            any::<i64>().prop_map(|value| value.to_string()),
            (-1e6..1e6).prop_map(|value: f64| serde_json::Value::from(value).to_string()),
            any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5)
                    .prop_map(|values| format!("[ {} ]", values.join(" ,\n"))),
                prop::collection::btree_map(any::<String>(), inner, 0..5).prop_map(|entries| {
                    let entry = |(key, value)| format!("{}: {value}", serde_json::Value::from(key));
                    format!("{{{}}}", entries.into_iter().map(entry).collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_are_read_as_serde_json_reads_them(text in any_json()) {
            let json = Json::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(reference(&json), serde_json::from_str::<serde_json::Value>(&text).unwrap());
        }

        #[test]
        fn what_serde_json_refuses_is_refused(text in r#"[\[\]{}:,"\\u0-9a-f.eE+ntrls -]{1,12}"#) {
            let ours = Json::parse(text.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            let repeats = ours.as_ref().is_err_and(|error| error.to_string().contains("twice"));
            let empty = text.trim_ascii().is_empty();
            // It refuses numbers that are too large, which are refused here where they are read.
            let huge = theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            prop_assert!(ours.is_ok() == theirs.is_ok() || repeats || empty || huge, "{:?}", ours);
        }

        #[test]
        fn numbers_are_read_as_serde_json_reads_them(digits in 0u64..1 << 53, power in 0u32..22) {
            let written = format!("{digits}e-{power}");
            prop_assert_eq!(number(&written), written.parse().ok());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Json::parse(&bytes);
        }
    }
}
