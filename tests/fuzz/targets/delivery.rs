#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan::export::delivery::{Answer, Judgement, Verdict};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.split(|byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let answer = Answer {
        status: part(),
        retry_after: part(),
        grpc_status: part(),
        grpc_message: part(),
        grpc_details: part(),
        body: part(),
    };
    for judge in [Judgement::of_otlp_http, Judgement::of_http, Judgement::of_otlp_grpc] {
        let Judgement { verdict, said } = judge(&answer, 1_767_225_600);
        assert!(!said.contains('\n'));
        // What was not taken is explained.
        assert!(matches!(verdict, Verdict::Accepted { rejected: 0 }) || !said.is_empty());
    }
});
