#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan::fuzzing::Edits;
use sidespan::fuzzing::Head;
use sidespan::fuzzing::baggage::{BAGGAGE, Limits, value};
use sidespan_fuzz::{applied, lines};

const LIMITS: Limits = Limits { max_members: 3, max_bytes: 40 };

fuzz_target!(|input: &[u8]| {
    let received = lines(&[BAGGAGE], input);
    let head = Head::new(received.clone());
    let mut edits = Edits::of(&head);
    LIMITS.apply(&head, &mut edits);
    let sent = applied(&received, &edits.finish());
    let sent = Head::new(sent.iter().map(|(name, value)| (&**name, &**value)).collect());
    let mut edits = Edits::of(&sent);
    assert_eq!(LIMITS.apply(&sent, &mut edits), 0);
    assert_eq!(edits.finish(), []);
    // The last of several members with one key may be dropped; then the upstream sees an earlier one.
    assert!(value(&sent, "a").is_none() || value(&head, "a").is_some());
});
