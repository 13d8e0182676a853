#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan_fuzz::round_trip;

const HEADERS: &[&str] = &["grpc-trace-bin"];

fuzz_target!(|input: &[u8]| round_trip("grpc-trace-bin", HEADERS, input));
