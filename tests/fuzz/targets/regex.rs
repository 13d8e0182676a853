#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan::fuzzing::Regex;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (pattern, value) = (parts.next().unwrap(), parts.next().unwrap_or_default());
    let Ok(pattern) = str::from_utf8(pattern) else { return };
    if let Ok(regex) = Regex::new(pattern, false) {
        let any_case = Regex::new(pattern, true);
        // What matches as it is matches in any case, but for what a class leaves out.
        if regex.is_match(value) && !pattern.contains(['^', 'S', 'W', 'D', 'B']) {
            assert!(any_case.is_ok_and(|any_case| any_case.is_match(value)));
        }
    }
});
