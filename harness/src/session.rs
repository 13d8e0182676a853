//! A VM and its collector in virtual time: sends requests, and moves the clock with all ticks and
//! responses that become due.

use crate::collector::{Collector, Received};
use crate::host::{Headers, Intervention, LogLine, Message, Stream, Trap, Vm};
use crate::scenario::{Case, CollectorBehavior};

/// A VM with its collector, between two requests.
pub(crate) struct Session {
    vm: Vm,
    collector: Collector,
    instructions: Instructions,
}

/// A request that went through the filter, and its response.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) request: HeaderChange,
    pub(crate) response: HeaderChange,
    pub(crate) interventions: Vec<Intervention>,
    /// Start of the request, in nanoseconds since 1970.
    pub(crate) started_ns: u64,
    pub(crate) duration_ns: u64,
}

/// The headers of a message before and after the filter.
#[derive(Debug, Default)]
pub(crate) struct HeaderChange {
    pub(crate) before: Headers,
    pub(crate) after: Headers,
}

/// WebAssembly instructions that were executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Instructions {
    /// In the callbacks of requests.
    pub(crate) requests: u64,
    /// In ticks and responses to calls.
    pub(crate) ticks: u64,
}

impl Session {
    /// Starts a session. A tick that is due within a millisecond is fired before all requests, as in Envoy.
    /// On this tick, the filter counts that its configuration is in use.
    pub(crate) fn new(mut vm: Vm) -> Result<Self, Trap> {
        if vm.next_tick_ns().is_some_and(|due_ns| due_ns <= vm.now_ns() + NANOS_PER_MS) {
            vm.tick()?;
        }
        Ok(Self { vm, collector: Collector::default(), instructions: Instructions::default() })
    }

    /// Sends the request of a case and its response. `None` if the filter's context is gone.
    pub(crate) fn exchange(&mut self, case: &Case) -> Result<Option<Exchange>, Trap> {
        let (request, response) = (case.request.to_message(), case.response.to_message());
        let request_before = request.headers.clone();
        let response_before = headers_of(response.as_ref());
        let started_ns = self.vm.now_ns();
        let duration_ns = case.response.duration_ms * NANOS_PER_MS;
        let context = self.count_instructions(|vm| vm.request(case.stream_info(), request))?;
        self.serve()?;
        self.advance(duration_ns)?;
        if let Some(response) = response {
            self.count_instructions(|vm| vm.response(context, response))?;
            self.serve()?;
        }
        let stream = self.count_instructions(|vm| vm.finish(context))?;
        self.serve()?;
        Ok(stream.map(|Stream { request, response, interventions, .. }| Exchange {
            request: HeaderChange { before: request_before, after: request.headers },
            response: HeaderChange {
                before: response_before,
                after: headers_of(response.as_ref()),
            },
            interventions,
            started_ns,
            duration_ns,
        }))
    }

    /// Moves the clock. Ticks and responses that become due come in their order.
    pub(crate) fn advance(&mut self, by_ns: u64) -> Result<(), Trap> {
        let end = self.vm.now_ns().saturating_add(by_ns);
        loop {
            let tick = self.vm.next_tick_ns();
            let events = [tick, self.collector.next_response_ns()];
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

    /// Moves the clock until the filter has exported everything: every call has a response, and for at least
    /// one second no tick made a call. A module without ticks has nothing to flush.
    pub(crate) fn flush(&mut self) -> Result<(), Trap> {
        let mut quiet_ns = 0;
        for _ in 0..MAX_FLUSH_STEPS {
            let now = self.vm.now_ns();
            let Some(tick) = self.vm.next_tick_ns() else {
                return Ok(());
            };
            let next = self.collector.next_response_ns().unwrap_or(tick).min(tick);
            self.vm.advance(next.saturating_sub(now));
            let calls = if self.vm.now_ns() >= tick { self.tick()? } else { self.serve()? };
            if calls > 0 || self.collector.next_response_ns().is_some() {
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

    /// Sets how the collector responds to calls from now on.
    pub(crate) fn set_collector_behavior(&mut self, behavior: CollectorBehavior) {
        self.collector.behavior = behavior;
    }

    /// Takes the calls and spans that the collector received since the last time.
    pub(crate) fn take_received(&mut self) -> Received {
        self.collector.take()
    }

    /// Takes the log since the last time.
    pub(crate) fn take_log(&mut self) -> Vec<LogLine> {
        self.vm.take_log()
    }

    /// Takes the instructions executed since the last time; `None` if the module is not metered.
    pub(crate) fn take_instructions(&mut self) -> Option<Instructions> {
        self.vm.instructions().map(|_| std::mem::take(&mut self.instructions))
    }

    /// Returns the value of a metric; `None` if the filter did not define it.
    pub(crate) fn metric(&self, name: &str) -> Option<i64> {
        self.vm.metric(name)
    }

    /// Returns the names and values of all metrics.
    pub(crate) fn metrics(&self) -> Vec<(String, i64)> {
        let names = self.vm.metric_names();
        names.map(|name| (name.to_owned(), self.vm.metric(name).unwrap_or_default())).collect()
    }

    /// Fires a tick, and returns how many calls it made.
    fn tick(&mut self) -> Result<usize, Trap> {
        let before = self.vm.instructions();
        self.vm.tick()?;
        self.instructions.ticks += executed(before, self.vm.instructions());
        self.serve()
    }

    /// Hands new calls to the collector and its due responses to the filter. Returns how many calls
    /// were new.
    fn serve(&mut self) -> Result<usize, Trap> {
        let before = self.vm.instructions();
        let calls = self.collector.serve(&mut self.vm)?;
        self.instructions.ticks += executed(before, self.vm.instructions());
        Ok(calls)
    }

    /// Runs callbacks of a request, and counts their instructions.
    fn count_instructions<T>(
        &mut self,
        callbacks: impl FnOnce(&mut Vm) -> Result<T, Trap>,
    ) -> Result<T, Trap> {
        let before = self.vm.instructions();
        let result = callbacks(&mut self.vm)?;
        self.instructions.requests += executed(before, self.vm.instructions());
        Ok(result)
    }
}

/// Formats a log for the description of a failure.
pub(crate) fn format_log(log: &[LogLine]) -> String {
    if log.is_empty() {
        return "log: empty".into();
    }
    let lines: Vec<_> = log.iter().map(|line| format!("log: {line}")).collect();
    lines.join("\n")
}

fn headers_of(message: Option<&Message>) -> Headers {
    message.map(|message| message.headers.clone()).unwrap_or_default()
}

fn executed(before: Option<u64>, after: Option<u64>) -> u64 {
    after.zip(before).map_or(0, |(after, before)| after - before)
}

/// Bounds the flush of a module that never stops making calls.
const MAX_FLUSH_STEPS: u32 = 10_000;
const NANOS_PER_MS: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
