//! Deterministic automata: matching, and the subset construction of an automaton.

use std::collections::BTreeMap;
use std::fmt;

use super::Invalid;
use super::byte_set::{ByteSet, is_word};
use super::nfa::{Before, Nfa, State, StateId};
use super::syntax::{Node, parse};

/// A regular expression that must match the whole value.
#[derive(Clone)]
pub struct Regex(Automaton);

/// A deterministic automaton.
#[derive(Clone)]
pub(super) struct Automaton {
    /// The class of each byte. No part of the pattern tells bytes of the same class apart.
    classes: [u8; 256],
    class_count: u16,
    /// The table of transitions: a row for each state, with an entry for each class. An entry is the
    /// offset of the next state's row. Row 0 belongs to the state that never matches, row 1 to the start.
    /// For a search, rows 1 to 4 belong to starts after each [`Before`], and [`ENDS`] is set in the entries
    /// for the bytes before which a match ends.
    next: Vec<u16>,
    /// For each state whether a value that ends there matches.
    accepts: Vec<bool>,
}

impl Regex {
    /// Compiles a pattern.
    pub fn new(pattern: &str, ignore_case: bool) -> Result<Self, Invalid> {
        Automaton::new(&parse(pattern, ignore_case)?, Purpose::Match).map(Self)
    }

    /// Tells whether the pattern matches the whole value.
    pub fn is_match(&self, value: &[u8]) -> bool {
        let automaton = &self.0;
        let mut row = automaton.class_count;
        for byte in value {
            row = automaton.next(row, *byte);
            if row == 0 {
                return false;
            }
        }
        automaton.accepts(row)
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex of {} states", self.0.accepts.len())
    }
}

/// What an automaton is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To match whole values.
    Match,
    /// To find the end of a match that begins at a known byte.
    FindEnd,
    /// To find where matches start, reading from the end of a value.
    FindStarts,
}

impl Automaton {
    pub(super) fn new(pattern: &Node, purpose: Purpose) -> Result<Self, Invalid> {
        let nfa = Nfa::new(pattern, purpose == Purpose::FindStarts)?;
        Builder::new(nfa, purpose != Purpose::Match).build()
    }

    /// Returns the row of a state to start in, for a search.
    pub(super) fn start(&self, before: Before) -> u16 {
        self.class_count * (1 + before as u16)
    }

    /// Returns the entry for a byte in the row of a state.
    #[inline(always)]
    pub(super) fn next(&self, row: u16, byte: u8) -> u16 {
        let class = self.classes.get(usize::from(byte)).copied().unwrap_or_default();
        self.next.get(usize::from(row + u16::from(class))).copied().unwrap_or_default()
    }

    /// Tells whether a value that ends in this state matches.
    pub(super) fn accepts(&self, row: u16) -> bool {
        self.accepts.get(usize::from(row / self.class_count)).copied().unwrap_or_default()
    }
}

/// The subset construction: each state stands for a [`Subset`].
struct Builder {
    nfa: Nfa,
    has_looks: bool,
    is_search: bool,
    /// For each state of the NFA the round of [`Builder::closure`] that reached it last.
    reached: Vec<u32>,
    round: u32,
    /// Steps that are left of [`MAX_STEPS`].
    steps: usize,
}

/// The states that the NFA is in, sorted, and the byte before the position.
type Subset = (Vec<StateId>, Before);

impl Builder {
    fn new(nfa: Nfa, is_search: bool) -> Self {
        let has_looks = nfa.states.iter().any(|state| matches!(state, State::Look(..)));
        let reached = vec![0; nfa.states.len()];
        Self { nfa, has_looks, is_search, reached, round: 0, steps: MAX_STEPS }
    }

    fn build(mut self) -> Result<Automaton, Invalid> {
        let (classes, firsts) = self.classes();
        let class_count = firsts.len() as u16;
        let mut subsets: Vec<Subset> = vec![(Vec::new(), Before::Other)];
        let starts: &[Before] = match (self.is_search, self.has_looks) {
            (true, _) => &[Before::Nothing, Before::LineFeed, Before::Word, Before::Other],
            (false, true) => &[Before::Nothing],
            (false, false) => &[Before::Other],
        };
        for before in starts {
            subsets.push((vec![self.nfa.start], *before));
        }
        let mut ids = BTreeMap::new();
        for (id, subset) in (0_u16..).zip(&subsets) {
            // Collecting would bring a sort into the module, 8 KB.
            ids.insert(subset.clone(), id);
        }
        let (mut next, mut accepts) = (Vec::new(), Vec::new());
        let mut index = 0;
        while let Some((states, before)) = subsets.get(index).cloned() {
            let at_end = self.closure(&states, before, None)?;
            accepts.push(self.has_end(&at_end));
            for byte in &firsts {
                // Without assertions the closure does not depend on the next byte.
                let closure = match self.has_looks {
                    true => &self.closure(&states, before, Some(*byte))?,
                    false => &at_end,
                };
                let subset = self.after(closure, *byte)?;
                let next_id = subsets.len() as u16;
                let id = *ids.entry(subset.clone()).or_insert_with(|| {
                    subsets.push(subset);
                    next_id
                });
                if usize::from(class_count) * subsets.len() > MAX_TRANSITIONS {
                    return Err(Invalid::TooLarge);
                }
                let ends = if self.is_search && self.has_end(closure) { ENDS } else { 0 };
                next.push((id * class_count) | ends);
            }
            index += 1;
        }
        Ok(Automaton { classes, class_count, next, accepts })
    }

    /// Returns the class of each byte, and the first byte of each class.
    fn classes(&self) -> ([u8; 256], Vec<u8>) {
        let mut sets: Vec<ByteSet> = Vec::new();
        for state in &self.nfa.states {
            if let State::Byte(set, _) = state
                && !sets.contains(set)
            {
                sets.push(*set);
            }
        }
        if self.has_looks {
            sets.push(ByteSet::of(is_word));
            sets.push(ByteSet::of(|byte| byte == b'\n'));
        }
        let mut classes = [0; 256];
        let mut firsts: Vec<u8> = Vec::new();
        for (byte, class) in (0..=u8::MAX).zip(&mut classes) {
            let is_same_class =
                |first: &u8| sets.iter().all(|set| set.contains(*first) == set.contains(byte));
            let index = firsts.iter().position(is_same_class).unwrap_or(firsts.len());
            if index == firsts.len() {
                firsts.push(byte);
            }
            *class = index as u8;
        }
        (classes, firsts)
    }

    /// Returns the states that are reached without a byte, sorted: those that take a byte, and the end.
    fn closure(
        &mut self,
        states: &[StateId],
        before: Before,
        after: Option<u8>,
    ) -> Result<Vec<StateId>, Invalid> {
        self.round += 1;
        let (mut open, mut found) = (states.to_vec(), Vec::new());
        while let Some(id) = open.pop() {
            self.steps = self.steps.checked_sub(1).ok_or(Invalid::TooLarge)?;
            let Some(reached) = self.reached.get_mut(id as usize) else { continue };
            if std::mem::replace(reached, self.round) == self.round {
                continue;
            }
            match self.nfa.states.get(id as usize) {
                Some(State::Split(to)) => open.extend(to),
                Some(State::Look(look, to)) if look.holds(before, after) => open.push(*to),
                Some(State::Byte(..) | State::End) => found.push(id),
                _ => {}
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn has_end(&self, closure: &[StateId]) -> bool {
        let is_end = |id: &StateId| matches!(self.nfa.states.get(*id as usize), Some(State::End));
        closure.iter().any(is_end)
    }

    /// Returns the subset after a byte.
    fn after(&mut self, closure: &[StateId], byte: u8) -> Result<Subset, Invalid> {
        let mut states = Vec::new();
        for id in closure {
            self.steps = self.steps.checked_sub(1).ok_or(Invalid::TooLarge)?;
            if let Some(State::Byte(set, to)) = self.nfa.states.get(*id as usize)
                && set.contains(byte)
            {
                states.push(*to);
            }
        }
        states.sort_unstable();
        states.dedup();
        let may_look_back = self.has_looks && !states.is_empty();
        Ok((states, if may_look_back { Before::of(byte) } else { Before::Other }))
    }
}

/// The most entries of a table, of two bytes each: the offset of every row must fit in a `u16`.
pub(super) const MAX_TRANSITIONS: usize = 32 * 1024;
/// The bit of a table's entry that no offset has: a match ends before the byte.
pub(super) const ENDS: u16 = 1 << 15;
/// Limits the time to compile a pattern: this many steps take about 50 million instructions.
const MAX_STEPS: usize = 2_000_000;

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
