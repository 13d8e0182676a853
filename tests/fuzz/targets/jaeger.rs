#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan_fuzz::round_trip;

const HEADERS: &[&str] = &["uber-trace-id"];

fuzz_target!(|input: &[u8]| round_trip("jaeger", HEADERS, input));
