//! Bounds how many bytes conditions search for one request, because clients choose how long headers are.

use std::cell::Cell;

/// The bytes of values that the `contains` and `regex` conditions of one request may still search; none
/// once a search was left out.
#[derive(Debug)]
pub struct SearchBudget(Cell<Option<usize>>);

/// The budget is too small for a search, which was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetExceeded;

impl Default for SearchBudget {
    fn default() -> Self {
        Self(Cell::new(Some(MAX_SEARCHED_BYTES)))
    }
}

impl SearchBudget {
    /// Spends the bytes of a value that is to be searched. After the first search that exceeds the
    /// budget, every further one does.
    pub fn spend(&self, bytes: usize) -> Result<(), BudgetExceeded> {
        let left = self.0.get().and_then(|left| left.checked_sub(bytes + BYTES_PER_SEARCH));
        self.0.set(left);
        left.map(drop).ok_or(BudgetExceeded)
    }

    /// Makes every further search exceed the budget.
    pub fn exhaust(&self) {
        self.0.set(None);
    }

    /// Tells whether a search was left out.
    pub fn is_exceeded(&self) -> bool {
        self.0.get().is_none()
    }
}

/// The most bytes that the conditions of one request search. Envoy allows 60 KiB for the headers of a request
/// by default, so one condition can search all of them.
pub(crate) const MAX_SEARCHED_BYTES: usize = 64 * 1024;
/// The cost of a search beside the bytes of the value.
pub(crate) const BYTES_PER_SEARCH: usize = 32;
