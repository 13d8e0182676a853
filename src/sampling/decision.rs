//! Whether a request is sampled, and why.

use crate::propagation::context::Sampling;
use crate::propagation::ot::ThresholdUpdate;
use crate::sampling::ratio::Ratio;
use crate::sampling::rules::{Action, Rule};

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
    /// What `tracestate` says of it.
    pub threshold_update: ThresholdUpdate,
}

/// Why a span exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason<'c> {
    /// The rule of that name.
    Rule(&'c str),
    Parent,
    Ratio,
    /// How the request ended, though it was not sampled.
    Late,
}

impl<'c> Reason<'c> {
    pub fn as_str(self) -> &'c str {
        match self {
            Self::Rule(name) => name,
            Self::Parent => "parent",
            Self::Ratio => "ratio",
            Self::Late => "late",
        }
    }
}

impl Decision<'_> {
    /// Takes the decision back: there are too many spans.
    pub fn over_limit(&mut self) {
        self.sampled = false;
        self.threshold_update = ThresholdUpdate::Erase;
    }
}

/// Decides by the rule that matched, else by the parent, else by the ratio of all roots.
/// `randomness` is that of the trace, 56 bits; it decides where the parent does not.
pub fn decide<'c>(
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
        Some(Action::Force) => return by_rule(Kind::Force, true),
        Some(Action::Drop) => return by_rule(Kind::Drop, false),
        Some(Action::Ignore) => return by_rule(Kind::Ignore, false),
        Some(Action::Parent(ratio)) => ratio,
        None => root_ratio,
    };
    match parent {
        Sampling::Deferred => {
            let sampled = ratio.samples(randomness);
            // What samples every trace has nothing to say: so does a trace without a threshold count.
            let threshold_update = match ratio.threshold() {
                Some(threshold @ 1..) if sampled => ThresholdUpdate::Set(threshold),
                _ => ThresholdUpdate::Erase,
            };
            Decision { kind: Kind::Ratio, sampled, reason: Reason::Ratio, threshold_update }
        }
        stated => Decision {
            kind: Kind::Parent,
            sampled: stated.is_sampled(),
            reason: Reason::Parent,
            threshold_update: ThresholdUpdate::Keep,
        },
    }
}
