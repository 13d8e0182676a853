#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan_fuzz::round_trip;

const HEADERS: &[&str] = &["b3"];

fuzz_target!(|input: &[u8]| round_trip("b3", HEADERS, input));
