//! Regular expressions that match a value as a whole, in one step a byte whatever the two are.
//!
//! Clients choose the values, so the time must not depend on the pattern: each pattern becomes a
//! deterministic automaton when the configuration is read, and one whose automaton is too large is
//! refused. Crates that do this take 200 KB of the module, a third of all it may have; a small one takes
//! thousands of instructions a byte.

mod automaton;
mod syntax;

pub use automaton::Regex;

/// Why a pattern cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// It breaks the syntax, or asks for more than it has.
    Syntax,
    /// Its automaton would be larger than [`automaton::MAX_TRANSITIONS`] allows.
    TooLarge,
}
