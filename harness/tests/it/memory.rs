//! The filter's memory does not grow: a request's memory is free again at its end.

use sidespan_harness::host::{CallResponse, Headers, Settings, Vm};

use crate::module;
use crate::traffic::{CONFIGURATION, SpanCounts, Traffic};

const REQUESTS: usize = 1_000_000;
const WARM_UP: usize = 100_000;
const REQUESTS_PER_TICK: usize = 400;

#[test]
fn memory_does_not_grow_over_a_million_requests() {
    let mut vm = module::load()
        .start(&Settings { configuration: CONFIGURATION.into(), ..Settings::default() })
        .expect("the module is instantiated")
        .expect("the configuration is accepted");
    let mut traffic = Traffic::new();
    let mut warm = 0;
    let mut exported = 0;
    for number in 0..REQUESTS {
        if number == WARM_UP {
            warm = vm.memory_size();
        }
        traffic.send(&mut vm).expect("no trap");
        if number.is_multiple_of(REQUESTS_PER_TICK) {
            exported += tick(&mut vm, number);
            let counts = SpanCounts::read(&vm);
            assert!(counts.add_up(), "{counts:?} after {number} requests");
        }
    }
    assert_eq!(vm.memory_size(), warm, "bytes after {REQUESTS} requests, and after {WARM_UP}");
    // The filter recorded and exported spans all the time.
    let recorded = SpanCounts::read(&vm).recorded;
    assert!(recorded >= REQUESTS as i64 / 4, "{recorded} spans recorded");
    assert!(exported > REQUESTS / 2_000, "{exported} calls to the collector");
}

/// Fires a tick and responds to its calls, every tenth time with a failure. Returns the number of calls.
fn tick(vm: &mut Vm, number: usize) -> usize {
    vm.advance(1_000_000_000);
    vm.tick().expect("no trap");
    let status = if number / REQUESTS_PER_TICK % 10 == 9 { "503" } else { "200" };
    let mut count = 0;
    loop {
        let calls = vm.take_calls();
        if calls.is_empty() {
            break;
        }
        count += calls.len();
        for call in &calls {
            let headers = Headers::from_iter([(":status", status)]);
            vm.respond(call, CallResponse { headers, ..CallResponse::default() }).expect("no trap");
        }
    }
    vm.take_log();
    count
}
