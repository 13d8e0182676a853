//! When hostcalls fail, the filter does not trap and no request is harmed.

use sidespan_harness::host::{CallResponse, Faults, Headers, Settings, Stream, Vm};

use crate::module;
use crate::traffic::{CONFIGURATION, SDK_HOSTCALLS, SpanCounts, Traffic};

fn settings(faults: Faults) -> Settings {
    Settings { configuration: CONFIGURATION.into(), faults, ..Settings::default() }
}

/// Sends requests, with a tick after every 20 of them, and responds to calls. `what` describes the test in
/// messages.
#[track_caller]
fn drive(vm: &mut Vm, traffic: &mut Traffic, requests: usize, what: &str) {
    for number in 0..requests {
        let stream = traffic.send(vm).unwrap_or_else(|trap| panic!("{what}: {trap}"));
        check(&stream, what);
        if number % 20 == 19 {
            vm.advance(1_000_000_000);
            vm.tick().unwrap_or_else(|trap| panic!("{what}: {trap}"));
            for call in vm.take_calls() {
                let headers = Headers::from_iter([(":status", "200")]);
                let response =
                    CallResponse { headers, body: b"\x0a\0".to_vec(), ..CallResponse::default() };
                vm.respond(&call, response).unwrap_or_else(|trap| panic!("{what}: {trap}"));
            }
        }
    }
}

/// Checks that a request went on with all of its original headers.
#[track_caller]
fn check(stream: &Stream, what: &str) {
    assert_eq!(stream.interventions, [], "{what}");
    for name in [":authority", ":path", ":method", ":scheme", "user-agent", "accept"] {
        assert!(stream.request.headers.first(name).is_some(), "{what}: {name} is gone");
    }
}

/// Returns the statuses with which a hostcall fails: any, but only Envoy's if the SDK makes the hostcall.
fn statuses(hostcall: &str) -> &'static [u32] {
    if SDK_HOSTCALLS.contains(&hostcall) {
        Faults::statuses_of(hostcall).expect("a hostcall of the ABI")
    } else {
        &Faults::STATUSES
    }
}

#[test]
fn any_hostcall_can_fail_with_any_status() {
    let module = module::load();
    for hostcall in module.imports() {
        for &status in statuses(&hostcall) {
            let what = format!("{hostcall} returns {status}");
            let settings = settings(Faults::always(&hostcall, status));
            match module.start(&settings).expect("the module is instantiated") {
                Ok(mut vm) => {
                    drive(&mut vm, &mut Traffic::new(), 60, &what);
                }
                // A VM fails to start only if its configuration cannot be read.
                Err(failure) => {
                    assert!(failure.trap.is_none(), "{what}: {:?}", failure.trap);
                    assert_eq!(hostcall, "proxy_get_buffer_bytes", "{what}");
                }
            }
        }
    }
}

#[test]
fn a_call_without_a_response_is_made_again() {
    let module = module::load();
    let settings = settings(Faults::default());
    let mut vm = module.start(&settings).expect("an instance").expect("a configuration");
    let success = || CallResponse {
        headers: Headers::from_iter([(":status", "200")]),
        ..CallResponse::default()
    };
    let mut traffic = Traffic::new();
    while SpanCounts::read(&vm).recorded == 0 {
        traffic.send(&mut vm).expect("no trap");
        vm.advance(1_000_000_000);
        vm.tick().expect("no trap");
    }
    let lost = vm.take_calls();
    let queued = SpanCounts::read(&vm).queued;
    // Twice the timeout of a call, and the interval before the retry.
    for _ in 0..22 {
        vm.advance(1_000_000_000);
        vm.tick().expect("no trap");
    }
    let retries = vm.take_calls();
    assert_eq!((lost.len(), retries.len()), (1, 1));
    vm.respond(&lost[0], success()).expect("no trap");
    vm.tick().expect("no trap");
    assert_eq!(SpanCounts::read(&vm).exported, 0, "the response comes after the timeout");
    vm.respond(&retries[0], success()).expect("no trap");
    vm.tick().expect("no trap");
    let counts = SpanCounts::read(&vm);
    assert!(counts.exported > 0 && counts.exported <= queued && counts.add_up(), "{counts:?}");
    assert_eq!(vm.metric("sidespan_exports_total{result=\"retry\"}"), Some(1));
}

#[test]
fn the_filter_recovers_from_random_failures() {
    let module = module::load();
    for (per_mille, seed) in [(10, 1), (100, 2), (500, 3), (1_000, 4)] {
        let mut vm = module
            .start(&settings(Faults::default()))
            .expect("the module is instantiated")
            .expect("the configuration is accepted");
        let what = format!("{per_mille} of a thousand fail");
        let mut traffic = Traffic::new();
        vm.set_faults(Faults::random(per_mille, seed).as_envoy(&SDK_HOSTCALLS));
        drive(&mut vm, &mut traffic, 5_000, &what);
        vm.set_faults(Faults::default());
        let before = SpanCounts::read(&vm);
        drive(&mut vm, &mut traffic, 2_000, &what);
        let after = SpanCounts::read(&vm);
        assert!(after.add_up(), "{what}: {after:?}");
        assert!(after.exported >= before.exported + 500, "{what}: {before:?}, then {after:?}");
    }
}
