//! A root context that is configured a second time: no span is lost uncounted.

use sidespan_harness::host::{CallAnswer, Headers, Settings, Vm};

use crate::module;
use crate::traffic::{Books, CONFIGURATION, Traffic};

/// A worker that has so many requests of all kinds behind it, and nothing exported.
fn worker() -> Vm {
    let settings = Settings { configuration: CONFIGURATION.into(), ..Settings::default() };
    let mut vm = module::load().start(&settings).expect("an instance").expect("a configuration");
    let mut traffic = Traffic::new();
    for _ in 0..20 {
        traffic.send(&mut vm).expect("no trap");
    }
    vm
}

#[test]
fn spans_go_to_the_new_configuration_of_the_same_collector() {
    let mut vm = worker();
    assert_eq!(vm.configure(CONFIGURATION.as_bytes()), Ok(true));
    let before = Books::of(&vm);
    assert!(before.recorded > 0 && before.queued == before.recorded, "{before:?}");
    vm.tick().expect("no trap");
    for call in vm.take_calls() {
        let headers = Headers::from_iter([(":status", "200")]);
        vm.answer(&call, CallAnswer { headers, ..CallAnswer::default() }).expect("no trap");
    }
    vm.tick().expect("no trap");
    assert_eq!(Books::of(&vm), Books { exported: before.recorded, queued: 0, ..before });
}

#[test]
fn spans_of_another_collector_are_counted_as_dropped() {
    let mut vm = worker();
    let other = CONFIGURATION.replace("otel-collector", "other");
    assert_eq!(vm.configure(other.as_bytes()), Ok(true));
    let books = Books::of(&vm);
    assert!(books.recorded > 0, "{books:?}");
    assert_eq!(books, Books { dropped: books.recorded, queued: 0, ..books });
    let log: String = vm.take_log().into_iter().map(|line| line.message).collect();
    assert!(log.contains(&format!("{} configuration_removed", books.recorded)), "{log}");
}

#[test]
fn a_refused_configuration_leaves_the_former_in_force() {
    let mut vm = worker();
    assert_eq!(vm.configure(b"{"), Ok(false));
    vm.tick().expect("no trap");
    let books = Books::of(&vm);
    assert!(books.queued > 0 && books.queued == books.recorded, "{books:?}");
    assert_eq!(vm.take_calls().len(), 1);
}
