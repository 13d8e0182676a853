//! Runs one case: sends its request, and compares the result with what the case expects.

use similar::TextDiff;

use crate::collector::Received;
use crate::compare::{self, Captures, Found, Times};
use crate::host::{LogLine, Trap};
use crate::scenario::Case;
use crate::session::{Exchange, Instructions, Session, format_log};

/// Result of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseResult {
    pub name: String,
    /// What was wrong, in one or more lines; `None` if the case passed.
    pub failure: Option<String>,
    /// `None` if the module is not metered, or the case did not run to its end.
    pub(crate) instructions: Option<Instructions>,
}

impl CaseResult {
    pub(crate) fn new(name: &str, failure: Option<String>) -> Self {
        Self { name: name.to_owned(), failure, instructions: None }
    }
}

/// Runs the cases of a scenario, one after the other, in one session.
pub(crate) struct CaseRunner {
    session: Session,
    captures: Captures,
    /// Start of the scenario, in nanoseconds since 1970.
    scenario_ns: u64,
    /// Name of the case in which the module trapped; no case runs after it.
    trapped_in: Option<String>,
}

impl CaseRunner {
    pub(crate) fn new(session: Session, scenario_ns: u64) -> Self {
        Self { session, captures: Captures::default(), scenario_ns, trapped_in: None }
    }

    /// Runs a case.
    pub(crate) fn run(&mut self, case: &Case) -> CaseResult {
        if let Some(earlier) = &self.trapped_in {
            let problem = format!("not run: the module trapped in the case `{earlier}`");
            return CaseResult::new(&case.name, Some(problem));
        }
        match self.check(case) {
            Ok(failure) => {
                let instructions = self.session.take_instructions();
                CaseResult { instructions, ..CaseResult::new(&case.name, failure) }
            }
            Err(trap) => {
                self.trapped_in = Some(case.name.clone());
                let problem = format!("{trap}\n{}", format_log(&self.session.take_log()));
                CaseResult::new(&case.name, Some(problem))
            }
        }
    }

    /// Sends the request of a case, and returns its failure.
    fn check(&mut self, case: &Case) -> Result<Option<String>, Trap> {
        let session = &mut self.session;
        if let Some(behavior) = &case.collector {
            session.set_collector_behavior(behavior.clone());
        }
        session.advance(case.clock_ms * NANOS_PER_MS)?;
        for _ in 1..case.repeat.get() {
            session.exchange(case)?;
            session.take_received();
        }
        if case.repeat.get() > 1 {
            session.flush()?;
            session.take_received();
        }
        let Some(exchange) = session.exchange(case)? else {
            return Ok(Some("expected a stream, but the filter's context is gone".into()));
        };
        if case.flush {
            session.flush()?;
        }
        let (received, log) = (session.take_received(), session.take_log());
        Ok(self.compare(case, &exchange, &received, &log))
    }

    fn compare(
        &mut self,
        case: &Case,
        exchange: &Exchange,
        received: &Received,
        log: &[LogLine],
    ) -> Option<String> {
        let mut problems: Vec<String> =
            exchange.interventions.iter().map(ToString::to_string).collect();
        problems.extend(received.problems.iter().cloned());
        let metrics = case.expect.metrics.keys();
        let found = Found {
            exchange,
            spans: &received.spans,
            calls: &received.calls,
            log,
            metrics: metrics.map(|name| (name.as_str(), self.session.metric(name))).collect(),
            times: Times {
                scenario_ns: self.scenario_ns,
                request_ns: exchange.started_ns,
                duration_ns: exchange.duration_ns,
            },
        };
        let (expected, found) = compare::trees(&case.expect, &found);
        let expected = expected.resolve(Some(&found), &mut self.captures);
        if expected != found {
            problems.push(diff(&expected.to_yaml(), &found.to_yaml()));
        }
        if problems.is_empty() {
            return None;
        }
        problems.push(format_log(log));
        Some(problems.join("\n"))
    }
}

fn diff(expected: &str, found: &str) -> String {
    let diff = TextDiff::from_lines(expected, found);
    let text = diff.unified_diff().context_radius(3).header("expected", "found").to_string();
    text.trim_end().to_owned()
}

const NANOS_PER_MS: u64 = 1_000_000;
