#![no_main]

use libfuzzer_sys::fuzz_target;
use sidespan::fuzzing::{Delivery, Response, Verdict};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.split(|byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let response = Response {
        status: part(),
        retry_after: part(),
        grpc_status: part(),
        grpc_message: part(),
        grpc_details: part(),
        body: part(),
    };
    for read in [Delivery::from_otlp_http, Delivery::from_http, Delivery::from_otlp_grpc] {
        let Delivery { verdict, message } = read(&response, 1_767_225_600);
        assert!(!message.contains('\n'));
        // A batch that was not accepted as a whole has a message.
        assert!(matches!(verdict, Verdict::Accepted { rejected: 0 }) || !message.is_empty());
    }
});
