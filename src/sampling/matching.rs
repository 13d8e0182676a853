//! Conditions on strings and headers, compiled once.

use std::cell::Cell;

use memchr::memmem::Finder;

use crate::http::head::Head;
use crate::sampling::regex::Regex;

/// One condition on a string of bytes.
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
    /// See [`StringMatch::contains`].
    Contains(Box<Finder<'static>>),
    /// The whole value matches.
    Regex(Box<Regex>),
}

impl StringMatch {
    /// Returns the condition that a value contains a pattern. Searching takes time in proportion to
    /// the length of the value, whatever the two are: clients choose the value.
    pub fn contains(pattern: &[u8], ignore_case: bool) -> Self {
        // Values are searched in lower case too.
        let lower_case = ignore_case.then(|| pattern.to_ascii_lowercase());
        let pattern = Finder::new(lower_case.as_deref().unwrap_or(pattern)).into_owned();
        Self { kind: StringMatchKind::Contains(Box::new(pattern)), ignore_case }
    }

    /// Tells whether the condition holds, or that the budget is too small to find out.
    pub fn matches(&self, value: &[u8], budget: &SearchBudget) -> Result<bool, Exceeded> {
        Ok(match &self.kind {
            StringMatchKind::Exact(pattern) => self.equal(value, pattern),
            StringMatchKind::Prefix(pattern) => {
                value.get(..pattern.len()).is_some_and(|start| self.equal(start, pattern))
            }
            StringMatchKind::Suffix(pattern) => value
                .len()
                .checked_sub(pattern.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|end| self.equal(end, pattern)),
            StringMatchKind::Contains(pattern) => {
                budget.take(value.len())?;
                if self.ignore_case {
                    pattern.find(&value.to_ascii_lowercase()).is_some()
                } else {
                    pattern.find(value).is_some()
                }
            }
            StringMatchKind::Regex(regex) => {
                budget.take(value.len())?;
                regex.is_match(value)
            }
        })
    }

    fn equal(&self, value: &[u8], pattern: &[u8]) -> bool {
        if self.ignore_case { value.eq_ignore_ascii_case(pattern) } else { value == pattern }
    }
}

/// One condition on the header lines of a name; it holds when it holds for any line.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    pub name: String,
    pub condition: HeaderCondition,
    pub invert: bool,
}

#[derive(Debug, Clone)]
pub enum HeaderCondition {
    Present(bool),
    Value(StringMatch),
    /// The token at this place is valid.
    Token(u32),
}

/// Which tokens of a request are valid: a bit for each place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValidTokens(pub u64);

impl HeaderMatch {
    /// Tells whether the condition holds; an absent header has no value that could match. Where the
    /// budget is too small to find out, it does not hold, inverted or not.
    pub fn matches(
        &self,
        head: &Head<'_>,
        tokens: ValidTokens,
        budget: &SearchBudget,
    ) -> Result<bool, Exceeded> {
        let holds = match &self.condition {
            HeaderCondition::Token(place) => tokens.0 >> place & 1 == 1,
            HeaderCondition::Present(wanted) => head.first(&self.name).is_some() == *wanted,
            HeaderCondition::Value(value) => {
                any(head.all(&self.name), |line| value.matches(line, budget))?
            }
        };
        Ok(holds != self.invert)
    }
}

/// Tells whether the condition holds for any of them; one that exceeds the budget ends the search.
pub fn any<T>(
    items: impl IntoIterator<Item = T>,
    mut condition: impl FnMut(T) -> Result<bool, Exceeded>,
) -> Result<bool, Exceeded> {
    for item in items {
        if condition(item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The bytes of a request's values that `contains` and `regex` may still look through. It bounds the
/// work that many conditions on long headers make.
#[derive(Debug)]
pub struct SearchBudget(Cell<Option<usize>>);

/// The budget was too small for a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded;

impl Default for SearchBudget {
    fn default() -> Self {
        Self(Cell::new(Some(MAX_SEARCHED_BYTES)))
    }
}

impl SearchBudget {
    /// Takes so many bytes; what exceeds the budget leaves nothing of it.
    fn take(&self, bytes: usize) -> Result<(), Exceeded> {
        let left = self.0.get().and_then(|left| left.checked_sub(bytes + SEARCH_BYTES));
        self.0.set(left);
        left.map(drop).ok_or(Exceeded)
    }

    /// Leaves nothing of the budget.
    pub fn exceed(&self) {
        self.0.set(None);
    }

    /// Tells whether a search was left out.
    pub fn is_exceeded(&self) -> bool {
        self.0.get().is_none()
    }
}

/// Tokens that a configuration may ask for: the bits of [`ValidTokens`].
pub const MAX_TOKENS: u32 = 64;

/// Bytes that the conditions of one request search at most: as many as Envoy lets a request's headers
/// have by default, so that one condition may look through all of them.
pub const MAX_SEARCHED_BYTES: usize = 64 * 1024;
/// What a search costs however short the value is, in bytes of a value.
const SEARCH_BYTES: usize = 32;

#[cfg(test)]
mod tests;
