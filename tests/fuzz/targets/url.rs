#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan::fuzzing::SecretKeys;
use sidespan::fuzzing::path;
use sidespan::fuzzing::url::{MAX_URL_PART_BYTES, Url, host_and_port};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (authority, target) = (parts.next().unwrap(), parts.next().unwrap_or_default());
    let (host, _) = host_and_port(authority);
    assert!(host.len() <= authority.len());
    let secrets = SecretKeys::default();
    let redacted = secrets.redacted(target);
    assert_eq!(secrets.redacted(&redacted), redacted);
    if let Some(normal) = path::normalized(target)
        && normal.starts_with(b"/")
    {
        assert!(!normal.windows(2).any(|pair| pair == b"//"));
        assert!(!normal.split(|byte| *byte == b'/').any(|segment| segment == b".."));
    }
    let url = Url::new(b"https", authority, target, &secrets);
    assert!(url.full().starts_with(b"https://"));
    assert!(url.full().len() <= "https://?".len() + 2 * MAX_URL_PART_BYTES);
    assert!(url.full().windows(url.path().len().max(1)).any(|part| part.starts_with(url.path())));
});
