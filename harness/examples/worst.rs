//! Searches for the most expensive requests, with all features of the filter in use: `make worst`.
//!
//! Each round changes one of the most expensive requests so far, and keeps the result if it costs more.
//! The search ends after `WORST_SECONDS`, and prints the most expensive requests. Exit status 1 if one
//! costs more than `MAX_INSTRUCTIONS`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use sidespan_harness::host::{Headers, Message, Module, Settings, StreamInfo, Vm};

/// All features that read what a client sends.
const CONFIGURATION: &str = r#"{
  "propagation": {
    "extract": ["tracecontext", "b3", "jaeger", "xray", "ottrace", "datadog", "grpc-trace-bin", "gcp", "instana",
      "baggage"],
    "inject": ["tracecontext", "b3multi", "jaeger", "xray", "ottrace", "datadog", "grpc-trace-bin", "gcp", "instana"],
    "baggage": {"max_members": 64, "max_bytes": 8192},
    "trust_rules": [{"match": {"headers": {"name": "x", "regex": ".*a.*b"}}, "trust": "restart"}],
    "egress": [{"authority": {"suffix": ".example"}, "action": "strip"}]
  },
  "sampling": {"rules": [
    {"name": "bots", "decision": "drop", "match": {"headers": [
      {"name": "user-agent", "regex": ".*(bot|crawler|spider).*"}, {"name": "x", "contains": "ab"}]}},
    {"name": "health", "decision": "drop", "match": {"path": [{"prefix": "/healthz"}, {"suffix": ".css"}]}},
    {"name": "token", "decision": "force", "match": {"headers": {"name": "x-token", "token":
      {"keys": [{"id": "ops", "secret": "0123456789abcdef0123456789abcdef"}]}}}}
  ]},
  "custom_tags": [
    {"tag": "query", "query_parameter": {"name": "a"}}, {"tag": "cookie", "cookie": {"name": "a"}},
    {"tag": "member", "baggage": {"name": "a"}}, {"tag": "header", "request_header": {"name": "x"}},
    {"tag": "hash", "request_header": {"name": "x"}, "redact": "hash"}, {"tag": "text", "value": "%REQ(X)%%REQ(Y)%"}
  ],
  "exporter": {"otlp": {"cluster": "otel-collector"}}
}"#;
const NAMES: [&str; 27] = [
    ":path",
    ":authority",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-sampled",
    "uber-trace-id",
    "x-amzn-trace-id",
    "ot-tracer-traceid",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-tags",
    "grpc-trace-bin",
    "x-cloud-trace-context",
    "x-instana-t",
    "x-instana-l",
    "x_b3_traceid",
    "cookie",
    "user-agent",
    "content-type",
    "x",
    "y",
    "x-token",
    "x-request-id",
    "uberctx-a",
];
const PARTS: [&[u8]; 12] = [
    b"a=1,",
    b"/../",
    b"%2e",
    b";a=",
    b"?a=b&",
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b"1:1:0:1",
    b"Root=1-5759e988-bd862e3fe1be46a994272793;",
    b"AAAA",
    b"\xf0\x90",
    b" \t",
    b"ab",
];
/// Envoy's default limit for the size of headers, names included.
const MAX_BYTES: usize = 60 * 1024;
/// Envoy's default limit is 100 lines, of which every request has some.
const MAX_LINES: usize = 95;
/// More than the limit for an attack on one parser, because a request can attack several.
const MAX_INSTRUCTIONS: u64 = 12_000_000;
const MAX_KEPT: usize = 32;

/// A header line whose value is `part`, repeated.
#[derive(Clone)]
struct Line {
    name: &'static str,
    part: Vec<u8>,
    times: usize,
}

struct Candidate {
    lines: Vec<Line>,
    instructions: u64,
}

fn main() -> ExitCode {
    match search() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn search() -> anyhow::Result<bool> {
    let seconds = std::env::var("WORST_SECONDS").unwrap_or_else(|_| "60".into());
    let seconds = seconds
        .parse()
        .with_context(|| format!("WORST_SECONDS: expected a number, but found {seconds:?}"))?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let module = Module::load(Path::new("target/sidespan.wasm"), true)?;
    let settings = Settings { configuration: CONFIGURATION.into(), ..Settings::default() };
    let started = module.start(&settings)?;
    let mut vm = started.map_err(|failure| anyhow::anyhow!("not configured: {:?}", failure.log))?;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut kept: Vec<Candidate> = Vec::new();
    let mut tried = 0;
    while Instant::now() < end {
        let mut lines = match kept.is_empty() || below(&mut random, 8) == 0 {
            true => Vec::new(),
            false => kept[below(&mut random, kept.len())].lines.clone(),
        };
        for _ in 0..=below(&mut random, 3) {
            change(&mut lines, &mut random);
        }
        fit(&mut lines);
        let instructions = cost(&mut vm, &lines)?;
        tried += 1;
        kept.push(Candidate { lines, instructions });
        kept.sort_by_key(|candidate| std::cmp::Reverse(candidate.instructions));
        kept.truncate(MAX_KEPT);
    }
    println!("{tried} requests; the most expensive:");
    for candidate in kept.iter().take(5) {
        println!("{:>10} instructions", candidate.instructions);
        for line in &candidate.lines {
            let part = String::from_utf8_lossy(&line.part);
            println!("           {}: {part:?} {} times", line.name, line.times);
        }
    }
    Ok(kept.iter().all(|candidate| candidate.instructions <= MAX_INSTRUCTIONS))
}

fn below(random: &mut Xoshiro256PlusPlus, end: usize) -> usize {
    (random.next_u64() % end as u64) as usize
}

fn change(lines: &mut Vec<Line>, random: &mut Xoshiro256PlusPlus) {
    let new = |random: &mut Xoshiro256PlusPlus| Line {
        name: NAMES[below(random, NAMES.len())],
        part: PARTS[below(random, PARTS.len())].to_vec(),
        times: 1 << below(random, 16),
    };
    if lines.is_empty() || below(random, 4) == 0 {
        let line = new(random);
        return lines.push(line);
    }
    let index = below(random, lines.len());
    match below(random, 7) {
        0 => drop(lines.swap_remove(index)),
        1 => lines[index].name = NAMES[below(random, NAMES.len())],
        2 => lines[index].times = 1 << below(random, 16),
        3 => {
            let copy = lines[index].clone();
            lines.push(copy);
        }
        4 => lines[index].part.extend_from_slice(PARTS[below(random, PARTS.len())]),
        5 => {
            let part = &mut lines[index].part;
            part.truncate(1 + below(random, part.len()));
        }
        _ => {
            let bytes = b" !\"%&'()*+,-./0123456789:;<=>?@ABab[\\]_{|}~\xff";
            let part = &mut lines[index].part;
            let changed = below(random, part.len());
            part[changed] = bytes[below(random, bytes.len())];
        }
    }
}

/// Shortens the request to Envoy's limits.
fn fit(lines: &mut Vec<Line>) {
    lines.truncate(MAX_LINES);
    let mut left = MAX_BYTES;
    lines.retain_mut(|line| {
        let name = line.name.len() + 4;
        line.times = line.times.min(left.saturating_sub(name) / line.part.len());
        left = left.saturating_sub(name + line.times * line.part.len());
        line.times > 0
    });
}

fn cost(vm: &mut Vm, lines: &[Line]) -> anyhow::Result<u64> {
    let mut headers = Headers::new();
    for (name, value) in
        [(":path", "/"), (":method", "GET"), (":authority", "shop"), (":scheme", "http")]
    {
        if lines.iter().all(|line| line.name != name) {
            headers.add(name, value);
        }
    }
    lines.iter().for_each(|line| headers.add(line.name, line.part.repeat(line.times)));
    let before = vm.instructions().unwrap_or_default();
    let context = vm.request(StreamInfo::default(), Message { headers, ..Message::default() })?;
    let headers = Headers::from_iter([(":status", "503")]);
    vm.response(context, Message { headers, ..Message::default() })?;
    vm.finish(context)?;
    let instructions = vm.instructions().unwrap_or_default() - before;
    // Exports the spans; nothing responds to the calls.
    vm.tick()?;
    Ok(instructions)
}
