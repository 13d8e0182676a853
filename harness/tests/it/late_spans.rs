//! Headers that are held for late export: their size is bounded over all requests, and requests beyond
//! the bound are counted.

use sidespan_harness::host::{Headers, Message, Settings, StreamInfo};

use crate::module;

const STREAMS: usize = 10_000;
const MAX_HELD_BYTES: usize = 2 << 20;
/// A held request takes 2 KiB for its path, four bytes for each of 1,024 characters of its user agent, and
/// some state.
const MIN_HELD: usize = MAX_HELD_BYTES / (2_048 + 4_100 + 1_024);

#[test]
fn ten_thousand_streams_with_large_headers_stay_below_the_bound() {
    let configuration = format!(
        r#"{{"sampling": {{"ratio": 0, "export_on": {{"status": "5xx", "limit": {{"per_second": 1000000}},
                "max_held_bytes": {MAX_HELD_BYTES}}}}},
            "exporter": {{"otlp": {{"cluster": "otel-collector"}}}}}}"#
    );
    let settings = Settings { configuration: configuration.into(), ..Settings::default() };
    let mut vm = module::load().start(&settings).expect("an instance").expect("a configuration");
    let large = "x".repeat(30_000);
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let headers = Headers::from_iter([
            (":path", large.as_str()),
            (":method", "GET"),
            (":authority", "shop"),
            (":scheme", "http"),
            ("user-agent", &large),
        ]);
        let request = Message { headers, ..Message::default() };
        open.push(vm.request(StreamInfo::default(), request).expect("no trap"));
    }
    // Held headers, twice because of the allocator's fragmentation; contexts; and the module itself.
    let held = vm.memory_size();
    assert!(held < 2 * MAX_HELD_BYTES + STREAMS * 512 + (4 << 20), "{held} bytes");
    let failed = || Headers::from_iter([(":status", "503")]);
    for context in open {
        vm.response(context, Message { headers: failed(), ..Message::default() }).expect("no trap");
        vm.finish(context).expect("no trap");
    }
    vm.tick().expect("no trap");
    let count = |name: &str| vm.metric(name).unwrap_or_default() as usize;
    let late = count("sidespan_late_exported_total");
    assert!(late >= MIN_HELD, "{late} late spans");
    assert_eq!(late + count("sidespan_late_not_held_total"), STREAMS);
}
