//! A root context that is configured a second time: no span is lost uncounted.

use sidespan_harness::host::{CallAnswer, Headers, Message, Settings, StreamInfo, Vm};

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
    assert_eq!(vm.configure(with_another_tag().as_bytes()), Ok(true));
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

/// The configuration with a difference that its exporter knows nothing of.
fn with_another_tag() -> String {
    CONFIGURATION.replace("production", "staging")
}

#[test]
fn the_same_configuration_changes_nothing() {
    let mut vm = worker();
    vm.tick().expect("no trap");
    let call = vm.take_calls().pop().expect("an export");
    assert_eq!(vm.configure(CONFIGURATION.as_bytes()), Ok(true));
    let headers = Headers::from_iter([(":status", "200")]);
    vm.answer(&call, CallAnswer { headers, ..CallAnswer::default() }).expect("no trap");
    vm.tick().expect("no trap");
    let books = Books::of(&vm);
    assert!(books.exported > 0 && books.exported == books.recorded, "{books:?}");
}

#[test]
fn a_request_that_began_before_leaves_its_span_to_the_new_configuration() {
    let mut vm = worker();
    let lines =
        [(":authority", "shop"), (":path", "/"), (":method", "GET"), ("x-debug-trace", "true")];
    let message = Message { headers: lines.into_iter().collect(), ..Message::default() };
    let context = vm.request(StreamInfo::default(), message).expect("no trap");
    assert_eq!(vm.configure(with_another_tag().as_bytes()), Ok(true));
    let before = Books::of(&vm);
    vm.finish(context).expect("no trap");
    vm.tick().expect("no trap");
    let (recorded, queued) = (before.recorded + 1, before.queued + 1);
    assert_eq!(Books::of(&vm), Books { recorded, queued, ..before });
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
