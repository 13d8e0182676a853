#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan::url::{MAX_URL_PART_BYTES, Url, host_and_port, redacted_query};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (authority, target) = (parts.next().unwrap(), parts.next().unwrap_or_default());
    let (host, _) = host_and_port(authority);
    assert!(host.len() <= authority.len());
    let redacted = redacted_query(target);
    assert_eq!(redacted_query(&redacted), redacted);
    let url = Url::new(b"https", authority, target);
    assert!(url.full().starts_with(b"https://"));
    assert!(url.full().len() <= "https://?".len() + 2 * MAX_URL_PART_BYTES);
    assert!(url.full().windows(url.path().len().max(1)).any(|part| part.starts_with(url.path())));
});
