//! `sampling`: whether a request is traced, by rules, ratios and limits.

use serde::Deserialize;

use super::error::{ConfigError, InPath, Result, quoted};
use super::export_on::RawExportOn;
use super::limit::RawLimit;
use super::matching::{
    HeaderConditions, RawDirection, RawHeaderMatch, RawMethodMatch, RawStringMatch, port_number,
};
use super::shapes::{OneOrMany, non_empty, within};
use crate::http::digits;
use crate::sampling::conditions::Conditions;
use crate::sampling::decision::Reason;
use crate::sampling::export_on::ExportOn;
use crate::sampling::limit::Limit;
use crate::sampling::match_list::RequestMatch;
use crate::sampling::ratio::Ratio;
use crate::sampling::rules::{Action, NO_RULE, Rule, Rules, label_value};

/// The trace decision.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSampling {
    /// Share of root requests that are sampled if no rule matches, from 0 to 1.
    /// Default: `1.0`. Example: `0.05`.
    pub ratio: Option<f64>,
    /// Hex digits of the threshold of a ratio in `tracestate`, from 1 to 14. Default: `4`.
    pub precision: Option<u32>,
    /// Rules in order; the first that matches decides. Default: none.
    pub rules: Vec<RawRule>,
    /// The limit of all spans; a request over the limit is not sampled. Default: no limit.
    /// Example: `{per_second: 100}`.
    pub limit: Option<RawLimit>,
    /// Requests that were not sampled but are exported because of how they end. Default: none.
    #[serde(alias = "exportOn")]
    pub export_on: Option<RawExportOn>,
}

/// One sampling rule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    /// Name of the rule. It is the `sidespan.reason` of the spans that the rule forces, and the label `rule` of
    /// metrics, where characters other than ASCII letters, digits and `-_./` become `_`. No two rules may have
    /// the same label. The labels `none`, `parent`, `ratio` and `late` are reserved for requests that no rule
    /// decided. Required.
    /// Example: `debug-header`.
    pub name: String,
    /// The requests that the rule matches: all conditions must match; within a list, any one.
    /// Default: every request.
    #[serde(default)]
    pub r#match: RawMatch,
    /// The decision: `force`, `drop`, `ignore` or `parent`. Default: `parent`.
    pub decision: Option<RawDecision>,
    /// With `parent`: share of root requests that are sampled, from 0 to 1.
    /// Default: `sampling.ratio`.
    pub ratio: Option<f64>,
    /// With `force` and `parent`: the limit of requests that the rule samples; a request over the limit
    /// goes on to the next rule. Default: no limit.
    pub limit: Option<RawLimit>,
}

/// Conditions on a request.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMatch {
    /// Conditions on the normalized path, without the query string.
    /// Example: `[{prefix: /healthz}]`.
    pub path: OneOrMany<RawStringMatch>,
    /// Methods, as plain strings or conditions. Example: `[POST, PUT]`.
    pub method: OneOrMany<RawMethodMatch>,
    /// Conditions on the host of `:authority` (`Host`), without its port; letters match in either case.
    /// Example: `[{suffix: .example.com}]`.
    pub authority: OneOrMany<RawStringMatch>,
    /// Ports of `:authority`; without a port, 443 for `https` and else 80. Default: any.
    pub port: OneOrMany<f64>,
    /// Conditions on request headers. Example: `[{name: x-debug-trace, exact: "true"}]`.
    pub headers: OneOrMany<RawHeaderMatch>,
    /// `inbound` or `outbound`; all requests of a gateway are inbound. Default: both.
    pub direction: Option<RawDirection>,
}

/// What a rule decides.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawDecision {
    /// Sampled, whatever the parent decided; the incoming trace id is kept.
    Force,
    /// No span here and an unsampled context upstream, whatever the parent decided.
    Drop,
    /// As if the filter were absent, except for `strip`, `trust` and `egress`.
    Ignore,
    /// The parent's decision; a root is sampled with `ratio`.
    Parent,
}

/// `sampling`, compiled.
pub(super) struct Sampling {
    pub root_ratio: Ratio,
    /// The root ratio as the configuration has it.
    pub configured_root_ratio: f64,
    pub rules: Rules,
    pub limit: Option<Limit>,
    pub export_on: Option<ExportOn>,
}

impl RawSampling {
    pub(super) fn compile(self, headers: &mut HeaderConditions<'_>) -> Result<Sampling> {
        let precision = self.precision.unwrap_or(DEFAULT_PRECISION);
        let precision = within(1, MAX_PRECISION, precision).under("precision")?;
        let configured_root_ratio = self.ratio.unwrap_or(1.0);
        let root_ratio = ratio(configured_root_ratio, precision).under("ratio")?;
        let mut rules: Vec<Rule> = Vec::with_capacity(self.rules.len());
        let mut matches = Vec::with_capacity(self.rules.len());
        for (index, raw) in self.rules.into_iter().enumerate() {
            let rule = check_name(&raw.name, &rules)
                .under("name")
                .and_then(|()| raw.compile(root_ratio, precision, headers));
            let (conditions, rule) = rule.at(index).under("rules")?;
            matches.push(conditions);
            rules.push(rule);
        }
        let export_on = self.export_on.map(RawExportOn::compile).transpose().under("export_on")?;
        let limit = self.limit.map(|raw| raw.compile("all")).transpose().under("limit")?;
        let rules = Rules::new(rules, matches);
        Ok(Sampling { root_ratio, configured_root_ratio, rules, limit, export_on })
    }
}

/// Checks that no other rule has this name, or its label in metrics.
fn check_name(name: &str, rules: &[Rule]) -> Result<()> {
    let label = label_value(name);
    if [NO_RULE, Reason::Parent.as_str(), Reason::Ratio.as_str(), Reason::Late.as_str()]
        .contains(&label.as_str())
    {
        let found =
            format_args!("{}, which is reserved for requests that no rule decided", quoted(name));
        return Err(ConfigError::new("a name that is not reserved", found));
    }
    let Some(index) = rules.iter().position(|rule| label_value(&rule.name) == label) else {
        return Ok(());
    };
    let other = rules.get(index).map_or("", |rule| &rule.name);
    if other == name {
        let found = format_args!("{}, which is the name of rules[{index}]", quoted(name));
        return Err(ConfigError::new("a name that no other rule has", found));
    }
    Err(ConfigError::new(
        "a name whose label in metrics no other rule has",
        format_args!(
            "{}, whose label {} is also that of rules[{index}], {}",
            quoted(name),
            quoted(&label),
            quoted(other),
        ),
    ))
}

impl RawRule {
    fn compile(
        self,
        root_ratio: Ratio,
        precision: u32,
        headers: &mut HeaderConditions<'_>,
    ) -> Result<(RequestMatch, Rule)> {
        let name = non_empty(self.name).under("name")?;
        let own_ratio = self.ratio.map(|share| ratio(share, precision)).transpose();
        let action = match (self.decision.unwrap_or(RawDecision::Parent), own_ratio.under("ratio")?)
        {
            (RawDecision::Parent, own) => Action::Parent(own.unwrap_or(root_ratio)),
            (_, Some(_)) => {
                let expected = "no ratio (only the decision `parent` uses one)";
                return Err(ConfigError::new(expected, "one").under("ratio"));
            }
            (RawDecision::Force, None) => Action::Force,
            (RawDecision::Drop, None) => Action::Drop,
            (RawDecision::Ignore, None) => Action::Ignore,
        };
        if self.limit.is_some() && matches!(action, Action::Drop | Action::Ignore) {
            let expected = "no limit (only the decisions `force` and `parent` use one)";
            return Err(ConfigError::new(expected, "one").under("limit"));
        }
        let limit = self.limit.map(|raw| raw.compile(&format!("rule/{name}"))).transpose();
        let limit = limit.under("limit")?;
        let conditions = self.r#match.compile(headers).under("match")?;
        Ok((conditions, Rule { name, action, limit }))
    }
}

impl RawMatch {
    pub(super) fn compile(self, headers: &mut HeaderConditions<'_>) -> Result<RequestMatch> {
        // Names all keys, so that the compiler finds one that is not compiled.
        let Self { path, method, authority, port, headers: header_matches, direction } = self;
        let paths = path.compile(&mut RawStringMatch::compile_path).under("path")?;
        let conditions = Conditions {
            direction: direction.map(Into::into),
            methods: method.compile(&mut |raw| raw.0.compile()).under("method")?,
            hosts: authority.compile(&mut RawStringMatch::compile_host).under("authority")?,
            ports: port.compile(&mut port_number).under("port")?,
            headers: headers.compile(header_matches).under("headers")?,
            ..Conditions::default()
        };
        Ok(RequestMatch { paths, conditions })
    }
}

fn ratio(share: f64, precision: u32) -> Result<Ratio> {
    Ratio::new(share, precision)
        .ok_or_else(|| ConfigError::new("a number from 0 to 1", digits::float(share)))
}

/// The recommendation of OpenTelemetry's specification.
const DEFAULT_PRECISION: u32 = 4;
const MAX_PRECISION: u32 = 14;

#[cfg(test)]
mod tests;
