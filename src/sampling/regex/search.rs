//! Searches: the matches of a pattern in a value, from the left, each as long as possible.
//!
//! One automaton reads the value from its end and marks where matches start. From each start that is not
//! in an earlier match, another one finds the last byte at which a match ends.

use std::fmt;
use std::ops::Range;

use super::Invalid;
use super::automaton::{Automaton, ENDS, Purpose};
use super::nfa::Before;
use super::syntax::parse;
use crate::sampling::search_budget::{BudgetExceeded, SearchBudget};

/// A regular expression that is searched for in values.
#[derive(Clone)]
pub struct Search {
    starts: Automaton,
    ends: Automaton,
}

impl Search {
    /// Compiles a pattern.
    pub fn new(pattern: &str) -> Result<Self, Invalid> {
        let pattern = parse(pattern, false)?;
        let starts = Automaton::new(&pattern, Purpose::FindStarts)?;
        Ok(Self { starts, ends: Automaton::new(&pattern, Purpose::FindEnd)? })
    }

    /// Tells whether the pattern matches the empty text.
    pub fn matches_empty(&self) -> bool {
        self.ends.accepts(self.ends.start(Before::Nothing))
    }

    /// Returns the matches that are not empty, in their order. They do not overlap. A byte costs twice as
    /// much as in a condition, since it is read from both sides.
    pub fn find_all(
        &self,
        value: &[u8],
        budget: &SearchBudget,
    ) -> Result<Vec<Range<usize>>, BudgetExceeded> {
        budget.spend(2 * value.len())?;
        let starts = self.find_starts(value);
        let mut matches: Vec<Range<usize>> = Vec::new();
        let mut searched = 0;
        for start in starts.into_iter().rev() {
            if start < matches.last().map_or(0, |last| last.end) {
                continue;
            }
            let end = self.find_end(value, start, &mut searched);
            // Behind the end of a match, the search for a longer one may have read the whole rest.
            budget.spend(2 * std::mem::take(&mut searched))?;
            if end > start {
                matches.push(start..end);
            }
        }
        Ok(matches)
    }

    /// Returns the indices at which matches start, from the last to the first.
    fn find_starts(&self, value: &[u8]) -> Vec<usize> {
        let mut starts = Vec::new();
        let mut row = self.starts.start(Before::Nothing);
        for (index, byte) in value.iter().enumerate().rev() {
            let entry = self.starts.next(row, *byte);
            if entry & ENDS != 0 {
                starts.push(index + 1);
            }
            row = entry & !ENDS;
        }
        if self.starts.accepts(row) {
            starts.push(0);
        }
        starts
    }

    /// Returns the end of the longest match that starts at an index. Adds the bytes that it read to
    /// `searched`.
    fn find_end(&self, value: &[u8], start: usize, searched: &mut usize) -> usize {
        let (before, rest) = value.split_at_checked(start).unwrap_or_default();
        let mut row = self.ends.start(before.last().map_or(Before::Nothing, |it| Before::of(*it)));
        let mut end = start;
        for (index, byte) in (start..).zip(rest) {
            let entry = self.ends.next(row, *byte);
            if entry & ENDS != 0 {
                end = index;
            }
            row = entry & !ENDS;
            if row == 0 {
                return end;
            }
            *searched += 1;
        }
        if self.ends.accepts(row) { value.len() } else { end }
    }
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Search")
    }
}

#[cfg(test)]
mod tests;
