#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan_fuzz::round_trip;

const HEADERS: &[&str] = &["ot-tracer-traceid", "ot-tracer-spanid", "ot-tracer-sampled"];

fuzz_target!(|input: &[u8]| round_trip("ottrace", HEADERS, input));
