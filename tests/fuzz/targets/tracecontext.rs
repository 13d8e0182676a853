#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan_fuzz::round_trip;

const HEADERS: &[&str] = &["traceparent", "tracestate"];

fuzz_target!(|input: &[u8]| round_trip("tracecontext", HEADERS, input));
