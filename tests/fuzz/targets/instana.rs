#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan_fuzz::round_trip;

const HEADERS: &[&str] = &["x-instana-t", "x-instana-s", "x-instana-l"];

fuzz_target!(|input: &[u8]| round_trip("instana", HEADERS, input));
