//! The filter's memory does not grow: what a request took is free again when it is over.

use sidespan_harness::host::{CallAnswer, Headers, Settings, Vm};

use crate::module;
use crate::traffic::{Books, CONFIGURATION, Traffic};

const REQUESTS: usize = 1_000_000;
const WARM_UP: usize = 100_000;
const REQUESTS_PER_TICK: usize = 400;

#[test]
fn memory_does_not_grow_over_a_million_requests() {
    let mut vm = module::load()
        .start(&Settings { configuration: CONFIGURATION.into(), ..Settings::default() })
        .expect("the module is instantiated")
        .expect("the configuration is taken");
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
            assert!(Books::of(&vm).balance(), "{:?} after {number} requests", Books::of(&vm));
        }
    }
    assert_eq!(vm.memory_size(), warm, "bytes after {REQUESTS} requests, and after {WARM_UP}");
    // The test says something only while the filter does its work.
    let recorded = Books::of(&vm).recorded;
    assert!(recorded >= REQUESTS as i64 / 4, "{recorded} spans recorded");
    assert!(exported > REQUESTS / 2_000, "{exported} calls to the collector");
}

/// Fires a tick and answers its calls, every tenth time with a failure; says how many they were.
fn tick(vm: &mut Vm, number: usize) -> usize {
    vm.advance(1_000_000_000);
    vm.tick().expect("no trap");
    let status = if number / REQUESTS_PER_TICK % 10 == 9 { "503" } else { "200" };
    let mut answered = 0;
    loop {
        let calls = vm.take_calls();
        if calls.is_empty() {
            break;
        }
        answered += calls.len();
        for call in &calls {
            let headers = Headers::from_iter([(":status", status)]);
            vm.answer(call, CallAnswer { headers, ..CallAnswer::default() }).expect("no trap");
        }
    }
    vm.take_log();
    answered
}
