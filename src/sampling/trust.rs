//! Whose contexts are followed, and to whom they are passed on.

use crate::http::head::Head;
use crate::propagation::{Trust, holds_context};
use crate::sampling::cidr::Cidr;
use crate::sampling::matching::{Exceeded, HeaderMatch, SearchBudget, any};
use crate::sampling::rules::{Authority, Direction, Facts};

/// Whose contexts are followed, and to whom they are passed on.
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    /// For requests that no rule is for.
    pub default: Trust,
    /// In order; the first whose conditions hold decides.
    pub rules: Vec<TrustRule>,
    /// In order; the first whose conditions hold decides.
    pub egress: Vec<EgressRule>,
}

impl TrustPolicy {
    /// Tells whether a rule needs the direction.
    pub fn needs_direction(&self) -> bool {
        self.rules.iter().any(|rule| rule.direction.is_some())
    }

    /// Tells whether a rule needs the client's address for this request, which has a context.
    pub fn needs_source_address(&self, head: &Head<'_>) -> bool {
        let by_address = |rule: &TrustRule| !rule.source_ranges.is_empty();
        self.rules.iter().any(by_address) && head.names().any(holds_context)
    }

    /// Tells whether every incoming context is followed.
    pub fn accepts_all(&self) -> bool {
        self.default == Trust::Accept && self.rules.is_empty()
    }

    /// Returns how the context of a request is handled. A request that makes the conditions exceed the
    /// budget is not trusted.
    #[inline(never)]
    pub fn trust(
        &self,
        head: &Head<'_>,
        facts: Facts,
        source_address: &[u8],
        budget: &SearchBudget,
    ) -> Trust {
        let first = self.rules.iter().find_map(|rule| {
            match rule.holds(head, facts, source_address, budget) {
                Ok(holds) => holds.then_some(rule.trust),
                Err(Exceeded) => Some(Trust::Restart),
            }
        });
        first.unwrap_or(self.default)
    }

    /// Tells whether contexts and baggage may go to the authority of this request. They may not where
    /// it makes the conditions exceed the budget.
    pub fn may_propagate_to(&self, head: &Head<'_>, budget: &SearchBudget) -> bool {
        let first = self.egress.iter().find_map(|rule| match rule.authority.holds(head, budget) {
            Ok(holds) => holds.then_some(rule.strip),
            Err(Exceeded) => Some(true),
        });
        first != Some(true)
    }
}

/// Trust in some requests.
#[derive(Debug, Clone)]
pub struct TrustRule {
    pub direction: Option<Direction>,
    /// Empty where any address will do.
    pub source_ranges: Vec<Cidr>,
    pub headers: Vec<HeaderMatch>,
    pub trust: Trust,
}

/// What leaves with requests to some authorities.
#[derive(Debug, Clone)]
pub struct EgressRule {
    pub authority: Authority,
    pub strip: bool,
}

impl TrustRule {
    /// Tells whether all conditions hold. An address that is not known is in no range.
    pub fn holds(
        &self,
        head: &Head<'_>,
        facts: Facts,
        source_address: &[u8],
        budget: &SearchBudget,
    ) -> Result<bool, Exceeded> {
        Ok((self.direction.is_none() || self.direction == facts.direction)
            && (self.source_ranges.is_empty()
                || self.source_ranges.iter().any(|range| range.holds(source_address)))
            && (self.headers.is_empty()
                || any(&self.headers, |it| it.matches(head, facts.tokens, budget))?))
    }
}
