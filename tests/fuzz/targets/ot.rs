#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan::fuzzing::Head;
use sidespan::fuzzing::ot::{RANDOMNESS, ThresholdUpdate, randomness, rewritten, threshold};
use sidespan::fuzzing::parse_trace_id;
use sidespan::fuzzing::tracestate::{MAX_BYTES, TRACESTATE, extract};
use sidespan_fuzz::lines;

fuzz_target!(|input: &[u8]| {
    let stated = threshold(input);
    assert!(stated.is_none_or(|threshold| threshold < RANDOMNESS));
    // A valid list holds no longer value, and a longer one leaves no room for a threshold.
    if input.len() <= 256 {
        let again = rewritten(input, stated);
        assert_eq!((threshold(&again), randomness(&again)), (stated, randomness(input)));
        assert_eq!(rewritten(&again, stated), again);
    }

    let head = Head::new(lines(&[TRACESTATE], input));
    let id = parse_trace_id(b"4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
    for update in [ThresholdUpdate::Keep, ThresholdUpdate::Erase, ThresholdUpdate::Set(1 << 55)] {
        if let Ok(mut state) = extract(&head) {
            state.update_threshold(update, true, id, None);
            assert!(state.list.len() <= MAX_BYTES);
            let sent = Head::new(vec![(TRACESTATE.as_bytes(), &*state.list)]);
            let mut again = extract(&sent).unwrap();
            again.update_threshold(update, true, id, None);
            assert_eq!(again.list, state.list);
        }
    }
});
