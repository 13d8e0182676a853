#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan::fuzzing::Head;
use sidespan::fuzzing::tracestate::{MAX_BYTES, TRACESTATE, extract};
use sidespan_fuzz::lines;

fuzz_target!(|input: &[u8]| {
    if let Ok(state) = extract(&Head::new(lines(&[TRACESTATE], input))) {
        assert!(state.list.len() <= MAX_BYTES);
        let sent = Head::new(vec![(TRACESTATE.as_bytes(), &*state.list)]);
        let again = extract(&sent).unwrap();
        assert_eq!((again.list, again.dropped), (state.list.clone(), 0));
    }
});
