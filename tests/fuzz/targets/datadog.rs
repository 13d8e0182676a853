#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan_fuzz::round_trip;

const HEADERS: &[&str] =
    &["x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-sampling-priority", "x-datadog-tags"];

fuzz_target!(|input: &[u8]| round_trip("datadog", HEADERS, input));
