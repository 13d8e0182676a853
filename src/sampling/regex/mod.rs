//! Regular expressions that must match a whole value, and searches for all matches in a value. Both take
//! one step a byte, whatever the pattern and the value are.
//!
//! Clients choose the values, so no value may take long: when the configuration is read, each pattern
//! becomes a deterministic automaton, and a pattern whose automaton is too large is refused. A crate that
//! does the same takes 200 KB of the module, a third of its limit; a small crate takes thousands of
//! instructions a byte.
//!
//! [`syntax`] parses a pattern, [`nfa`] makes an automaton of it, and [`automaton`] a deterministic one.
//! [`search`] has one automaton for where matches start, and one for where they end.

mod automaton;
mod byte_set;
mod nfa;
mod search;
mod syntax;

pub use automaton::Regex;
pub(crate) use search::Search;

/// Why a pattern cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// The pattern breaks the syntax, or uses a part of RE2's syntax that is missing here.
    Syntax,
    /// The automaton would have more than [`automaton::MAX_TRANSITIONS`] entries, or compiling it would
    /// take too long.
    TooLarge,
}
