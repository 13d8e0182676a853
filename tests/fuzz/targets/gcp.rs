#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan_fuzz::round_trip;

const HEADERS: &[&str] = &["x-cloud-trace-context"];

fuzz_target!(|input: &[u8]| round_trip("gcp", HEADERS, input));
