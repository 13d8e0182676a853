//! Sampling rules: the first rule whose conditions all match decides.

use super::conditions::{Conditions, MatchFacts};
use super::limit::Limit;
use super::match_list::{MatchList, RequestMatch};
use super::ratio::Ratio;
use super::search_budget::SearchBudget;
use crate::http::head::Head;

/// A sampling rule.
#[derive(Debug, Clone)]
pub struct Rule {
    pub name: String,
    pub action: Action,
    /// The limit of requests that the rule samples. A request over the limit goes on to the next rule.
    pub limit: Option<Limit>,
}

/// What a rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Force,
    Drop,
    Ignore,
    /// Follow the parent's decision; sample requests without one by this ratio.
    Parent(Ratio),
}

/// Sampling rules in order.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    matches: MatchList,
}

impl Rules {
    /// Returns the rules. `matches` has the conditions of each rule, in the same order.
    pub fn new(rules: Vec<Rule>, matches: Vec<RequestMatch>) -> Self {
        Self { rules, matches: MatchList::new(matches) }
    }

    /// Returns the first rule that matches and its index, which is at least `from`: see
    /// [`MatchList::first`].
    pub fn first_match(
        &self,
        head: &Head<'_>,
        facts: MatchFacts<'_>,
        budget: &SearchBudget,
        from: usize,
    ) -> Option<(usize, &Rule)> {
        let index = self.matches.first(head, facts, budget, from)?;
        self.rules.get(index).map(|rule| (index, rule))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// Returns the conditions of each rule, without those on the path.
    pub fn conditions(&self) -> impl Iterator<Item = &Conditions> {
        self.matches.conditions()
    }
}

/// Returns the label value of a rule in metrics: its name, with `_` for every character that is not
/// allowed there.
pub(crate) fn label_value(rule: &str) -> String {
    let is_allowed = |char: char| char.is_ascii_alphanumeric() || "-_./".contains(char);
    rule.chars().map(|char| if is_allowed(char) { char } else { '_' }).collect()
}

/// The label value of requests that no rule decided.
pub(crate) const NO_RULE: &str = "none";
