//! A root context can be configured again, and every span is then exported or counted as dropped.

use sidespan_harness::host::{CallResponse, Headers, Message, Settings, StreamInfo, Vm};

use crate::module;
use crate::traffic::{CONFIGURATION, SpanCounts, Traffic};

/// Returns a VM with some recorded spans, of which none is exported.
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
fn spans_stay_queued_for_the_same_collector() {
    let mut vm = worker();
    assert_eq!(vm.configure(with_another_tag().as_bytes()), Ok(true));
    let before = SpanCounts::read(&vm);
    assert!(before.recorded > 0 && before.queued == before.recorded, "{before:?}");
    vm.tick().expect("no trap");
    for call in vm.take_calls() {
        let headers = Headers::from_iter([(":status", "200")]);
        vm.respond(&call, CallResponse { headers, ..CallResponse::default() }).expect("no trap");
    }
    vm.tick().expect("no trap");
    assert_eq!(
        SpanCounts::read(&vm),
        SpanCounts { exported: before.recorded, queued: 0, ..before }
    );
}

/// Returns a configuration that differs, but not in its exporter.
fn with_another_tag() -> String {
    CONFIGURATION.replace("production", "staging")
}

#[test]
fn a_call_survives_the_same_configuration() {
    let mut vm = worker();
    vm.tick().expect("no trap");
    let call = vm.take_calls().pop().expect("an export");
    assert_eq!(vm.configure(CONFIGURATION.as_bytes()), Ok(true));
    let headers = Headers::from_iter([(":status", "200")]);
    vm.respond(&call, CallResponse { headers, ..CallResponse::default() }).expect("no trap");
    vm.tick().expect("no trap");
    let counts = SpanCounts::read(&vm);
    assert!(counts.exported > 0 && counts.exported == counts.recorded, "{counts:?}");
}

#[test]
fn a_request_that_started_before_queues_its_span_after() {
    let mut vm = worker();
    let lines =
        [(":authority", "shop"), (":path", "/"), (":method", "GET"), ("x-debug-trace", "true")];
    let message = Message { headers: lines.into_iter().collect(), ..Message::default() };
    let context = vm.request(StreamInfo::default(), message).expect("no trap");
    assert_eq!(vm.configure(with_another_tag().as_bytes()), Ok(true));
    let before = SpanCounts::read(&vm);
    vm.finish(context).expect("no trap");
    vm.tick().expect("no trap");
    let (recorded, queued) = (before.recorded + 1, before.queued + 1);
    assert_eq!(SpanCounts::read(&vm), SpanCounts { recorded, queued, ..before });
}

#[test]
fn spans_for_a_removed_collector_are_counted_as_dropped() {
    let mut vm = worker();
    let other = CONFIGURATION.replace("otel-collector", "other");
    assert_eq!(vm.configure(other.as_bytes()), Ok(true));
    let counts = SpanCounts::read(&vm);
    assert!(counts.recorded > 0, "{counts:?}");
    assert_eq!(counts, SpanCounts { dropped: counts.recorded, queued: 0, ..counts });
    let log: String = vm.take_log().into_iter().map(|line| line.message).collect();
    assert!(log.contains(&format!("{} configuration_removed", counts.recorded)), "{log}");
}

#[test]
fn a_refused_configuration_does_not_replace_the_former() {
    let mut vm = worker();
    assert_eq!(vm.configure(b"{"), Ok(false));
    vm.tick().expect("no trap");
    let counts = SpanCounts::read(&vm);
    assert!(counts.queued > 0 && counts.queued == counts.recorded, "{counts:?}");
    assert_eq!(vm.take_calls().len(), 1);
}
