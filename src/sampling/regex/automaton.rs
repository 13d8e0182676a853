//! Automata: a pattern becomes one with many states at once (Thompson's construction), and that one
//! with a single state (the subset construction).

use std::collections::BTreeMap;
use std::fmt;

use super::Invalid;
use super::syntax::{ByteSet, Look, Node, is_word, parse};

/// A regular expression that a value matches as a whole.
#[derive(Clone)]
pub struct Regex {
    /// The class of each byte: bytes that no part of the pattern tells apart.
    classes: [u8; 256],
    class_count: u16,
    /// For each state and class where the next state's row begins. Row 0 is of the state that nothing
    /// leaves, row 1 of the first.
    next: Vec<u16>,
    /// For each state whether the value may end there.
    accepts: Vec<bool>,
}

impl Regex {
    /// Compiles a pattern.
    pub fn new(pattern: &str, ignore_case: bool) -> Result<Self, Invalid> {
        let mut nfa = Nfa::default();
        let end = nfa.add(State::End)?;
        let start = nfa.compile(&parse(pattern, ignore_case)?, end)?;
        Builder::new(nfa).build(start)
    }

    /// Tells whether the pattern matches the whole of the value.
    pub fn is_match(&self, value: &[u8]) -> bool {
        let mut row = self.class_count;
        for byte in value {
            let class = self.classes.get(usize::from(*byte)).copied().unwrap_or_default();
            row = self.next.get(usize::from(row + u16::from(class))).copied().unwrap_or_default();
            if row == 0 {
                return false;
            }
        }
        self.accepts.get(usize::from(row / self.class_count)).copied().unwrap_or_default()
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex of {} states", self.accepts.len())
    }
}

type StateId = u32;

/// A state of the automaton that is in many at once.
enum State {
    /// On one of these bytes to another.
    Byte(ByteSet, StateId),
    /// To another where this holds.
    Look(Look, StateId),
    /// To all of these.
    Split(Vec<StateId>),
    End,
}

#[derive(Default)]
struct Nfa {
    states: Vec<State>,
}

impl Nfa {
    fn add(&mut self, state: State) -> Result<StateId, Invalid> {
        if self.states.len() == MAX_NFA_STATES {
            return Err(Invalid::TooLarge);
        }
        self.states.push(state);
        Ok(self.states.len() as StateId - 1)
    }

    /// Adds the states of a node that go on to `next`, and returns the first.
    fn compile(&mut self, node: &Node, next: StateId) -> Result<StateId, Invalid> {
        match node {
            Node::Byte(set) => self.add(State::Byte(*set, next)),
            Node::Look(look) => self.add(State::Look(*look, next)),
            Node::Concat(nodes) => {
                nodes.iter().rev().try_fold(next, |next, node| self.compile(node, next))
            }
            Node::Alternation(nodes) => {
                let firsts: Result<_, _> =
                    nodes.iter().map(|node| self.compile(node, next)).collect();
                self.add(State::Split(firsts?))
            }
            Node::Repetition { node, min, max } => {
                let mut first = next;
                match max {
                    None => {
                        first = self.add(State::Split(Vec::new()))?;
                        let body = self.compile(node, first)?;
                        if let Some(state) = self.states.get_mut(first as usize) {
                            *state = State::Split(vec![body, next]);
                        }
                    }
                    Some(max) => {
                        for _ in *min..*max {
                            let body = self.compile(node, first)?;
                            first = self.add(State::Split(vec![body, next]))?;
                        }
                    }
                }
                for _ in 0..*min {
                    // Even what is nothing takes a state, so that the count is bounded.
                    let body = self.compile(node, first)?;
                    first = self.add(State::Split(vec![body]))?;
                }
                Ok(first)
            }
        }
    }
}

/// What stands before a place in the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Before {
    Nothing,
    LineFeed,
    Word,
    Other,
}

impl Before {
    fn of(byte: u8) -> Self {
        match byte {
            b'\n' => Self::LineFeed,
            byte if is_word(byte) => Self::Word,
            _ => Self::Other,
        }
    }
}

impl Look {
    fn holds(self, before: Before, after: Option<u8>) -> bool {
        let is_boundary = (before == Before::Word) != after.is_some_and(is_word);
        match self {
            Self::Start => before == Before::Nothing,
            Self::End => after.is_none(),
            Self::StartOfLine => matches!(before, Before::Nothing | Before::LineFeed),
            Self::EndOfLine => after.is_none_or(|byte| byte == b'\n'),
            Self::WordBoundary => is_boundary,
            Self::NoWordBoundary => !is_boundary,
        }
    }
}

/// The states that the first automaton is in, sorted, and what stands before where it is.
type Subset = (Vec<StateId>, Before);

/// The subset construction under way.
struct Builder {
    nfa: Nfa,
    has_looks: bool,
    /// The round in which each state was last reached.
    reached: Vec<u32>,
    round: u32,
    /// Steps that may still be made.
    steps: usize,
}

impl Builder {
    fn new(nfa: Nfa) -> Self {
        let has_looks = nfa.states.iter().any(|state| matches!(state, State::Look(..)));
        let reached = vec![0; nfa.states.len()];
        Self { nfa, has_looks, reached, round: 0, steps: MAX_STEPS }
    }

    fn build(mut self, start: StateId) -> Result<Regex, Invalid> {
        let (classes, firsts) = self.classes();
        let class_count = firsts.len() as u16;
        let mut known = BTreeMap::from([((Vec::new(), Before::Other), 0)]);
        let mut subsets = vec![(Vec::new(), Before::Other)];
        let first = (vec![start], if self.has_looks { Before::Nothing } else { Before::Other });
        known.insert(first.clone(), 1);
        subsets.push(first);
        let (mut next, mut accepts) = (Vec::new(), Vec::new());
        let mut place = 0;
        while let Some((states, before)) = subsets.get(place).cloned() {
            let at_end = self.closure(&states, before, None)?;
            let is_end =
                |id: &StateId| matches!(self.nfa.states.get(*id as usize), Some(State::End));
            accepts.push(at_end.iter().any(is_end));
            for byte in &firsts {
                // Without looks what is reached does not depend on what follows.
                let closure = match self.has_looks {
                    true => &self.closure(&states, before, Some(*byte))?,
                    false => &at_end,
                };
                let subset = self.after(closure, *byte)?;
                let count = known.len() as u16;
                let id = *known.entry(subset.clone()).or_insert_with(|| {
                    subsets.push(subset);
                    count
                });
                if usize::from(class_count) * subsets.len() > MAX_TRANSITIONS {
                    return Err(Invalid::TooLarge);
                }
                next.push(id * class_count);
            }
            place += 1;
        }
        Ok(Regex { classes, class_count, next, accepts })
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
            let is_like =
                |first: &u8| sets.iter().all(|set| set.contains(*first) == set.contains(byte));
            let place = firsts.iter().position(is_like).unwrap_or(firsts.len());
            if place == firsts.len() {
                firsts.push(byte);
            }
            *class = place as u8;
        }
        (classes, firsts)
    }

    /// Returns all states that are reached without a byte, sorted: those that take one, and the end.
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

    /// Returns where a byte leads to.
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
        let matters = self.has_looks && !states.is_empty();
        Ok((states, if matters { Before::of(byte) } else { Before::Other }))
    }
}

/// Entries of an automaton's table at most, of two bytes each. With more, rows have no number.
pub const MAX_TRANSITIONS: usize = 32 * 1024;
const MAX_NFA_STATES: usize = 8 * 1024;
/// Bounds the time that a pattern takes to compile: some 50 million instructions.
const MAX_STEPS: usize = 2_000_000;

#[cfg(test)]
mod tests;
