//! Replays a scenario: starts a VM, sends the requests, moves the clock, and compares.

use std::path::Path;

use similar::TextDiff;

use crate::captures::Captures;
use crate::collector::{Collector, Received};
use crate::compare::{self, Found, Times};
use crate::host::{
    Fault, Headers, Intervention, LogLevel, LogLine, Message, Module, Node, Settings, StartFailure,
    Stream, StreamInfo, Vm,
};
use crate::plugin::Plugin;
use crate::scenario::{Case, Request, Response, Scenario};
use crate::yaml::{self, Refused};

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseResult {
    pub name: String,
    /// What was wrong, in as many lines as it takes; `None`: nothing.
    pub failure: Option<String>,
    /// `None` where the module is not metered, or the case did not run to its end.
    pub instructions: Option<Instructions>,
}

/// WebAssembly instructions that a case executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Instructions {
    /// In the callbacks of its requests.
    pub requests: u64,
    /// In ticks and answers to calls.
    pub ticks: u64,
}

/// A scenario that was read, with its configuration.
pub struct Loaded {
    scenario: Scenario,
    settings: Settings,
}

impl Loaded {
    /// Reads a scenario and the files that it names.
    pub fn read(file: &Path) -> Result<Self, Refused> {
        let scenario: Scenario = yaml::read(file)?;
        match (&scenario.configuration_error, &scenario.cases) {
            (Some(error), Some(_)) => {
                let reason = "expected `cases` or `configuration_error`, but found both";
                return Err(Refused::at(file, error.referenced, reason));
            }
            (None, None) => {
                let reason = "expected the key `cases`, but found none".into();
                return Err(Refused { file: file.to_owned(), place: Some((1, 1)), reason });
            }
            _ => {}
        }
        let plugin = Plugin::of(&scenario, file)?;
        let mut environment = plugin.environment;
        environment.retain(|(name, _)| !scenario.environment.contains_key(name));
        environment.extend(scenario.environment.clone());
        let settings = Settings {
            configuration: plugin.configuration,
            node: Node {
                id: scenario.node.id.clone(),
                cluster: scenario.node.cluster.clone(),
                metadata: scenario.node.metadata.clone(),
            },
            environment,
            clusters: scenario.clusters.clone(),
            seed: scenario.seed,
            now_ns: scenario.time.0,
        };
        Ok(Self { scenario, settings })
    }

    /// Runs all cases in one VM. An error means that the module itself is of no use.
    pub fn run(&self, module: &Module) -> anyhow::Result<Vec<CaseResult>> {
        let started = module.start(&self.settings)?;
        let expected_error =
            self.scenario.configuration_error.as_ref().map(|error| error.value.as_str());
        Ok(match (started, expected_error) {
            (Err(failure), Some(text)) => {
                vec![CaseResult::new("configuration is refused", refusal_problem(&failure, text))]
            }
            (Ok(_), Some(_)) => {
                let problem =
                    "expected the filter to refuse the configuration, but it took it".to_owned();
                vec![CaseResult::new("configuration is refused", Some(problem))]
            }
            (Err(failure), None) => {
                let cause = failure
                    .fault
                    .map_or("the filter refused it".to_owned(), |fault| fault.to_string());
                let problem = format!(
                    "expected a configuration that works, but {cause}\n{}",
                    log_text(&failure.log)
                );
                vec![CaseResult::new("configuration is taken", Some(problem))]
            }
            (Ok(vm), None) => self.run_cases(vm),
        })
    }

    fn run_cases(&self, vm: Vm) -> Vec<CaseResult> {
        let mut replay = Replay {
            scenario_ns: self.settings.now_ns,
            vm,
            collector: Collector::default(),
            captures: Captures::default(),
            instructions: Instructions::default(),
        };
        let mut broken: Option<String> = None;
        let cases = self.scenario.cases.iter().flatten();
        let results = cases.map(|case| {
            if let Some(earlier) = &broken {
                let problem = format!("not run: the module trapped in the case `{earlier}`");
                return CaseResult::new(&case.name, Some(problem));
            }
            replay.instructions = Instructions::default();
            match replay.run(case) {
                Ok(failure) => CaseResult {
                    instructions: replay.vm.instructions().map(|_| replay.instructions),
                    ..CaseResult::new(&case.name, failure)
                },
                Err(fault) => {
                    broken = Some(case.name.clone());
                    let problem = format!("{fault}\n{}", log_text(&replay.vm.take_log()));
                    CaseResult::new(&case.name, Some(problem))
                }
            }
        });
        results.collect()
    }
}

impl CaseResult {
    fn new(name: &str, failure: Option<String>) -> Self {
        Self { name: name.to_owned(), failure, instructions: None }
    }
}

/// A VM with its collector, between two cases.
struct Replay {
    scenario_ns: u64,
    vm: Vm,
    collector: Collector,
    captures: Captures,
    instructions: Instructions,
}

/// One request that was sent, and what the filter made of it.
struct Exchange {
    request: Headers,
    response: Headers,
    stream: Stream,
    started_ns: u64,
}

impl Replay {
    /// Runs a case; gives what is wrong with it.
    fn run(&mut self, case: &Case) -> Result<Option<String>, Fault> {
        if let Some(behaviour) = &case.collector {
            self.collector.behaviour = behaviour.clone();
        }
        self.advance(case.clock_ms * NANOS_PER_MS)?;
        for _ in 1..case.repeat.get() {
            self.exchange(case)?;
            self.collector.take();
        }
        if case.repeat.get() > 1 {
            self.flush()?;
            self.collector.take();
        }
        let Some(exchange) = self.exchange(case)? else {
            return Ok(Some("expected a stream, but the filter's context is gone".into()));
        };
        if case.flush {
            self.flush()?;
        }
        let received = self.collector.take();
        let log = self.vm.take_log();
        Ok(self.compare(case, &exchange, &received, &log))
    }

    /// Sends one request and its response.
    fn exchange(&mut self, case: &Case) -> Result<Option<Exchange>, Fault> {
        let (request, response) =
            (request_message(&case.request), response_message(&case.response));
        let request_headers = request.headers.clone();
        let response_headers =
            response.as_ref().map(|response| response.headers.clone()).unwrap_or_default();
        let started_ns = self.vm.now_ns();
        let info = stream_info(case);
        let context = self.counted(|vm| vm.request(info, request))?;
        self.serve()?;
        self.advance(case.response.duration_ms * NANOS_PER_MS)?;
        if let Some(response) = response {
            self.counted(|vm| vm.response(context, response))?;
            self.serve()?;
        }
        let stream = self.counted(|vm| vm.finish(context))?;
        self.serve()?;
        Ok(stream.map(|stream| Exchange {
            request: request_headers,
            response: response_headers,
            stream,
            started_ns,
        }))
    }

    /// Moves the clock, firing the ticks and giving the answers that become due.
    fn advance(&mut self, by_ns: u64) -> Result<(), Fault> {
        let end = self.vm.now_ns().saturating_add(by_ns);
        loop {
            let tick = self.vm.next_tick_ns();
            let events = [tick, self.collector.next_answer_ns()];
            let next = events.into_iter().flatten().min().filter(|&next| next <= end);
            let Some(next) = next else {
                self.vm.advance(end - self.vm.now_ns());
                return Ok(());
            };
            self.vm.advance(next.saturating_sub(self.vm.now_ns()));
            if tick == Some(next) {
                self.tick()?;
            } else {
                self.serve()?;
            }
        }
    }

    /// Moves the clock until ticks of a second, or one tick if the period is longer, called nobody
    /// and every call is answered. A module without a tick has nothing to flush.
    fn flush(&mut self) -> Result<(), Fault> {
        let mut quiet_ns = 0;
        for _ in 0..MOST_FLUSH_STEPS {
            let now = self.vm.now_ns();
            let Some(tick) = self.vm.next_tick_ns() else {
                return Ok(());
            };
            self.vm.advance(
                self.collector.next_answer_ns().unwrap_or(tick).min(tick).saturating_sub(now),
            );
            let called = if self.vm.now_ns() >= tick { self.tick()? } else { self.serve()? };
            if called > 0 || self.collector.next_answer_ns().is_some() {
                quiet_ns = 0;
                continue;
            }
            quiet_ns += self.vm.now_ns() - now;
            if quiet_ns >= NANOS_PER_SECOND {
                return Ok(());
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<usize, Fault> {
        let before = self.vm.instructions();
        self.vm.tick()?;
        self.instructions.ticks += executed(before, self.vm.instructions());
        self.serve()
    }

    /// Answers what is due; says how many calls came.
    fn serve(&mut self) -> Result<usize, Fault> {
        let before = self.vm.instructions();
        let called = self.collector.serve(&mut self.vm)?;
        self.instructions.ticks += executed(before, self.vm.instructions());
        Ok(called)
    }

    fn counted<T>(&mut self, call: impl FnOnce(&mut Vm) -> Result<T, Fault>) -> Result<T, Fault> {
        let before = self.vm.instructions();
        let result = call(&mut self.vm)?;
        self.instructions.requests += executed(before, self.vm.instructions());
        Ok(result)
    }

    fn compare(
        &mut self,
        case: &Case,
        exchange: &Exchange,
        received: &Received,
        log: &[LogLine],
    ) -> Option<String> {
        let mut problems: Vec<String> =
            exchange.stream.interventions.iter().map(intervention_problem).collect();
        problems.extend(received.problems.iter().cloned());
        let names = case.expect.metrics.keys();
        let response = exchange.stream.response.as_ref().map(|response| response.headers.clone());
        let found = Found {
            request: (&exchange.request, &exchange.stream.request.headers),
            response: (&exchange.response, &response.unwrap_or_default()),
            spans: &received.spans,
            calls: &received.calls,
            log,
            metrics: names.map(|name| (name.as_str(), self.vm.metric(name))).collect(),
            times: Times {
                scenario_ns: self.scenario_ns,
                request_ns: exchange.started_ns,
                duration_ns: case.response.duration_ms * NANOS_PER_MS,
            },
        };
        let (expected, found) = compare::trees(&case.expect, &found);
        let expected = expected.resolve(Some(&found), &mut self.captures);
        if expected != found {
            problems.push(difference(&expected.to_yaml(), &found.to_yaml()));
        }
        if problems.is_empty() {
            return None;
        }
        problems.push(log_text(log));
        Some(problems.join("\n"))
    }
}

fn request_message(request: &Request) -> Message {
    let mut headers = Headers::new();
    headers.add(":authority", request.authority.as_str());
    headers.add(":path", request.path.as_str());
    headers.add(":method", request.method.as_str());
    headers.add(":scheme", request.scheme.as_str());
    for (name, value) in request.headers.to_headers() {
        headers.add(name, value);
    }
    Message {
        headers,
        body: request.body.clone().into_bytes(),
        trailers: request.trailers.to_headers().collect(),
    }
}

fn response_message(response: &Response) -> Option<Message> {
    if response.status == 0 {
        return None;
    }
    let mut headers = Headers::new();
    headers.add(":status", response.status.to_string());
    for (name, value) in response.headers.to_headers() {
        headers.add(name, value);
    }
    Some(Message {
        headers,
        body: response.body.clone().into_bytes(),
        trailers: response.trailers.to_headers().collect(),
    })
}

fn stream_info(case: &Case) -> StreamInfo {
    StreamInfo {
        direction: case.direction,
        protocol: case.request.protocol.clone(),
        source_address: case.request.source_address.clone(),
        destination_address: case.request.destination_address.clone(),
        upstream_address: case.response.upstream_address.clone(),
        response_code_details: case.response.code_details.clone(),
        response_flags: case.response.flags.0,
        ..StreamInfo::default()
    }
}

fn refusal_problem(failure: &StartFailure, text: &str) -> Option<String> {
    if let Some(fault) = &failure.fault {
        return Some(format!("expected the filter to refuse the configuration, but {fault}"));
    }
    let logged =
        failure.log.iter().any(|line| line.level >= LogLevel::Error && line.message.contains(text));
    (!logged).then(|| {
        format!("expected an error in the log with {text:?}, but found\n{}", log_text(&failure.log))
    })
}

fn intervention_problem(intervention: &Intervention) -> String {
    match intervention {
        Intervention::Paused { callback, action } => {
            format!("expected the request to go on, but {callback} returned the action {action}")
        }
        Intervention::LocalResponse(code) => {
            format!("expected the request to go on, but the filter answered it itself with {code}")
        }
        Intervention::Closed(_) => {
            "expected the request to go on, but the filter reset its stream".into()
        }
    }
}

fn difference(expected: &str, found: &str) -> String {
    let diff = TextDiff::from_lines(expected, found);
    let text = diff.unified_diff().context_radius(3).header("expected", "found").to_string();
    text.trim_end().to_owned()
}

fn log_text(log: &[LogLine]) -> String {
    if log.is_empty() {
        return "log: nothing".into();
    }
    let lines =
        log.iter().map(|line| format!("log: {:?}: {}", line.level, line.message).to_string());
    lines.collect::<Vec<_>>().join("\n")
}

fn executed(before: Option<u64>, after: Option<u64>) -> u64 {
    after.zip(before).map_or(0, |(after, before)| after - before)
}

/// Bounds a flush of a module that never stops calling.
const MOST_FLUSH_STEPS: u32 = 10_000;
const NANOS_PER_MS: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
