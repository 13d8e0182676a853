//! Sends ten million requests through the filter, or `SOAK_REQUESTS`, while its collector and its
//! host fail in all ways: `make soak`.
//!
//! Exit status 1 where the filter traps, harms a request or grows after its first tenth, or where its
//! books do not agree with what the collector got.

#[path = "../tests/it/traffic.rs"]
mod traffic;

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use sidespan_harness::host::{Call, CallAnswer, Faults, Headers, Module, Request, Settings, Vm};
use sidespan_harness::otlp;

use traffic::{BY_THE_SDK, Books, CONFIGURATION, Traffic};

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
    let (began, mut warm) = (Instant::now(), 0);
    // Every fault has been there twice by then.
    let warm_up = (requests / 10).max(4 * FAULTS.len() * REQUESTS_PER_PHASE);
    println!("  requests   req/s  memory KB   recorded   exported    dropped  queued");
    for number in 1..=requests {
        let phase = Phase::at(number / REQUESTS_PER_PHASE);
        if number.is_multiple_of(REQUESTS_PER_PHASE) {
            phase.begin(&mut vm, number as u64);
        }
        let stream = traffic.send(&mut vm)?;
        ensure!(stream.interventions.is_empty(), "request {number}: {:?}", stream.interventions);
        if number.is_multiple_of(REQUESTS_PER_TICK) {
            collector.serve(&mut vm, phase)?;
            vm.take_log();
            if phase == Phase::Well {
                let books = Books::of(&vm);
                ensure!(books.balance(), "after {number} requests: {books:?}");
            }
        }
        if number <= warm_up {
            warm = vm.memory_size();
        }
        if number.is_multiple_of(requests.div_ceil(20)) {
            let rate = number as f64 / began.elapsed().as_secs_f64();
            let (memory, Books { recorded, exported, dropped, queued }) =
                (vm.memory_size() >> 10, Books::of(&vm));
            println!(
                "{number:>10}  {rate:>6.0}  {memory:>9}  {recorded:>9}  {exported:>9}  {dropped:>9}  {queued:>6}"
            );
        }
    }
    Phase::Well.begin(&mut vm, 0);
    for _ in 0..TICKS_TO_SETTLE {
        collector.serve(&mut vm, Phase::Well)?;
    }
    let (books, memory) = (Books::of(&vm), vm.memory_size());
    let taken = collector.taken.len() as u64 - collector.rejected;
    println!("in the end {books:?}");
    println!(
        "the collector took {taken} spans; {} came again after a lost answer",
        collector.again
    );
    println!("memory: {memory} bytes, and {warm} after {warm_up} requests");
    ensure!(books.balance() && books.queued == 0, "the books do not balance");
    ensure!(books.exported as u64 == taken, "the filter counts other spans than the collector");
    ensure!(memory == warm, "the memory grew");
    Ok(())
}

/// What fails for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Well,
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
    /// Every other phase all is well.
    fn at(number: usize) -> Self {
        if number.is_multiple_of(2) { Self::Well } else { FAULTS[number / 2 % FAULTS.len()] }
    }

    fn begin(self, vm: &mut Vm, seed: u64) {
        let none: &[String] = &[];
        vm.set_clusters((self == Self::NoCluster).then_some(none));
        vm.set_faults(match self {
            Self::Hostcalls => Faults::random(20, seed).as_envoy(&BY_THE_SDK),
            _ => Faults::default(),
        });
    }
}

/// Answers calls as the phase says, and knows what it took.
#[derive(Default)]
struct Collector {
    taken: HashSet<Vec<u8>>,
    again: u64,
    rejected: u64,
    /// Calls that get no answer before their time is over.
    silent: Vec<Call>,
}

impl Collector {
    /// Lets a second pass, and answers what came.
    fn serve(&mut self, vm: &mut Vm, phase: Phase) -> anyhow::Result<()> {
        vm.advance(1_000_000_000);
        vm.tick()?;
        for call in std::mem::take(&mut self.silent) {
            vm.answer(&call, answer("504", &[], Vec::new()))?;
        }
        loop {
            let calls = vm.take_calls();
            if calls.is_empty() {
                return Ok(());
            }
            for call in calls {
                if phase == Phase::Silent {
                    self.silent.push(call);
                } else {
                    let answer = self.answer(&call, phase)?;
                    vm.answer(&call, answer)?;
                }
            }
        }
    }

    fn answer(&mut self, call: &Call, phase: Phase) -> anyhow::Result<CallAnswer> {
        let Request::Http { body, .. } = &call.request else {
            anyhow::bail!("expected an HTTP call, but found {call:?}");
        };
        let spans = otlp::decode(body).map_err(anyhow::Error::msg)?;
        let answer = match phase {
            Phase::Status(status) => return Ok(answer(status, &[], Vec::new())),
            // Were it taken, the filter might not get to read that, and be refused the next time.
            Phase::Hostcalls => return Ok(answer("503", &[], Vec::new())),
            Phase::RetryAfter => return Ok(answer("429", &[("retry-after", "3")], Vec::new())),
            Phase::TooLarge if spans.len() > 100 => return Ok(answer("413", &[], Vec::new())),
            Phase::PartialSuccess => {
                self.rejected += 1;
                // An ExportTraceServiceResponse: one span rejected.
                answer("200", &[], b"\x0a\x02\x08\x01".to_vec())
            }
            Phase::Garbage => answer("200", &[], vec![0xff; 70_000]),
            _ => answer("200", &[], Vec::new()),
        };
        for span in spans {
            self.again += u64::from(!self.taken.insert(span.span.span_id));
        }
        Ok(answer)
    }
}

fn answer(status: &str, more: &[(&str, &str)], body: Vec<u8>) -> CallAnswer {
    let headers =
        [(":status", status)].into_iter().chain(more.iter().copied()).collect::<Headers>();
    CallAnswer { headers, body, ..CallAnswer::default() }
}

const REQUESTS_PER_TICK: usize = 400;
const REQUESTS_PER_PHASE: usize = 20 * REQUESTS_PER_TICK;
/// Longer than the longest pause before a retry.
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
