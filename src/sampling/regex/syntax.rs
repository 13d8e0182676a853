//! The syntax of patterns: the part of RE2's (<https://github.com/google/re2/wiki/Syntax>) that applies
//! to bytes that are matched as a whole.
//!
//! ```text
//! alternation = concat *( "|" concat )
//! concat      = *( atom *( ( "*" / "+" / "?" / "{" n [ "," [ m ] ] "}" ) [ "?" ] ) )
//! atom        = char / "." / class / escape / "^" / "$"
//!             / "(" [ "?" ( "P<" name ">" / "<" name ">" / flags ":" ) ] alternation ")"
//!             / "(?" flags ")"
//! flags       = *( "i" / "m" / "s" / "U" / "x" ) [ "-" *( "i" / "m" / "s" / "U" / "x" ) ]
//! ```
//!
//! Classes and the flag `i` are about ASCII: `.` is any byte but a line feed, `\w` contains ASCII letters
//! only, and a character beyond ASCII stands for its bytes in UTF-8. Groups capture nothing. Greedy and
//! lazy repetitions are the same, because the whole value must match.

use super::Invalid;
use super::byte_set::{ByteSet, is_space, is_word};
use crate::http::digits::hex_number;

/// A parsed pattern.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// One byte out of a set.
    Byte(ByteSet),
    Look(Look),
    Concat(Vec<Node>),
    Alternation(Vec<Node>),
    Repetition {
        node: Box<Node>,
        min: u32,
        max: Option<u32>,
    },
}

/// An assertion about a position in the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Start,
    End,
    StartOfLine,
    EndOfLine,
    WordBoundary,
    NoWordBoundary,
}

/// Parses a pattern.
pub(super) fn parse(pattern: &str, ignore_case: bool) -> Result<Node, Invalid> {
    let flags = Flags { ignore_case, ..Flags::default() };
    let mut parser = Parser { rest: pattern, flags, depth: 0 };
    let node = parser.alternation()?;
    if parser.rest.is_empty() { Ok(node) } else { Err(Invalid::Syntax) }
}

#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    ignore_case: bool,
    multi_line: bool,
    dot_all: bool,
    verbose: bool,
}

struct Parser<'p> {
    rest: &'p str,
    flags: Flags,
    depth: u32,
}

impl Parser<'_> {
    /// Takes this text if it comes next, after comments and white space in the mode `(?x)`.
    fn take(&mut self, text: &str) -> bool {
        self.skip_comments();
        self.take_exactly(text)
    }

    /// Takes this text if it comes next.
    fn take_exactly(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes one character. The end of the pattern is an error.
    fn char(&mut self) -> Result<char, Invalid> {
        let mut chars = self.rest.chars();
        let char = chars.next().ok_or(Invalid::Syntax)?;
        self.rest = chars.as_str();
        Ok(char)
    }

    fn skip_comments(&mut self) {
        while self.flags.verbose {
            let trimmed = self.rest.trim_start();
            let comment = trimmed.strip_prefix('#');
            self.rest = match comment {
                Some(comment) => comment.split_once('\n').map_or("", |(_, after)| after),
                None => trimmed,
            };
            if comment.is_none() {
                return;
            }
        }
    }

    fn alternation(&mut self) -> Result<Node, Invalid> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Invalid::TooLarge);
        }
        let mut branches = vec![self.concat()?];
        while self.take("|") {
            branches.push(self.concat()?);
        }
        self.depth -= 1;
        Ok(Node::Alternation(branches))
    }

    fn concat(&mut self) -> Result<Node, Invalid> {
        let mut nodes = Vec::new();
        loop {
            self.skip_comments();
            if self.rest.is_empty() || self.rest.starts_with(['|', ')']) {
                return Ok(Node::Concat(nodes));
            }
            let Some(mut atom) = self.atom()? else {
                continue; // flags without a group
            };
            while let Some((min, max)) = self.repetition()? {
                if max.is_some_and(|max| max < min) {
                    return Err(Invalid::Syntax);
                }
                self.take("?");
                atom = Node::Repetition { node: Box::new(atom), min, max };
            }
            nodes.push(atom);
        }
    }

    /// Takes a repetition if one comes next: its minimum and maximum.
    fn repetition(&mut self) -> Result<Option<(u32, Option<u32>)>, Invalid> {
        if self.take("*") {
            return Ok(Some((0, None)));
        }
        if self.take("+") {
            return Ok(Some((1, None)));
        }
        if self.take("?") {
            return Ok(Some((0, Some(1))));
        }
        if !self.take("{") {
            return Ok(None);
        }
        let min = self.number()?;
        let max = match (self.take(","), self.take("}")) {
            (false, true) => return Ok(Some((min, Some(min)))),
            (true, true) => return Ok(Some((min, None))),
            (false, false) => return Err(Invalid::Syntax),
            (true, false) => self.number()?,
        };
        if self.take("}") { Ok(Some((min, Some(max)))) } else { Err(Invalid::Syntax) }
    }

    fn number(&mut self) -> Result<u32, Invalid> {
        self.skip_comments();
        let end = self.rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.parse().map_err(|_| Invalid::Syntax)
    }

    fn atom(&mut self) -> Result<Option<Node>, Invalid> {
        let node = match self.char()? {
            '(' => return self.group(),
            '[' => Node::Byte(self.class()?),
            '.' => {
                let dot_all = self.flags.dot_all;
                Node::Byte(ByteSet::of(|byte| dot_all || byte != b'\n'))
            }
            '^' if self.flags.multi_line => Node::Look(Look::StartOfLine),
            '^' => Node::Look(Look::Start),
            '$' if self.flags.multi_line => Node::Look(Look::EndOfLine),
            '$' => Node::Look(Look::End),
            '\\' => match self.escape()? {
                Escape::Char(char) => self.literal(char),
                Escape::Set(set) => Node::Byte(set),
                Escape::Look(look) => Node::Look(look),
            },
            '*' | '+' | '?' | '{' => return Err(Invalid::Syntax),
            char => self.literal(char),
        };
        Ok(Some(node))
    }

    /// Returns the node of one character: its byte, or its bytes in UTF-8.
    fn literal(&self, char: char) -> Node {
        let mut buffer = [0; 4];
        let bytes = char.encode_utf8(&mut buffer).bytes();
        let nodes: Vec<_> = bytes.map(|byte| Node::Byte(self.set_of(byte))).collect();
        Node::Concat(nodes)
    }

    fn set_of(&self, byte: u8) -> ByteSet {
        let mut set = ByteSet::default();
        set.insert(byte);
        if self.flags.ignore_case { set.in_any_case() } else { set }
    }

    /// Parses a group behind its bracket. Returns none for flags, which hold for the rest of the
    /// enclosing group.
    fn group(&mut self) -> Result<Option<Node>, Invalid> {
        let outside = self.flags;
        if self.take("?") {
            if self.take_exactly("P<") || self.take_exactly("<") {
                self.name()?;
            } else if !self.group_flags()? {
                return Ok(None);
            }
        }
        let node = self.alternation()?;
        if !self.take(")") {
            return Err(Invalid::Syntax);
        }
        self.flags = outside;
        Ok(Some(node))
    }

    fn name(&mut self) -> Result<(), Invalid> {
        let (name, rest) = self.rest.split_once('>').ok_or(Invalid::Syntax)?;
        self.rest = rest;
        let is_name = !name.is_empty() && name.bytes().all(is_word);
        let begins = !name.starts_with(|char: char| char.is_ascii_digit());
        if is_name && begins { Ok(()) } else { Err(Invalid::Syntax) }
    }

    /// Parses flags, and tells whether a group follows.
    fn group_flags(&mut self) -> Result<bool, Invalid> {
        let mut on = true;
        let mut is_empty = true;
        loop {
            let flag = match self.char()? {
                ':' => return Ok(true),
                ')' if !is_empty => return Ok(false),
                '-' if on => {
                    on = false;
                    is_empty = true;
                    continue;
                }
                'i' => &mut self.flags.ignore_case,
                'm' => &mut self.flags.multi_line,
                's' => &mut self.flags.dot_all,
                'x' => &mut self.flags.verbose,
                'U' => &mut false,
                _ => return Err(Invalid::Syntax),
            };
            *flag = on;
            is_empty = false;
        }
    }

    /// Parses a class behind its bracket.
    fn class(&mut self) -> Result<ByteSet, Invalid> {
        let is_inverted = self.take_exactly("^");
        let mut set = ByteSet::default();
        let mut is_first = true;
        loop {
            let first = match self.char()? {
                ']' if !is_first => break,
                '[' if self.rest.starts_with(':') => {
                    set.extend(self.named_class()?);
                    is_first = false;
                    continue;
                }
                '[' => return Err(Invalid::Syntax), // RE2 has no classes in classes
                '\\' => match self.escape()? {
                    Escape::Char(char) => char,
                    Escape::Set(of_escape) => {
                        set.extend(of_escape);
                        is_first = false;
                        continue;
                    }
                    Escape::Look(_) => return Err(Invalid::Syntax),
                },
                char => char,
            };
            is_first = false;
            let mut last = first;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.rest = self.rest.get(1..).unwrap_or_default();
                last = match self.char()? {
                    '\\' => match self.escape()? {
                        Escape::Char(char) => char,
                        _ => return Err(Invalid::Syntax),
                    },
                    '[' => return Err(Invalid::Syntax),
                    char => char,
                };
            }
            if !first.is_ascii() || !last.is_ascii() || first > last {
                return Err(Invalid::Syntax);
            }
            (first..=last).for_each(|char| set.insert(char as u8));
        }
        if self.flags.ignore_case {
            set = set.in_any_case();
        }
        Ok(if is_inverted { set.inverted() } else { set })
    }

    /// Parses `[:name:]` behind its first bracket.
    fn named_class(&mut self) -> Result<ByteSet, Invalid> {
        let (name, rest) = self.rest.split_once(":]").ok_or(Invalid::Syntax)?;
        self.rest = rest;
        let name = name.get(1..).unwrap_or_default();
        let (is_inverted, name) = match name.strip_prefix('^') {
            Some(name) => (true, name),
            None => (false, name),
        };
        let set = ByteSet::named(name).ok_or(Invalid::Syntax)?;
        Ok(if is_inverted { set.inverted() } else { set })
    }

    /// Parses an escape behind its backslash.
    fn escape(&mut self) -> Result<Escape, Invalid> {
        Ok(match self.char()? {
            'd' => Escape::Set(ByteSet::of(|byte| byte.is_ascii_digit())),
            'D' => Escape::Set(ByteSet::of(|byte| !byte.is_ascii_digit())),
            's' => Escape::Set(ByteSet::of(is_space)),
            'S' => Escape::Set(ByteSet::of(|byte| !is_space(byte))),
            'w' => Escape::Set(ByteSet::of(is_word)),
            'W' => Escape::Set(ByteSet::of(|byte| !is_word(byte))),
            'A' => Escape::Look(Look::Start),
            'z' => Escape::Look(Look::End),
            'b' => Escape::Look(Look::WordBoundary),
            'B' => Escape::Look(Look::NoWordBoundary),
            'a' => Escape::Char('\u{7}'),
            'f' => Escape::Char('\u{c}'),
            'n' => Escape::Char('\n'),
            'r' => Escape::Char('\r'),
            't' => Escape::Char('\t'),
            'v' => Escape::Char('\u{b}'),
            'x' => Escape::Char(self.hex()?),
            char if char.is_ascii_punctuation() || (char == ' ' && self.flags.verbose) => {
                Escape::Char(char)
            }
            _ => return Err(Invalid::Syntax),
        })
    }

    /// Parses a character's number: two hex digits, or any number of them in braces.
    fn hex(&mut self) -> Result<char, Invalid> {
        let digits = match self.rest.strip_prefix('{') {
            Some(after) => {
                let (digits, rest) = after.split_once('}').ok_or(Invalid::Syntax)?;
                self.rest = rest;
                digits
            }
            None => {
                let (digits, rest) = self.rest.split_at_checked(2).ok_or(Invalid::Syntax)?;
                self.rest = rest;
                digits
            }
        };
        hex_number(digits.as_bytes()).and_then(char::from_u32).ok_or(Invalid::Syntax)
    }
}

enum Escape {
    Char(char),
    Set(ByteSet),
    Look(Look),
}

/// The most groups that may be nested.
const MAX_DEPTH: u32 = 50;
