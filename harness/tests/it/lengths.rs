//! Attribute values of any length arrive as they were sent.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use sidespan_harness::host::{Headers, Message, Request, Settings, StreamInfo};
use sidespan_harness::otlp;

use crate::module;
use crate::traffic::CONFIGURATION;

#[test]
fn values_of_every_length_arrive_whole() {
    let mut vm = module::load()
        .start(&Settings { configuration: CONFIGURATION.into(), ..Settings::default() })
        .expect("the module is instantiated")
        .expect("the configuration is taken");
    let sent: Vec<String> = (1..=600)
        .map(|len| (0..len).map(|place| char::from(b'!' + ((len + place) % 94) as u8)).collect())
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
    // The first batch, in the order of requests.
    assert!(arrived.len() >= 512, "{} spans", arrived.len());
    assert_eq!(arrived, sent[..arrived.len()]);
}
