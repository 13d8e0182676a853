#![no_main]

//! Any bytes as a configuration: an error says what was expected.

use libfuzzer_sys::fuzz_target;
use sidespan::fuzzing::Config;

fuzz_target!(|input: &[u8]| {
    if let Err(error) = Config::parse(input, &|_| None) {
        assert!(error.to_string().contains("expected "));
    }
});
