#![no_main]

//! Sources of tags, their masks and format strings, from any bytes.

use libfuzzer_sys::fuzz_target;
use sidespan::fuzzing::Head;
use sidespan::fuzzing::format;
use sidespan::fuzzing::{Encoding, Property};
use sidespan::fuzzing::{Lookup, Source};
use sidespan::fuzzing::{Redaction, Transformation};
use sidespan_fuzz::lines;

const HEADERS: &[&str] = &[":path", "cookie", "baggage"];

fuzz_target!(|input: &[u8]| {
    let request = Head::new(lines(HEADERS, input));
    for kind in [Source::QueryParameter, Source::Cookie, Source::Baggage] {
        if let Some(found) = kind("a".to_owned()).find(Lookup::AtRequest(&request)) {
            let masked = Transformation { redact: Some(Redaction::Mask), max_length: Some(9) };
            assert!(masked.apply(&found.into_text()).0.chars().count() <= 9);
        }
    }
    for path in ["metadata.a", "response.code", "connection.mtls"] {
        let property = Property::new(0, Encoding::of(&path.replace('.', "\0"), None), None);
        let _ = property.find(&[input]).map(|found| found.into_text().len());
    }
    let mut rest = std::str::from_utf8(input).unwrap_or_default();
    while let Some((_, after)) = (!rest.is_empty()).then(|| format::split_part(rest)).flatten() {
        assert!(after.len() < rest.len());
        rest = after;
    }
});
