#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan_fuzz::round_trip;

const HEADERS: &[&str] = &["x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"];

fuzz_target!(|input: &[u8]| round_trip("b3multi", HEADERS, input));
