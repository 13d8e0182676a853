#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan::fuzzing::gzip;

fuzz_target!(|input: &[u8]| {
    let (plain, zlib) = input.split_at(input.len() / 3);
    let mut bytes = plain.to_vec();
    let put = gzip::put(&mut bytes, zlib, plain);
    assert!(bytes.starts_with(plain));
    assert_eq!(bytes.len(), plain.len() + if put { zlib.len() - 6 + 18 } else { 0 });
});
