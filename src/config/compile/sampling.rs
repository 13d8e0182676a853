//! `sampling`: the ratio, and the rules with their conditions.

use regex_lite::RegexBuilder;

use super::super::decode::OneOrMany;
use super::super::error::{ConfigError, quoted};
use super::super::raw::{
    RawDecision, RawDirection, RawHeaderMatch, RawMatch, RawRule, RawSampling, RawShare,
    RawStringMatch,
};
use super::{Result, header_name, non_empty};
use crate::matching::{HeaderCondition, HeaderMatch, StringMatch, StringMatchKind};
use crate::ratio::Ratio;
use crate::rules::{Action, Conditions, Direction, Rule, Rules};

pub fn sampling(raw: RawSampling) -> Result<(Ratio, Rules)> {
    let root_ratio = match raw.ratio {
        Some(share) => ratio(share).map_err(|error| error.under("ratio"))?,
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
            None => rule(raw, root_ratio),
        };
        rules.push(compiled.map_err(|error| error.at(place).under("rules"))?);
    }
    Ok((root_ratio, Rules::new(rules)))
}

fn rule(raw: RawRule, root_ratio: Ratio) -> Result<Rule> {
    let name = non_empty(raw.name).map_err(|error| error.under("name"))?;
    let own_ratio = raw.ratio.map(ratio).transpose().map_err(|error| error.under("ratio"))?;
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
    let conditions = conditions(raw.r#match).map_err(|error| error.under("match"))?;
    Ok(Rule { name, conditions, action })
}

fn conditions(raw: RawMatch) -> Result<Conditions> {
    Ok(Conditions {
        path: each(raw.path, string_match).map_err(|error| error.under("path"))?,
        method: each(raw.method, |raw| string_match(raw.0))
            .map_err(|error| error.under("method"))?,
        authority: each(raw.authority, string_match).map_err(|error| error.under("authority"))?,
        headers: each(raw.headers, header_match).map_err(|error| error.under("headers"))?,
        direction: raw.direction.map(|direction| match direction {
            RawDirection::Inbound => Direction::Inbound,
            RawDirection::Outbound => Direction::Outbound,
        }),
    })
}

/// Compiles one value or each of many, with the index in the path where there is an array.
fn each<R, T>(raw: OneOrMany<R>, compile: fn(R) -> Result<T>) -> Result<Vec<T>> {
    match raw {
        OneOrMany::One(raw) => Ok(vec![compile(raw)?]),
        OneOrMany::Many(all) => {
            let mut compiled = Vec::new();
            for (place, raw) in all.into_iter().enumerate() {
                compiled.push(compile(raw).map_err(|error| error.at(place))?);
            }
            Ok(compiled)
        }
    }
}

fn string_match(raw: RawStringMatch) -> Result<StringMatch> {
    let ignore_case = raw.ignore_case;
    let given = [
        ("exact", raw.exact),
        ("prefix", raw.prefix),
        ("suffix", raw.suffix),
        ("contains", raw.contains),
        ("regex", raw.regex),
    ];
    let one = "one of `exact`, `prefix`, `suffix`, `contains`, `regex`";
    let mut only: Option<(&str, String)> = None;
    for (kind, value) in given {
        match (value, &only) {
            (None, _) => {}
            (Some(_), Some((first, _))) => {
                return Err(ConfigError::new(one, format!("both `{first}` and `{kind}`")));
            }
            (Some(value), None) => only = Some((kind, value)),
        }
    }
    let Some((kind, value)) = only else {
        return Err(ConfigError::new(one, "none of them"));
    };
    if kind == "regex" {
        return regex(&value, ignore_case).map_err(|error| error.under("regex"));
    }
    let bytes = value.into_bytes();
    let kind = match kind {
        "exact" => StringMatchKind::Exact(bytes),
        "prefix" => StringMatchKind::Prefix(bytes),
        "suffix" => StringMatchKind::Suffix(bytes),
        _ => StringMatchKind::Contains(bytes),
    };
    Ok(StringMatch { kind, ignore_case })
}

fn regex(pattern: &str, ignore_case: bool) -> Result<StringMatch> {
    let build = |pattern: &str| {
        let mut builder = RegexBuilder::new(pattern);
        builder.case_insensitive(ignore_case).size_limit(MAX_REGEX_BYTES).build()
    };
    // On its own first: `a)|(b` would be valid between the anchors alone.
    match build(pattern).and_then(|_| build(&format!("^(?:{pattern})$"))) {
        Ok(regex) => Ok(StringMatch { kind: StringMatchKind::Regex(regex), ignore_case }),
        Err(_) => Err(ConfigError::new("a valid regular expression", quoted(pattern))),
    }
}

fn header_match(raw: RawHeaderMatch) -> Result<HeaderMatch> {
    let name = header_name(&raw.name).map_err(|error| error.under("name"))?;
    let condition = match (raw.present, raw.value) {
        (Some(_), Some(_)) => {
            return Err(ConfigError::new("`present` or a condition on the value", "both"));
        }
        (Some(present), None) => HeaderCondition::Present(present),
        (None, Some(value)) => HeaderCondition::Value(string_match(value)?),
        (None, None) => {
            let expected = "one of `exact`, `prefix`, `suffix`, `contains`, `regex`, `present`";
            return Err(ConfigError::new(expected, "none of them"));
        }
    };
    Ok(HeaderMatch { name, condition, invert: raw.invert })
}

fn ratio(share: RawShare) -> Result<Ratio> {
    Ratio::new(share.0).ok_or_else(|| ConfigError::new("a number from 0 to 1", "another"))
}

/// Largest compiled regular expression: with [`crate::matching::MAX_REGEX_INPUT_BYTES`] it bounds
/// the time that one match can take.
const MAX_REGEX_BYTES: usize = 64 * 1024;
