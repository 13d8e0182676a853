//! `sampling`: ratios, limits, rules, and what is exported late.

use super::super::error::{ConfigError, quoted};
use super::super::raw::{
    RawDecision, RawDirection, RawExportOn, RawLimit, RawMatch, RawRule, RawSampling, RawShare,
};
use super::matching::{Headers, each, string_match};
use super::{Result, non_empty};
use crate::late::ExportOn;
use crate::limit::Limit;
use crate::ratio::Ratio;
use crate::response_flags;
use crate::rules::{Action, Conditions, Direction, Rule, Rules};

/// `sampling`, compiled.
pub struct Sampling {
    pub root_ratio: Ratio,
    pub rules: Rules,
    pub limit: Option<Limit>,
    pub export_on: Option<ExportOn>,
}

pub fn sampling(raw: RawSampling, headers: &mut Headers<'_>) -> Result<Sampling> {
    let precision = raw.precision.unwrap_or(DEFAULT_PRECISION);
    if !(1..=MAX_PRECISION).contains(&precision) {
        let error = ConfigError::new("a whole number from 1 to 14", precision.to_string());
        return Err(error.under("precision"));
    }
    let root_ratio = match raw.ratio {
        Some(share) => ratio(share, precision).map_err(|error| error.under("ratio"))?,
        None => Ratio::ALWAYS,
    };
    let mut rules: Vec<Rule> = Vec::with_capacity(raw.rules.len());
    for (place, raw) in raw.rules.into_iter().enumerate() {
        let known = rules.iter().position(|rule| rule.name == raw.name);
        let compiled = match known {
            Some(first) => Err(ConfigError::new(
                "a name that no other rule has",
                format!("{}, which is the name of rules[{first}]", quoted(&raw.name)),
            )
            .under("name")),
            None => rule(raw, root_ratio, precision, headers),
        };
        rules.push(compiled.map_err(|error| error.at(place).under("rules"))?);
    }
    let export_on = match raw.export_on {
        Some(raw) => Some(export_on(raw).map_err(|error| error.under("export_on"))?),
        None => None,
    };
    let limit = limit(raw.limit, "all", "")?;
    Ok(Sampling { root_ratio, rules: Rules::new(rules), limit, export_on })
}

fn rule(
    raw: RawRule,
    root_ratio: Ratio,
    precision: u32,
    headers: &mut Headers<'_>,
) -> Result<Rule> {
    let name = non_empty(raw.name).map_err(|error| error.under("name"))?;
    let own_ratio = match raw.ratio {
        Some(share) => Some(ratio(share, precision).map_err(|error| error.under("ratio"))?),
        None => None,
    };
    let action = match (raw.decision.unwrap_or(RawDecision::Parent), own_ratio) {
        (RawDecision::Parent, own) => Action::Parent(own.unwrap_or(root_ratio)),
        (_, Some(_)) => {
            let expected = "no ratio, since it goes with the decision `parent` alone";
            return Err(ConfigError::new(expected, "one").under("ratio"));
        }
        (RawDecision::Force, None) => Action::Force,
        (RawDecision::Drop, None) => Action::Drop,
        (RawDecision::Ignore, None) => Action::Ignore,
    };
    if raw.limit.is_some() && matches!(action, Action::Drop | Action::Ignore) {
        let expected = "no limit, since it goes with the decisions `force` and `parent`";
        return Err(ConfigError::new(expected, "one").under("limit"));
    }
    let limit = limit(raw.limit, "rule/", &name)?;
    let conditions = conditions(raw.r#match, headers).map_err(|error| error.under("match"))?;
    Ok(Rule { name, conditions, action, limit })
}

fn conditions(raw: RawMatch, headers: &mut Headers<'_>) -> Result<Conditions> {
    let mut string = string_match;
    Ok(Conditions {
        path: each(raw.path, &mut string).map_err(|error| error.under("path"))?,
        method: each(raw.method, &mut |raw| string_match(raw.0))
            .map_err(|error| error.under("method"))?,
        authority: each(raw.authority, &mut string).map_err(|error| error.under("authority"))?,
        headers: headers.each(raw.headers).map_err(|error| error.under("headers"))?,
        direction: raw.direction.map(direction),
    })
}

pub fn direction(raw: RawDirection) -> Direction {
    match raw {
        RawDirection::Inbound => Direction::Inbound,
        RawDirection::Outbound => Direction::Outbound,
    }
}

fn export_on(raw: RawExportOn) -> Result<ExportOn> {
    let mut compiled = ExportOn {
        status: each(raw.status, &mut |raw| Ok((raw.first, raw.last)))
            .map_err(|error| error.under("status"))?,
        grpc_status: each(raw.grpc_status, &mut grpc_status)
            .map_err(|error| error.under("grpc_status"))?,
        flags: 0,
        resets: raw.resets,
        min_duration_nanos: raw.min_duration_ms.map(|millis| u64::from(millis) * 1_000_000),
        limit: limit(raw.limit, "export_on", "")?,
        max_held_bytes: raw.max_held_bytes.unwrap_or(DEFAULT_MAX_HELD_BYTES) as usize,
    };
    let flags = each(raw.response_flags, &mut |name: String| {
        let expected = "the short name of one of Envoy's response flags";
        response_flags::bit(&name).ok_or_else(|| ConfigError::new(expected, quoted(&name)))
    });
    for flag in flags.map_err(|error| error.under("response_flags"))? {
        compiled.flags |= flag;
    }
    if compiled.status.is_empty()
        && compiled.grpc_status.is_empty()
        && compiled.flags == 0
        && !compiled.resets
        && compiled.min_duration_nanos.is_none()
    {
        let expected = "one of `status`, `grpc_status`, `response_flags`, `resets`, \
                        `min_duration_ms`";
        return Err(ConfigError::new(expected, "none of them"));
    }
    Ok(compiled)
}

fn grpc_status(code: u32) -> Result<u64> {
    if code > MAX_GRPC_STATUS {
        return Err(ConfigError::new("a whole number from 0 to 16", code.to_string()));
    }
    Ok(code.into())
}

/// Compiles a limit. What it is for names it among those of the same Envoy.
fn limit(raw: Option<RawLimit>, kind: &str, name: &str) -> Result<Option<Limit>> {
    let Some(raw) = raw else {
        return Ok(None);
    };
    let burst = raw.burst.unwrap_or(raw.per_second.0.ceil() as u32);
    match Limit::new(&[kind, name].concat(), raw.per_second.0, burst) {
        Some(limit) => Ok(Some(limit)),
        None => {
            let expected = "a whole number from 1 to 1000000";
            Err(ConfigError::new(expected, burst.to_string()).under("burst").under("limit"))
        }
    }
}

fn ratio(share: RawShare, precision: u32) -> Result<Ratio> {
    Ratio::new(share.0, precision)
        .ok_or_else(|| ConfigError::new("a number from 0 to 1", "another"))
}

/// What OpenTelemetry's specification recommends.
const DEFAULT_PRECISION: u32 = 4;
const MAX_PRECISION: u32 = 14;
const DEFAULT_MAX_HELD_BYTES: u32 = 8 << 20;
const MAX_GRPC_STATUS: u32 = 16;
