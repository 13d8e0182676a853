//! Captures in expected texts, for ids that are not known beforehand: `${name}` matches one or more hex
//! digits the first time, and the same digits from then on.
//!
//! ```text
//! pattern = ( "$${" | "${" name "}" | any character )*      ; "$${" is a plain "${"
//! ```

use std::collections::BTreeMap;

/// The values of a scenario's captures so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captures {
    values: BTreeMap<String, String>,
}

impl Captures {
    /// Returns whether a text matches a pattern. If it does, the pattern's new names get their values.
    pub(crate) fn matches(&mut self, pattern: &str, found: &str) -> bool {
        let mut values = self.values.clone();
        let matches = match_parts(&parts(pattern), found, &mut values);
        if matches {
            self.values = values;
        }
        matches
    }

    /// Returns a pattern with the values of its captures; a name without a value stays.
    pub(crate) fn fill(&self, pattern: &str) -> String {
        let parts = parts(pattern).into_iter();
        let filled = parts.map(|part| match part {
            Part::Literal(text) => text.to_owned(),
            Part::Capture(name) => {
                self.values.get(name).cloned().unwrap_or_else(|| format!("${{{name}}}"))
            }
        });
        filled.collect()
    }
}

/// Returns a pattern that matches only this text.
pub(crate) fn escape(text: &str) -> String {
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

fn match_parts(parts: &[Part], found: &str, values: &mut BTreeMap<String, String>) -> bool {
    let Some((first, rest)) = parts.split_first() else {
        return found.is_empty();
    };
    match *first {
        Part::Literal(text) => {
            found.strip_prefix(text).is_some_and(|found| match_parts(rest, found, values))
        }
        Part::Capture(name) => {
            if let Some(value) = values.get(name) {
                return found
                    .strip_prefix(value.as_str())
                    .is_some_and(|found| match_parts(rest, found, values));
            }
            let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let max_digits = found.bytes().take_while(is_hex).count();
            // Fewer digits than the maximum are needed if hex digits follow in the pattern.
            (1..=max_digits).rev().any(|digits| {
                let mut tried = values.clone();
                tried.insert(name.to_owned(), found[..digits].to_owned());
                let matches = match_parts(rest, &found[digits..], &mut tried);
                if matches {
                    *values = tried;
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
    fn a_name_keeps_the_value_of_its_first_match() {
        check(
            &[("00-${t}-${s}-01", "00-ab-cd-01"), ("${t}", "ab"), ("${s}", "ab")],
            &[true, true, false],
        );
        check(&[("${t}-${t}", "ab-ab")], &[true]);
        check(&[("${t}-${t}", "ab-ac")], &[false]);
    }

    #[test]
    fn a_text_that_does_not_match_sets_no_value() {
        check(&[("${t}-x", "ab-y"), ("${t}", "cd")], &[false, true]);
    }

    #[test]
    fn only_lower_case_hex_digits_are_captured() {
        check(&[("${a}", "AB"), ("${a}", ""), ("${a}", "xy"), ("${a}", "é")], &[false; 4]);
    }

    #[test]
    fn a_capture_leaves_digits_for_the_text_after_it() {
        check(&[("${t}ff", "abff"), ("${t}", "ab")], &[true, true]);
    }

    #[test]
    fn text_that_is_no_capture_matches_itself() {
        check(
            &[("$${t}", "${t}"), ("${", "${"), ("$", "$"), (&escape("a${b}"), "a${b}")],
            &[true; 4],
        );
    }

    #[test]
    fn fill_replaces_names_that_have_values() {
        let mut captures = Captures::default();
        assert!(captures.matches("${t}", "ab"));
        assert_eq!(captures.fill("00-${t}-${s}-$${x}"), "00-ab-${s}-${x}");
    }
}
