#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan::fuzzing::Cidr;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (range, address) = (parts.next().unwrap(), parts.next().unwrap_or_default());
    let Some(range) = std::str::from_utf8(range).ok().and_then(Cidr::parse) else {
        return;
    };
    if range.contains(address) {
        let all = ["0.0.0.0/0", "::/0"].map(|all| Cidr::parse(all).unwrap());
        assert!(all.iter().any(|all| all.contains(address)));
    }
});
