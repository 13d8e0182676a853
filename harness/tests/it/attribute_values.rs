//! Attribute values of any length arrive unchanged.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use sidespan_harness::host::{Headers, Message, Request, Settings, StreamInfo};
use sidespan_harness::otlp;

use crate::module;
use crate::traffic::CONFIGURATION;

#[test]
fn values_of_all_lengths_arrive_unchanged() {
    let mut vm = module::load()
        .start(&Settings { configuration: CONFIGURATION.into(), ..Settings::default() })
        .expect("the module is instantiated")
        .expect("the configuration is accepted");
    let sent: Vec<String> = (1..=600)
        .map(|len| (0..len).map(|index| char::from(b'!' + ((len + index) % 94) as u8)).collect())
        .collect();
    let mut arrived = Vec::new();
    for value in &sent {
        let headers = Headers::from_iter([(":path", "/"), ("x-user-id", value)]);
        let context = vm
            .request(StreamInfo::default(), Message { headers, ..Message::default() })
            .expect("no trap");
        vm.finish(context).expect("no trap");
    }
    vm.advance(1_000_000_000);
    vm.tick().expect("no trap");
    for call in vm.take_calls() {
        let Request::Http { body, .. } = call.request else {
            panic!("expected an HTTP call, but found {call:?}");
        };
        for exported in otlp::decode(&body).expect("an export request") {
            let user = exported.span.attributes.into_iter().find(|it| it.key == "user.id");
            match user.and_then(|user| user.value?.value) {
                Some(Value::StringValue(value)) => arrived.push(value),
                other => panic!("expected a text, but found {other:?}"),
            }
        }
    }
    // The first batch is in the order of the requests.
    assert!(arrived.len() >= 512, "{} spans", arrived.len());
    assert_eq!(arrived, sent[..arrived.len()]);
}
