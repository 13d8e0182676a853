//! Sends ten million requests (`SOAK_REQUESTS`) through the filter, while its collector and its host fail
//! in all ways: `make soak`.
//!
//! Exit status 1 if the filter traps or harms a request, if its memory grows after the first tenth of the
//! requests, or if its counts of spans differ from the collector's.

#[path = "../tests/it/traffic.rs"]
mod traffic;

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use sidespan_harness::host::{Call, CallResponse, Faults, Headers, Module, Request, Settings, Vm};
use sidespan_harness::otlp;

use traffic::{CONFIGURATION, SDK_HOSTCALLS, SpanCounts, Traffic};

fn main() -> ExitCode {
    match soak() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn soak() -> anyhow::Result<()> {
    let requests = std::env::var("SOAK_REQUESTS").unwrap_or_else(|_| "10000000".into());
    let requests: usize = requests
        .parse()
        .with_context(|| format!("SOAK_REQUESTS: expected a number, but found {requests:?}"))?;
    let module = Module::load(Path::new("target/sidespan.wasm"), false)?;
    let settings = Settings { configuration: CONFIGURATION.into(), ..Settings::default() };
    let started = module.start(&settings)?;
    let mut vm = started.map_err(|failure| anyhow::anyhow!("not configured: {:?}", failure.log))?;
    let (mut traffic, mut collector) = (Traffic::new(), Collector::default());
    let (started, mut warm_memory) = (Instant::now(), 0);
    // Long enough for every fault to come twice.
    let warm_up = (requests / 10).max(4 * FAULTS.len() * REQUESTS_PER_PHASE);
    println!("  requests   req/s  memory KB   recorded   exported    dropped  queued");
    for number in 1..=requests {
        let phase = Phase::at(number / REQUESTS_PER_PHASE);
        if number.is_multiple_of(REQUESTS_PER_PHASE) {
            phase.start(&mut vm, number as u64);
        }
        let stream = traffic.send(&mut vm)?;
        ensure!(stream.interventions.is_empty(), "request {number}: {:?}", stream.interventions);
        if number.is_multiple_of(REQUESTS_PER_TICK) {
            collector.serve(&mut vm, phase)?;
            vm.take_log();
            if phase == Phase::Healthy {
                let counts = SpanCounts::read(&vm);
                ensure!(counts.add_up(), "after {number} requests: {counts:?}");
            }
        }
        if number <= warm_up {
            warm_memory = vm.memory_size();
        }
        if number.is_multiple_of(requests.div_ceil(20)) {
            let rate = number as f64 / started.elapsed().as_secs_f64();
            let (memory, SpanCounts { recorded, exported, dropped, queued }) =
                (vm.memory_size() >> 10, SpanCounts::read(&vm));
            println!(
                "{number:>10}  {rate:>6.0}  {memory:>9}  {recorded:>9}  {exported:>9}  {dropped:>9}  {queued:>6}"
            );
        }
    }
    Phase::Healthy.start(&mut vm, 0);
    for _ in 0..TICKS_TO_SETTLE {
        collector.serve(&mut vm, Phase::Healthy)?;
    }
    let (counts, memory) = (SpanCounts::read(&vm), vm.memory_size());
    let accepted = collector.accepted.len() as u64 - collector.rejected;
    println!("at the end: {counts:?}");
    println!(
        "the collector accepted {accepted} spans, and got {} again after a lost response",
        collector.duplicates
    );
    println!("memory: {memory} bytes, and {warm_memory} after {warm_up} requests");
    ensure!(counts.add_up() && counts.queued == 0, "the counts do not add up");
    ensure!(
        counts.exported as u64 == accepted,
        "the filter did not count as many exported spans as the collector accepted"
    );
    ensure!(memory == warm_memory, "the memory grew");
    Ok(())
}

/// A fault that lasts for a number of requests, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Healthy,
    Status(&'static str),
    RetryAfter,
    TooLarge,
    PartialSuccess,
    Garbage,
    Silent,
    NoCluster,
    Hostcalls,
}

impl Phase {
    /// Every other phase is without a fault.
    fn at(number: usize) -> Self {
        if number.is_multiple_of(2) { Self::Healthy } else { FAULTS[number / 2 % FAULTS.len()] }
    }

    fn start(self, vm: &mut Vm, seed: u64) {
        let none: &[String] = &[];
        vm.set_clusters((self == Self::NoCluster).then_some(none));
        vm.set_faults(match self {
            Self::Hostcalls => Faults::random(20, seed).as_envoy(&SDK_HOSTCALLS),
            _ => Faults::default(),
        });
    }
}

/// Responds to calls as the phase says, and remembers the spans that it accepted.
#[derive(Default)]
struct Collector {
    /// Ids of spans.
    accepted: HashSet<Vec<u8>>,
    duplicates: u64,
    rejected: u64,
    /// Calls that get no response before their timeout.
    unanswered: Vec<Call>,
}

impl Collector {
    /// Moves the clock by a second, fires a tick, and responds to calls.
    fn serve(&mut self, vm: &mut Vm, phase: Phase) -> anyhow::Result<()> {
        vm.advance(1_000_000_000);
        vm.tick()?;
        for call in std::mem::take(&mut self.unanswered) {
            vm.respond(&call, response("504", &[], Vec::new()))?;
        }
        loop {
            let calls = vm.take_calls();
            if calls.is_empty() {
                return Ok(());
            }
            for call in calls {
                if phase == Phase::Silent {
                    self.unanswered.push(call);
                } else {
                    let response = self.receive(&call, phase)?;
                    vm.respond(&call, response)?;
                }
            }
        }
    }

    fn receive(&mut self, call: &Call, phase: Phase) -> anyhow::Result<CallResponse> {
        let Request::Http { body, .. } = &call.request else {
            anyhow::bail!("expected an HTTP call, but found {call:?}");
        };
        let spans = otlp::decode(body).map_err(anyhow::Error::msg)?;
        let reply = match phase {
            Phase::Status(status) => return Ok(response(status, &[], Vec::new())),
            // The filter might fail to read a success, and would then send the spans again.
            Phase::Hostcalls => return Ok(response("503", &[], Vec::new())),
            Phase::RetryAfter => return Ok(response("429", &[("retry-after", "3")], Vec::new())),
            Phase::TooLarge if spans.len() > 100 => return Ok(response("413", &[], Vec::new())),
            Phase::PartialSuccess => {
                self.rejected += 1;
                // An ExportTraceServiceResponse: one span rejected.
                response("200", &[], b"\x0a\x02\x08\x01".to_vec())
            }
            Phase::Garbage => response("200", &[], vec![0xff; 70_000]),
            _ => response("200", &[], Vec::new()),
        };
        for span in spans {
            self.duplicates += u64::from(!self.accepted.insert(span.span.span_id));
        }
        Ok(reply)
    }
}

fn response(status: &str, more_headers: &[(&str, &str)], body: Vec<u8>) -> CallResponse {
    let headers =
        [(":status", status)].into_iter().chain(more_headers.iter().copied()).collect::<Headers>();
    CallResponse { headers, body, ..CallResponse::default() }
}

const REQUESTS_PER_TICK: usize = 400;
const REQUESTS_PER_PHASE: usize = 20 * REQUESTS_PER_TICK;
/// Longer than the longest interval before a retry.
const TICKS_TO_SETTLE: usize = 120;

const FAULTS: [Phase; 10] = [
    Phase::Status("503"),
    Phase::Status("400"),
    Phase::RetryAfter,
    Phase::TooLarge,
    Phase::PartialSuccess,
    Phase::Garbage,
    Phase::Silent,
    Phase::NoCluster,
    Phase::Hostcalls,
    Phase::Status(""),
];
