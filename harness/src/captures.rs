//! Captures in expected texts: `${name}` stands for a run of hex digits, and for the same one
//! wherever the name comes again, so that ids need not be known beforehand.
//!
//! ```text
//! pattern = ( "$${" | "${" name "}" | any character )*      ; "$${" is a plain "${"
//! ```

use std::collections::BTreeMap;

/// What the names of a scenario stand for so far.
#[derive(Debug, Clone, Default)]
pub struct Captures {
    bound: BTreeMap<String, String>,
}

impl Captures {
    /// Whether `found` is what `pattern` says. Where it is, its new names are bound.
    pub fn matches(&mut self, pattern: &str, found: &str) -> bool {
        let mut bound = self.bound.clone();
        let matches = match_parts(&parts(pattern), found, &mut bound);
        if matches {
            self.bound = bound;
        }
        matches
    }

    /// The pattern with what is bound put in.
    pub fn fill(&self, pattern: &str) -> String {
        let parts = parts(pattern).into_iter();
        let filled = parts.map(|part| match part {
            Part::Literal(text) => text.to_owned(),
            Part::Capture(name) => {
                self.bound.get(name).cloned().unwrap_or_else(|| format!("${{{name}}}"))
            }
        });
        filled.collect()
    }
}

/// A text as a pattern that matches it alone.
pub fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    Literal(&'a str),
    Capture(&'a str),
}

fn parts(pattern: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some(start) = rest.find("${") {
        let (before, after) = rest.split_at(start);
        if let Some(before) = before.strip_suffix('$') {
            parts.extend([Part::Literal(before), Part::Literal("${")]);
            rest = &after[2..];
            continue;
        }
        parts.push(Part::Literal(before));
        let Some((name, tail)) = after[2..].split_once('}') else {
            rest = after;
            break;
        };
        parts.push(Part::Capture(name));
        rest = tail;
    }
    parts.push(Part::Literal(rest));
    parts
}

fn match_parts(parts: &[Part], found: &str, bound: &mut BTreeMap<String, String>) -> bool {
    let Some((first, rest)) = parts.split_first() else {
        return found.is_empty();
    };
    match *first {
        Part::Literal(text) => {
            found.strip_prefix(text).is_some_and(|found| match_parts(rest, found, bound))
        }
        Part::Capture(name) => {
            if let Some(value) = bound.get(name) {
                return found
                    .strip_prefix(value.as_str())
                    .is_some_and(|found| match_parts(rest, found, bound));
            }
            let run =
                found.bytes().take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).count();
            // The longest run first; a shorter one where what follows is hex itself.
            (1..=run).rev().any(|run| {
                let mut tried = bound.clone();
                tried.insert(name.to_owned(), found[..run].to_owned());
                let matches = match_parts(rest, &found[run..], &mut tried);
                if matches {
                    *bound = tried;
                }
                matches
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: &[bool]) {
        let mut captures = Captures::default();
        let matched: Vec<_> =
            pairs.iter().map(|(pattern, found)| captures.matches(pattern, found)).collect();
        assert_eq!(matched, expected, "{pairs:?}");
    }

    #[test]
    fn a_name_stands_for_the_same_digits_from_its_first_match_on() {
        check(
            &[("00-${t}-${s}-01", "00-ab-cd-01"), ("${t}", "ab"), ("${s}", "ab")],
            &[true, true, false],
        );
        check(&[("${t}-${t}", "ab-ab")], &[true]);
        check(&[("${t}-${t}", "ab-ac")], &[false]);
    }

    #[test]
    fn a_text_that_does_not_match_binds_nothing() {
        check(&[("${t}-x", "ab-y"), ("${t}", "cd")], &[false, true]);
    }

    #[test]
    fn only_lower_case_hex_is_captured() {
        check(&[("${a}", "AB"), ("${a}", ""), ("${a}", "xy"), ("${a}", "é")], &[false; 4]);
    }

    #[test]
    fn a_run_gives_back_what_the_text_after_it_needs() {
        check(&[("${t}ff", "abff"), ("${t}", "ab")], &[true, true]);
    }

    #[test]
    fn what_is_not_a_capture_is_plain_text() {
        check(
            &[("$${t}", "${t}"), ("${", "${"), ("$", "$"), (&escape("a${b}"), "a${b}")],
            &[true; 4],
        );
    }

    #[test]
    fn bound_names_are_filled_in() {
        let mut captures = Captures::default();
        assert!(captures.matches("${t}", "ab"));
        assert_eq!(captures.fill("00-${t}-${s}-$${x}"), "00-ab-${s}-${x}");
    }
}
