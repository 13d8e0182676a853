//! Nondeterministic automata, which are in many states at once: Thompson's construction.

use super::Invalid;
use super::byte_set::{ByteSet, is_word};
use super::syntax::{Look, Node};

/// The automaton of a pattern.
pub(super) struct Nfa {
    pub states: Vec<State>,
    pub start: StateId,
    /// Whether it reads values from their ends to their starts, and any bytes before the pattern.
    is_reversed: bool,
}

pub(super) enum State {
    /// Goes on after one of these bytes.
    Byte(ByteSet, StateId),
    /// Goes on without a byte if the assertion holds.
    Look(Look, StateId),
    /// Goes on without a byte, to all of these states.
    Split(Vec<StateId>),
    /// The value matches if it ends here.
    End,
}

/// The index of a state.
pub(super) type StateId = u32;

impl Nfa {
    pub(super) fn new(pattern: &Node, is_reversed: bool) -> Result<Self, Invalid> {
        let mut nfa = Self { states: Vec::new(), start: 0, is_reversed };
        let end = nfa.add(State::End)?;
        nfa.start = nfa.compile(pattern, end)?;
        if is_reversed {
            let pattern = nfa.start;
            nfa.start = nfa.add(State::Split(Vec::new()))?;
            let any = nfa.add(State::Byte(ByteSet::of(|_| true), nfa.start))?;
            nfa.set(nfa.start, State::Split(vec![any, pattern]));
        }
        Ok(nfa)
    }

    fn add(&mut self, state: State) -> Result<StateId, Invalid> {
        if self.states.len() == MAX_NFA_STATES {
            return Err(Invalid::TooLarge);
        }
        self.states.push(state);
        Ok(self.states.len() as StateId - 1)
    }

    fn set(&mut self, id: StateId, to: State) {
        if let Some(state) = self.states.get_mut(id as usize) {
            *state = to;
        }
    }

    /// Adds the states of a node, which go on to `next`, and returns the first of them.
    fn compile(&mut self, node: &Node, next: StateId) -> Result<StateId, Invalid> {
        match node {
            Node::Byte(set) => self.add(State::Byte(*set, next)),
            Node::Look(look) if self.is_reversed => self.add(State::Look(look.mirrored(), next)),
            Node::Look(look) => self.add(State::Look(*look, next)),
            Node::Concat(nodes) => {
                let mut first = next;
                for index in 0..nodes.len() {
                    let from_end = nodes.len() - 1 - index;
                    if let Some(node) = nodes.get(if self.is_reversed { index } else { from_end }) {
                        first = self.compile(node, first)?;
                    }
                }
                Ok(first)
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
                        self.set(first, State::Split(vec![body, next]));
                    }
                    Some(max) => {
                        for _ in *min..*max {
                            let body = self.compile(node, first)?;
                            first = self.add(State::Split(vec![body, next]))?;
                        }
                    }
                }
                for _ in 0..*min {
                    // A state even for an empty node, so that the limit of states bounds the time.
                    let body = self.compile(node, first)?;
                    first = self.add(State::Split(vec![body]))?;
                }
                Ok(first)
            }
        }
    }
}

/// The byte before a position in the value, as far as assertions look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Before {
    Nothing,
    LineFeed,
    Word,
    Other,
}

impl Before {
    pub(super) fn of(byte: u8) -> Self {
        match byte {
            b'\n' => Self::LineFeed,
            byte if is_word(byte) => Self::Word,
            _ => Self::Other,
        }
    }
}

impl Look {
    /// Returns the assertion for a value that is read from its end to its start.
    fn mirrored(self) -> Self {
        match self {
            Self::Start => Self::End,
            Self::End => Self::Start,
            Self::StartOfLine => Self::EndOfLine,
            Self::EndOfLine => Self::StartOfLine,
            Self::WordBoundary | Self::NoWordBoundary => self,
        }
    }

    /// Tells whether the assertion holds between these bytes.
    pub(super) fn holds(self, before: Before, after: Option<u8>) -> bool {
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

const MAX_NFA_STATES: usize = 8 * 1024;
