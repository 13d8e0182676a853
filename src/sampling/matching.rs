//! Conditions on strings and headers, compiled once.

use memchr::memmem::Finder;

use super::regex::Regex;
use super::search_budget::{BudgetExceeded, SearchBudget};
use crate::http::head::Head;

/// A condition on a string of bytes.
#[derive(Debug, Clone)]
pub struct StringMatch {
    pub kind: StringMatchKind,
    /// ASCII letters match in either case.
    pub ignore_case: bool,
}

#[derive(Debug, Clone)]
pub enum StringMatchKind {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    /// Made by [`StringMatch::contains`].
    Contains(Box<Finder<'static>>),
    /// The regular expression matches the whole value.
    Regex(Box<Regex>),
}

impl StringMatch {
    /// Returns the condition that a value contains a pattern. A search takes time in proportion to the
    /// length of the value, whatever the pattern is: clients choose the value.
    pub fn contains(pattern: &[u8], ignore_case: bool) -> Self {
        // Values are searched in lower case too.
        let lower_case = ignore_case.then(|| pattern.to_ascii_lowercase());
        let pattern = Finder::new(lower_case.as_deref().unwrap_or(pattern)).into_owned();
        Self { kind: StringMatchKind::Contains(Box::new(pattern)), ignore_case }
    }

    /// Tells whether the condition matches, or that the budget is too small to find out.
    pub fn matches(&self, value: &[u8], budget: &SearchBudget) -> Result<bool, BudgetExceeded> {
        Ok(match &self.kind {
            StringMatchKind::Exact(pattern) => self.equals(value, pattern),
            StringMatchKind::Prefix(pattern) => {
                value.get(..pattern.len()).is_some_and(|start| self.equals(start, pattern))
            }
            StringMatchKind::Suffix(pattern) => value
                .len()
                .checked_sub(pattern.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|end| self.equals(end, pattern)),
            StringMatchKind::Contains(pattern) => {
                budget.spend(value.len())?;
                if self.ignore_case {
                    pattern.find(&value.to_ascii_lowercase()).is_some()
                } else {
                    pattern.find(value).is_some()
                }
            }
            StringMatchKind::Regex(regex) => {
                budget.spend(value.len())?;
                regex.is_match(value)
            }
        })
    }

    fn equals(&self, value: &[u8], pattern: &[u8]) -> bool {
        if self.ignore_case { value.eq_ignore_ascii_case(pattern) } else { value == pattern }
    }
}

/// A condition on a header. It matches if one of the header's lines does.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    pub name: String,
    pub condition: HeaderCondition,
    pub invert: bool,
}

#[derive(Debug, Clone)]
pub enum HeaderCondition {
    /// The header is present, or absent.
    Present(bool),
    Value(StringMatch),
    /// The token of this index is valid.
    Token(u32),
}

/// The valid tokens of a request: a bit for each index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValidTokens(pub u64);

impl HeaderMatch {
    /// Tells whether the condition matches, or that the budget is too small to find out. An absent header
    /// has no value that could match.
    pub fn matches(
        &self,
        head: &Head<'_>,
        tokens: ValidTokens,
        budget: &SearchBudget,
    ) -> Result<bool, BudgetExceeded> {
        let matches = match &self.condition {
            HeaderCondition::Token(index) => tokens.0 >> index & 1 == 1,
            HeaderCondition::Present(present) => head.first(&self.name).is_some() == *present,
            HeaderCondition::Value(value) => {
                any_matches(head.all(&self.name), |line| value.matches(line, budget))?
            }
        };
        Ok(matches != self.invert)
    }
}

/// Tells whether any item matches. The first one that exceeds the budget ends the search.
pub(crate) fn any_matches<T>(
    items: impl IntoIterator<Item = T>,
    mut matches: impl FnMut(T) -> Result<bool, BudgetExceeded>,
) -> Result<bool, BudgetExceeded> {
    for item in items {
        if matches(item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The most tokens of a configuration: [`ValidTokens`] has a bit for each.
pub(crate) const MAX_TOKENS: u32 = u64::BITS;

#[cfg(test)]
mod tests;
