//! Rules for trace contexts: which incoming contexts are trusted, and to which upstreams contexts go.

use super::conditions::{Conditions, MatchFacts};
use super::search_budget::{BudgetExceeded, SearchBudget};
use crate::http::head::Head;
use crate::propagation::{TrustAction, holds_context};

/// Decides how incoming contexts are handled, and which requests carry contexts upstream.
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    /// For requests that no rule matches.
    pub default: TrustAction,
    /// In order; the first that matches decides.
    pub rules: Vec<TrustRule>,
    /// In order; the first that matches decides. Other requests carry their contexts upstream.
    pub egress: Vec<EgressRule>,
}

/// How the contexts of some requests are handled.
#[derive(Debug, Clone)]
pub struct TrustRule {
    pub conditions: Conditions,
    pub action: TrustAction,
}

/// Whether some requests carry their contexts upstream.
#[derive(Debug, Clone)]
pub struct EgressRule {
    pub conditions: Conditions,
    /// Remove contexts and baggage.
    pub strip: bool,
}

impl TrustPolicy {
    /// Tells whether every incoming context is followed.
    pub fn accepts_all(&self) -> bool {
        self.default == TrustAction::Accept && self.rules.is_empty()
    }

    /// Returns the conditions of each rule.
    pub fn conditions(&self) -> impl Iterator<Item = &Conditions> {
        self.rules.iter().map(|rule| &rule.conditions)
    }

    /// Tells whether a rule needs the client's address. Without a context there is nothing to trust.
    pub fn needs_source_address(&self, head: &Head<'_>) -> bool {
        self.conditions().any(Conditions::needs_source_address) && head.names().any(holds_context)
    }

    /// Returns how the context of a request is handled. The trace restarts if a condition exceeds the
    /// budget: clients must not gain trust by long headers.
    #[inline(never)]
    pub fn action(
        &self,
        head: &Head<'_>,
        facts: MatchFacts<'_>,
        budget: &SearchBudget,
    ) -> TrustAction {
        let first =
            self.rules.iter().find_map(|rule| match rule.conditions.matches(head, facts, budget) {
                Ok(matches) => matches.then_some(rule.action),
                Err(BudgetExceeded) => Some(TrustAction::Restart),
            });
        first.unwrap_or(self.default)
    }

    /// Tells whether a request may carry contexts and baggage to its authority. It may not if a
    /// condition exceeds the budget.
    pub fn may_propagate_to(
        &self,
        head: &Head<'_>,
        facts: MatchFacts<'_>,
        budget: &SearchBudget,
    ) -> bool {
        let strip = self.egress.iter().find_map(|rule| {
            match rule.conditions.matches(head, facts, budget) {
                Ok(matches) => matches.then_some(rule.strip),
                Err(BudgetExceeded) => Some(true),
            }
        });
        strip != Some(true)
    }
}
