//! Says what the filter does with a request: what goes upstream, why, and the span that it exports.

use std::fmt::Write as _;

use anyhow::ensure;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::headers::{self, Header, HeaderValue, hex};
use crate::host::{Direction, Headers, Module, Settings, Vm};
use crate::plugin::Plugin;
use crate::report::log_text;
use crate::scenario::{Case, Request, Response, Timestamp};
use crate::session::Session;
use crate::tree::Tree;

/// Explains requests, one after the other, through one VM.
pub struct Explainer {
    session: Session,
}

/// What the filter made of a request.
#[derive(Debug, Default)]
pub struct Explanation {
    /// The request's headers before and after the filter.
    pub upstream: (Headers, Headers),
    /// The response's, likewise.
    pub client: (Headers, Headers),
    /// Metrics that changed, by how much.
    pub counted: Vec<(String, i64)>,
    /// Spans that were exported.
    pub spans: Vec<Tree>,
    /// What a filter must not do.
    pub problems: Vec<String>,
}

impl Explainer {
    /// Starts a VM with a configuration. `seed` is that of the ids, `time` that of the first request.
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
        let started: Result<Vm, _> = module.start(&settings)?;
        let vm = started.map_err(|failure| {
            let log = log_text(&failure.log);
            anyhow::anyhow!("expected a configuration that works, but the filter refused it\n{log}")
        })?;
        let session = Session::new(vm, settings.now_ns)?;
        Ok(Self { session })
    }

    /// Explains the request of one line of JSON.
    pub fn explain(&mut self, line: &str) -> anyhow::Result<Explanation> {
        let case = case(line)?;
        let explanation =
            self.session.explain(&case).map_err(|fault| anyhow::anyhow!("{fault}"))?;
        ensure!(explanation.problems.is_empty(), "{}", explanation.problems.join("\n"));
        Ok(explanation)
    }
}

impl Explanation {
    /// One line of JSON.
    pub fn to_json(&self) -> String {
        let counted = self.others().map(|(name, by)| (name.to_owned(), by.into()));
        let spans = self.spans.iter().map(Tree::to_json);
        json!({
            "decision": self.decision(),
            "rule": self.rule(),
            "over_limit": self.over_limit().collect::<Vec<_>>(),
            "upstream": lines(&self.upstream.1),
            "client": lines(&self.client.1),
            "counted": counted.collect::<Map<_, _>>(),
            "spans": spans.collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// A few lines for a person.
    pub fn to_text(&self) -> String {
        let (sent, _) = &self.upstream;
        let part = |name| sent.first(name).map(String::from_utf8_lossy).unwrap_or_default();
        let mut text = format!(
            "{} {}://{}{}\n",
            part(":method"),
            part(":scheme"),
            part(":authority"),
            part(":path")
        );
        let decision = self.decision().unwrap_or("none");
        let _ = match self.rule() {
            Some(rule) => writeln!(text, "decision: {decision} (rule {rule})"),
            None => writeln!(text, "decision: {decision}"),
        };
        for rule in self.over_limit() {
            let _ = writeln!(text, "over its limit: rule {rule}");
        }
        text += &changes("upstream", &self.upstream);
        text += &changes("client", &self.client);
        for (name, by) in self.others() {
            let _ = writeln!(text, "{name}: {by:+}");
        }
        let spans = Tree::Map(vec![("spans".into(), Tree::List(self.spans.clone()))]);
        text + &spans.to_yaml()
    }

    /// The kind of the decision: the counter of decisions that moved.
    fn decision(&self) -> Option<&str> {
        self.counted.iter().find_map(|(name, _)| name.strip_prefix(DECISIONS)?.strip_suffix(END))
    }

    /// The rule that decided, as metrics name it.
    fn rule(&self) -> Option<&str> {
        let decided = self.by_rule().find(|(_, outcome)| *outcome != OVER_LIMIT);
        decided.map(|(rule, _)| rule).filter(|rule| *rule != NO_RULE)
    }

    /// The rules that would have decided, and were over their limits.
    fn over_limit(&self) -> impl Iterator<Item = &str> {
        self.by_rule().filter(|(_, outcome)| *outcome == OVER_LIMIT).map(|(rule, _)| rule)
    }

    /// Rules and what became of the request by each.
    fn by_rule(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.counted.iter().map(|(name, _)| name.as_str());
        names.filter_map(|name| name.strip_prefix(BY_RULE)?.strip_suffix(END)?.rsplit_once(OUTCOME))
    }

    /// What was counted beside the decision and the way of the spans.
    fn others(&self) -> impl Iterator<Item = (&str, i64)> {
        let others = self.counted.iter().filter(|(name, _)| {
            !name.starts_with(DECISIONS)
                && !name.starts_with(BY_RULE)
                && !SPAN_BOOKS.iter().any(|prefix| name.starts_with(prefix))
        });
        others.map(|(name, by)| (name.as_str(), *by))
    }
}

/// Metrics that are not what they were, and by how much.
pub fn changed(before: &[(String, i64)], after: &[(String, i64)]) -> Vec<(String, i64)> {
    let was =
        |name: &str| before.iter().find(|(known, _)| known == name).map_or(0, |(_, was)| *was);
    let moved = after.iter().map(|(name, value)| (name.clone(), value - was(name)));
    moved.filter(|(_, by)| *by != 0).collect()
}

/// A case out of a line: `direction`, `response` and the keys of a scenario's request.
fn case(line: &str) -> anyhow::Result<Case> {
    let mut request: Map<String, Value> = serde_json::from_str(line)?;
    let mut take = |key: &str, default: Value| request.remove(key).unwrap_or(default);
    let direction = Direction::deserialize(take("direction", "unspecified".into()))?;
    let response = Response::deserialize(take("response", json!({})))?;
    let request = Request::deserialize(Value::Object(request))?;
    Ok(Case { direction, request, response, ..Case::default() })
}

fn lines(headers: &Headers) -> Vec<Value> {
    let lines = headers::show(headers).into_iter().map(|line| match line.value {
        HeaderValue::Text(text) => json!({"name": line.name, "value": text}),
        HeaderValue::Bytes(bytes) => json!({"name": line.name, "value_hex": hex(&bytes)}),
    });
    lines.collect()
}

/// Lines that went with a minus, lines that came with a plus.
fn changes(who: &str, (before, after): &(Headers, Headers)) -> String {
    let (before, mut came) = (headers::show(before), headers::show(after));
    let mut gone = before;
    gone.retain(|line| match came.iter().position(|other| other == line) {
        Some(same) => {
            came.remove(same);
            false
        }
        None => true,
    });
    if gone.is_empty() && came.is_empty() {
        return format!("{who}: unchanged\n");
    }
    let marked = |mark: char, lines: Vec<Header>| {
        lines.into_iter().map(move |line| match line.value {
            HeaderValue::Text(text) => format!("  {mark} {}: {text}\n", line.name),
            HeaderValue::Bytes(bytes) => {
                format!("  {mark} {}: value_hex {}\n", line.name, hex(&bytes))
            }
        })
    };
    let changes: String = marked('-', gone).chain(marked('+', came)).collect();
    format!("{who}:\n{changes}")
}

const DECISIONS: &str = "sidespan_decisions_total{decision=\"";
const BY_RULE: &str = "sidespan_rule_decisions_total{rule=\"";
const OUTCOME: &str = "\",outcome=\"";
const END: &str = "\"}";
const OVER_LIMIT: &str = "limited";
/// Stands for the rule of requests that none decided.
const NO_RULE: &str = "none";
/// Of the way that spans go: what the metrics' names begin with.
const SPAN_BOOKS: [&str; 3] = ["sidespan_spans_", "sidespan_export", "sidespan_queue_"];
