//! Whether a request is sampled, and why.

use opentelemetry::trace::TraceId;

use crate::context::Sampling;
use crate::ratio::Ratio;
use crate::rules::{Action, Rule};

/// How a request was decided. The kinds are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Force,
    Drop,
    Ignore,
    /// The parent's sampling state was followed.
    Parent,
    /// There was none to follow, and the ratio decided.
    Ratio,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Force, Self::Drop, Self::Ignore, Self::Parent, Self::Ratio];

    /// Returns the name that configuration and metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Force => "force",
            Self::Drop => "drop",
            Self::Ignore => "ignore",
            Self::Parent => "parent",
            Self::Ratio => "ratio",
        }
    }
}

/// A decision on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'c> {
    pub kind: Kind,
    pub sampled: bool,
    pub reason: Reason<'c>,
}

/// Why a span exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason<'c> {
    /// The rule of that name.
    Rule(&'c str),
    Parent,
    Ratio,
}

impl<'c> Reason<'c> {
    pub fn as_str(self) -> &'c str {
        match self {
            Self::Rule(name) => name,
            Self::Parent => "parent",
            Self::Ratio => "ratio",
        }
    }
}

/// Decides by the rule that matched, else by the parent, else by the ratio of all roots.
pub fn decide<'c>(
    rule: Option<&'c Rule>,
    parent: Sampling,
    trace_id: TraceId,
    root_ratio: Ratio,
) -> Decision<'c> {
    let by_rule = |kind, sampled| {
        let reason = Reason::Rule(rule.map_or("", |rule| rule.name.as_str()));
        Decision { kind, sampled, reason }
    };
    let ratio = match rule.map(|rule| rule.action) {
        Some(Action::Force) => return by_rule(Kind::Force, true),
        Some(Action::Drop) => return by_rule(Kind::Drop, false),
        Some(Action::Ignore) => return by_rule(Kind::Ignore, false),
        Some(Action::Parent(ratio)) => ratio,
        None => root_ratio,
    };
    match parent {
        Sampling::Deferred => {
            Decision { kind: Kind::Ratio, sampled: ratio.samples(trace_id), reason: Reason::Ratio }
        }
        stated => {
            Decision { kind: Kind::Parent, sampled: stated.is_sampled(), reason: Reason::Parent }
        }
    }
}
