//! Whether a request is sampled, and why.

use super::ratio::Ratio;
use super::rules::{Action, Rule};
use crate::propagation::context::Sampling;
use crate::propagation::ot::ThresholdUpdate;

/// What decided a request. Metrics count each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecisionKind {
    Force,
    Drop,
    Ignore,
    /// The parent's decision was followed.
    Parent,
    /// The parent left the decision open, or there is none: the ratio decided.
    Ratio,
}

impl DecisionKind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Force, Self::Drop, Self::Ignore, Self::Parent, Self::Ratio];

    /// Returns the name that configuration and metrics use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Force => "force",
            Self::Drop => "drop",
            Self::Ignore => "ignore",
            Self::Parent => "parent",
            Self::Ratio => "ratio",
        }
    }
}

/// The decision on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision<'c> {
    pub kind: DecisionKind,
    pub sampled: bool,
    pub reason: Reason<'c>,
    /// How `tracestate` states the decision.
    pub threshold_update: ThresholdUpdate,
}

/// Why a span exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason<'c> {
    /// The rule of that name.
    Rule(&'c str),
    Parent,
    Ratio,
    /// The request was not sampled, and is exported because of how it ended.
    Late,
}

impl<'c> Reason<'c> {
    pub(crate) fn as_str(self) -> &'c str {
        match self {
            Self::Rule(name) => name,
            Self::Parent => "parent",
            Self::Ratio => "ratio",
            Self::Late => "late",
        }
    }
}

impl Decision<'_> {
    /// Makes the request unsampled, because a limit refuses its span.
    pub(crate) fn revoke(&mut self) {
        self.sampled = false;
        self.threshold_update = ThresholdUpdate::Erase;
    }
}

/// Decides by the rule that matches, else by the parent, else by the ratio of roots. `randomness` is that
/// of the trace, 56 bits; the ratio decides by it.
pub(crate) fn decide<'c>(
    rule: Option<&'c Rule>,
    parent: Sampling,
    randomness: u64,
    root_ratio: Ratio,
) -> Decision<'c> {
    let by_rule = |kind, sampled| {
        let reason = Reason::Rule(rule.map_or("", |rule| rule.name.as_str()));
        Decision { kind, sampled, reason, threshold_update: ThresholdUpdate::Erase }
    };
    let ratio = match rule.map(|rule| rule.action) {
        Some(Action::Force) => return by_rule(DecisionKind::Force, true),
        Some(Action::Drop) => return by_rule(DecisionKind::Drop, false),
        Some(Action::Ignore) => return by_rule(DecisionKind::Ignore, false),
        Some(Action::Parent(ratio)) => ratio,
        None => root_ratio,
    };
    match parent {
        Sampling::Deferred => {
            let sampled = ratio.samples(randomness);
            // A ratio of 1 states no threshold: a trace without a threshold counts as sampled by 1.
            let threshold_update = match ratio.threshold() {
                Some(threshold @ 1..) if sampled => ThresholdUpdate::Set(threshold),
                _ => ThresholdUpdate::Erase,
            };
            Decision { kind: DecisionKind::Ratio, sampled, reason: Reason::Ratio, threshold_update }
        }
        stated => Decision {
            kind: DecisionKind::Parent,
            sampled: stated.is_sampled(),
            reason: Reason::Parent,
            threshold_update: ThresholdUpdate::Keep,
        },
    }
}
