//! A VM and its collector in virtual time: sends the request of a case, moves the clock, and
//! compares what came of it, or explains it.

use similar::TextDiff;

use crate::captures::Captures;
use crate::collector::{Collector, Received};
use crate::compare::{self, Found, Times};
use crate::explain::{Explanation, changed};
use crate::host::{Fault, Headers, Intervention, LogLine, Stream, Vm};
use crate::messages::{request_message, response_message, stream_info};
use crate::replay::Instructions;
use crate::report::log_text;
use crate::scenario::Case;

/// A VM with its collector, between two cases.
pub struct Session {
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

impl Session {
    /// `scenario_ns` is when the scenario starts. A tick that is due within a millisecond comes before
    /// all requests, as in Envoy: by it the filter counts that its configuration is in use.
    pub fn new(mut vm: Vm, scenario_ns: u64) -> Result<Self, Fault> {
        if vm.next_tick_ns().is_some_and(|due_ns| due_ns <= vm.now_ns() + NANOS_PER_MS) {
            vm.tick()?;
        }
        Ok(Self {
            scenario_ns,
            vm,
            collector: Collector::default(),
            captures: Captures::default(),
            instructions: Instructions::default(),
        })
    }

    /// Runs a case; gives what is wrong with it.
    pub fn run(&mut self, case: &Case) -> Result<Option<String>, Fault> {
        self.instructions = Instructions::default();
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

    /// Runs the request of a case alone; says what the filter made of it.
    pub fn explain(&mut self, case: &Case) -> Result<Explanation, Fault> {
        let before = self.metrics();
        let exchange = self.exchange(case)?;
        self.flush()?;
        let received = self.collector.take();
        let counted = changed(&before, &self.metrics());
        Ok(exchange.map_or_else(Explanation::default, |exchange| {
            let times = Times {
                scenario_ns: exchange.started_ns,
                request_ns: exchange.started_ns,
                duration_ns: case.response.duration_ms * NANOS_PER_MS,
            };
            let response = exchange.stream.response.unwrap_or_default();
            let interventions = exchange.stream.interventions.iter().map(intervention_problem);
            Explanation {
                problems: interventions.chain(received.problems).collect(),
                upstream: (exchange.request, exchange.stream.request.headers),
                client: (exchange.response, response.headers),
                counted,
                spans: received
                    .spans
                    .iter()
                    .map(|span| compare::found_span(span, None, times))
                    .collect(),
            }
        }))
    }

    fn metrics(&self) -> Vec<(String, i64)> {
        let names = self.vm.metric_names();
        names.map(|name| (name.to_owned(), self.vm.metric(name).unwrap_or_default())).collect()
    }

    /// What the last case executed; `None` where the module is not metered.
    pub fn instructions(&self) -> Option<Instructions> {
        self.vm.instructions().map(|_| self.instructions)
    }

    /// Takes what was logged since the last case.
    pub fn take_log(&mut self) -> Vec<LogLine> {
        self.vm.take_log()
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

fn executed(before: Option<u64>, after: Option<u64>) -> u64 {
    after.zip(before).map_or(0, |(after, before)| after - before)
}

/// Bounds a flush of a module that never stops calling.
const MOST_FLUSH_STEPS: u32 = 10_000;
const NANOS_PER_MS: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
