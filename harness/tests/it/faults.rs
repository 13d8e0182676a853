//! Hostcalls that fail: the filter lives, and no request is harmed.

use sidespan_harness::host::{CallAnswer, Faults, Headers, Settings, Stream, Vm};

use crate::module;
use crate::traffic::{BY_THE_SDK, Books, CONFIGURATION, Traffic};

fn settings(faults: Faults) -> Settings {
    Settings { configuration: CONFIGURATION.into(), faults, ..Settings::default() }
}

/// Sends requests, with a tick now and then whose calls are answered.
#[track_caller]
fn drive(vm: &mut Vm, traffic: &mut Traffic, requests: usize, what: &str) {
    for number in 0..requests {
        let stream = traffic.send(vm).unwrap_or_else(|fault| panic!("{what}: {fault}"));
        check(&stream, what);
        if number % 20 == 19 {
            vm.advance(1_000_000_000);
            vm.tick().unwrap_or_else(|fault| panic!("{what}: {fault}"));
            for call in vm.take_calls() {
                let headers = Headers::from_iter([(":status", "200")]);
                let answer =
                    CallAnswer { headers, body: b"\x0a\0".to_vec(), ..CallAnswer::default() };
                vm.answer(&call, answer).unwrap_or_else(|fault| panic!("{what}: {fault}"));
            }
        }
    }
}

/// A request that was forwarded has all that makes it one, and was not held up.
#[track_caller]
fn check(stream: &Stream, what: &str) {
    assert_eq!(stream.interventions, [], "{what}");
    for name in [":authority", ":path", ":method", ":scheme", "user-agent", "accept"] {
        assert!(stream.request.headers.first(name).is_some(), "{what}: {name} is gone");
    }
}

/// Statuses that a hostcall may fail with: any, but those of Envoy where the SDK makes it.
fn statuses(hostcall: &str) -> &'static [u32] {
    if BY_THE_SDK.contains(&hostcall) {
        Faults::statuses_of(hostcall).expect("a hostcall of the ABI")
    } else {
        &Faults::STATUSES
    }
}

#[test]
fn any_hostcall_may_fail_with_any_status() {
    let module = module::load();
    for hostcall in module.imports() {
        for &status in statuses(&hostcall) {
            let what = format!("{hostcall} answers {status}");
            let faults = Faults::always(&hostcall, status);
            let from_the_start = match hostcall.as_str() {
                // Hash maps of the standard library's, which regex-lite has, trap without
                // randomness: the configuration is then refused, before there is traffic.
                "random_get" => Faults::default(),
                _ => faults.clone(),
            };
            match module.start(&settings(from_the_start)).expect("the module is instantiated") {
                Ok(mut vm) => {
                    vm.set_faults(faults);
                    drive(&mut vm, &mut Traffic::new(), 60, &what);
                }
                // A configuration that cannot be read is refused; nothing else is.
                Err(failure) => {
                    assert!(failure.fault.is_none(), "{what}: {:?}", failure.fault);
                    assert_eq!(hostcall, "proxy_get_buffer_bytes", "{what}");
                }
            }
        }
    }
}

#[test]
fn a_call_that_is_never_answered_is_made_again() {
    let module = module::load();
    let settings = settings(Faults::default());
    let mut vm = module.start(&settings).expect("an instance").expect("a configuration");
    let answer = || CallAnswer {
        headers: Headers::from_iter([(":status", "200")]),
        ..CallAnswer::default()
    };
    let mut traffic = Traffic::new();
    while Books::of(&vm).recorded == 0 {
        traffic.send(&mut vm).expect("no trap");
        vm.advance(1_000_000_000);
        vm.tick().expect("no trap");
    }
    let lost = vm.take_calls();
    let queued = Books::of(&vm).queued;
    // Twice the time that a call has, and the pause before the next.
    for _ in 0..22 {
        vm.advance(1_000_000_000);
        vm.tick().expect("no trap");
    }
    let again = vm.take_calls();
    assert_eq!((lost.len(), again.len()), (1, 1));
    vm.answer(&lost[0], answer()).expect("no trap");
    vm.tick().expect("no trap");
    assert_eq!(Books::of(&vm).exported, 0, "an answer to a call that was given up");
    vm.answer(&again[0], answer()).expect("no trap");
    vm.tick().expect("no trap");
    let books = Books::of(&vm);
    assert!(books.exported > 0 && books.exported <= queued && books.balance(), "{books:?}");
    assert_eq!(vm.metric("sidespan_exports_total{result=\"retry\"}"), Some(1));
}

#[test]
fn hostcalls_that_fail_by_chance_leave_the_filter_as_it_was() {
    let module = module::load();
    for (per_mille, seed) in [(10, 1), (100, 2), (500, 3), (1_000, 4)] {
        let mut vm = module
            .start(&settings(Faults::default()))
            .expect("the module is instantiated")
            .expect("the configuration is taken");
        let what = format!("{per_mille} of a thousand fail");
        let mut traffic = Traffic::new();
        vm.set_faults(Faults::random(per_mille, seed).as_envoy(&BY_THE_SDK));
        drive(&mut vm, &mut traffic, 5_000, &what);
        vm.set_faults(Faults::default());
        let before = Books::of(&vm);
        drive(&mut vm, &mut traffic, 2_000, &what);
        let after = Books::of(&vm);
        assert!(after.balance(), "{what}: {after:?}");
        assert!(after.exported >= before.exported + 500, "{what}: {before:?}, then {after:?}");
    }
}
