//! Explains what the filter does with a request: the changes to headers, the decision, and the spans
//! that it exports.

use std::fmt::Write as _;

use anyhow::ensure;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::compare::{Times, Tree, found_span};
use crate::host::{Direction, Headers, Module, Settings};
use crate::plugin::Plugin;
use crate::scenario::headers::{self, Header, HeaderValue, hex};
use crate::scenario::{Case, Request, Response, Timestamp};
use crate::session::{HeaderChange, Session, format_log};

/// Explains requests, one after the other, in one VM.
pub struct Explainer {
    session: Session,
}

/// What the filter did with a request.
#[derive(Debug)]
pub struct Explanation {
    request: HeaderChange,
    response: HeaderChange,
    /// Metrics that changed, and by how much.
    metric_changes: Vec<(String, i64)>,
    /// Exported spans.
    spans: Vec<Tree>,
}

impl Explainer {
    /// Starts a VM with a configuration, with the seed of its random ids and the time of the first
    /// request.
    pub fn start(
        module: &Module,
        plugin: Plugin,
        seed: u64,
        time: Timestamp,
    ) -> anyhow::Result<Self> {
        let settings = Settings {
            configuration: plugin.configuration,
            environment: plugin.environment,
            seed,
            now_ns: time.0,
            ..Settings::default()
        };
        let vm = module.start(&settings)?.map_err(|failure| {
            let log = format_log(&failure.log);
            anyhow::anyhow!("expected a valid configuration, but the filter refused it\n{log}")
        })?;
        Ok(Self { session: Session::new(vm)? })
    }

    /// Explains a request that is written as one line of JSON.
    pub fn explain(&mut self, line: &str) -> anyhow::Result<Explanation> {
        let case = parse_case(line)?;
        let before = self.session.metrics();
        let exchange = self.session.exchange(&case)?;
        let exchange = exchange
            .ok_or(anyhow::anyhow!("expected a stream, but the filter's context is gone"))?;
        self.session.flush()?;
        let received = self.session.take_received();
        let interventions = exchange.interventions.iter().map(ToString::to_string);
        let problems: Vec<String> = interventions.chain(received.problems).collect();
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        let times = Times {
            scenario_ns: exchange.started_ns,
            request_ns: exchange.started_ns,
            duration_ns: exchange.duration_ns,
        };
        Ok(Explanation {
            request: exchange.request,
            response: exchange.response,
            metric_changes: metric_changes(&before, &self.session.metrics()),
            spans: received.spans.iter().map(|span| found_span(span, None, times)).collect(),
        })
    }
}

impl Explanation {
    /// Formats the explanation as one line of JSON.
    pub fn to_json(&self) -> String {
        let counted = self.other_metrics().map(|(name, change)| (name.to_owned(), change.into()));
        let spans = self.spans.iter().map(Tree::to_json);
        json!({
            "decision": self.decision(),
            "rule": self.rule(),
            "over_limit": self.rules_over_limit().collect::<Vec<_>>(),
            "upstream": lines_to_json(&self.request.after),
            "client": lines_to_json(&self.response.after),
            "counted": counted.collect::<Map<_, _>>(),
            "spans": spans.collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// Formats the explanation as a few lines of text, with only those header lines that changed.
    pub fn to_text(&self) -> String {
        let header =
            |name| self.request.before.first(name).map(String::from_utf8_lossy).unwrap_or_default();
        let mut text = format!(
            "{} {}://{}{}\n",
            header(":method"),
            header(":scheme"),
            header(":authority"),
            header(":path")
        );
        let decision = self.decision().unwrap_or("none");
        let _ = match self.rule() {
            Some(rule) => writeln!(text, "decision: {decision} (rule {rule})"),
            None => writeln!(text, "decision: {decision}"),
        };
        for rule in self.rules_over_limit() {
            let _ = writeln!(text, "over its limit: rule {rule}");
        }
        text += &format_changes("upstream", &self.request);
        text += &format_changes("client", &self.response);
        for (name, change) in self.other_metrics() {
            let _ = writeln!(text, "{name}: {change:+}");
        }
        let spans = Tree::Map(vec![("spans".into(), Tree::List(self.spans.clone()))]);
        text + &spans.to_yaml()
    }

    /// Returns the reason of the decision, from the counter of decisions that changed.
    fn decision(&self) -> Option<&str> {
        self.metric_changes
            .iter()
            .find_map(|(name, _)| name.strip_prefix(DECISIONS_START)?.strip_suffix(LABELS_END))
    }

    /// Returns the rule that decided, as metrics name it.
    fn rule(&self) -> Option<&str> {
        let mut rules = self.rule_outcomes().filter(|(_, outcome)| *outcome != OVER_LIMIT);
        rules.next().map(|(rule, _)| rule).filter(|rule| *rule != NO_RULE)
    }

    /// Returns the rules that matched, but were over their limits.
    fn rules_over_limit(&self) -> impl Iterator<Item = &str> {
        self.rule_outcomes().filter(|(_, outcome)| *outcome == OVER_LIMIT).map(|(rule, _)| rule)
    }

    /// Returns rules with their outcomes, from the counters of rules that changed.
    fn rule_outcomes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metric_changes.iter().filter_map(|(name, _)| {
            let labels = name.strip_prefix(RULE_DECISIONS_START)?.strip_suffix(LABELS_END)?;
            labels.rsplit_once(OUTCOME_LABEL)
        })
    }

    /// Returns the changes of all metrics but those of decisions and of the export of spans.
    fn other_metrics(&self) -> impl Iterator<Item = (&str, i64)> {
        let metrics = self.metric_changes.iter().filter(|(name, _)| {
            !name.starts_with(DECISIONS_START)
                && !name.starts_with(RULE_DECISIONS_START)
                && !EXPORT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        });
        metrics.map(|(name, change)| (name.as_str(), *change))
    }
}

/// Returns the metrics whose values changed, and by how much.
fn metric_changes(before: &[(String, i64)], after: &[(String, i64)]) -> Vec<(String, i64)> {
    let value_before =
        |name: &str| before.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value);
    let changes = after.iter().map(|(name, value)| (name.clone(), value - value_before(name)));
    changes.filter(|(_, change)| *change != 0).collect()
}

/// Parses a line: the keys of a scenario's request, with `direction` and `response` beside them.
fn parse_case(line: &str) -> anyhow::Result<Case> {
    let mut request: Map<String, Value> = serde_json::from_str(line)?;
    let mut take = |key: &str, default: Value| request.remove(key).unwrap_or(default);
    let direction = Direction::deserialize(take("direction", "unspecified".into()))?;
    let response = Response::deserialize(take("response", json!({})))?;
    let request = Request::deserialize(Value::Object(request))?;
    Ok(Case { direction, request, response, ..Case::default() })
}

fn lines_to_json(headers: &Headers) -> Vec<Value> {
    let lines = headers::lines(headers).into_iter().map(|line| match line.value {
        HeaderValue::Text(text) => json!({"name": line.name, "value": text}),
        HeaderValue::Bytes(bytes) => json!({"name": line.name, "value_hex": hex(&bytes)}),
    });
    lines.collect()
}

/// Formats the changes to headers: removed lines with a minus, added lines with a plus.
fn format_changes(receiver: &str, change: &HeaderChange) -> String {
    let (mut removed, mut added) = (headers::lines(&change.before), headers::lines(&change.after));
    removed.retain(|line| match added.iter().position(|other| other == line) {
        Some(index) => {
            added.remove(index);
            false
        }
        None => true,
    });
    if removed.is_empty() && added.is_empty() {
        return format!("{receiver}: unchanged\n");
    }
    let format_lines = |sign: char, lines: Vec<Header>| {
        lines.into_iter().map(move |line| match line.value {
            HeaderValue::Text(text) => format!("  {sign} {}: {text}\n", line.name),
            HeaderValue::Bytes(bytes) => {
                format!("  {sign} {}: value_hex {}\n", line.name, hex(&bytes))
            }
        })
    };
    let changes: String = format_lines('-', removed).chain(format_lines('+', added)).collect();
    format!("{receiver}:\n{changes}")
}

const DECISIONS_START: &str = "sidespan_decisions_total{decision=\"";
const RULE_DECISIONS_START: &str = "sidespan_rule_decisions_total{rule=\"";
const OUTCOME_LABEL: &str = "\",outcome=\"";
const LABELS_END: &str = "\"}";
const OVER_LIMIT: &str = "limited";
/// The value of the label `rule` for requests that no rule decided.
const NO_RULE: &str = "none";
/// Prefixes of metrics about the export of spans.
const EXPORT_PREFIXES: [&str; 3] = ["sidespan_spans_", "sidespan_export", "sidespan_queue_"];
