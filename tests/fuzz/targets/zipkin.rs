#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sidespan::fuzzing::append_span;
use sidespan::fuzzing::zipkin::spans;

fuzz_target!(|input: &[u8]| {
    let (resource, encoded_spans) = input.split_at(input.len() / 2);
    check(&spans(resource, encoded_spans));
    let mut one = Vec::new();
    append_span(&mut one, input);
    assert_eq!(check(&spans(input, &one)).unwrap_or(1), 1);
});

/// Returns the number of spans in a list; none if the output is not UTF-8, because the input is not.
fn check(json: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(json).ok()?;
    let spans: Vec<Value> = serde_json::from_str(text).unwrap();
    assert!(spans.iter().all(|span| span["duration"].as_u64() > Some(0)));
    Some(spans.len())
}
