//! A tree of texts, maps and lists: what was expected and what was found, in one form, so that
//! both can be compared whole and shown side by side as YAML.

use std::fmt::Write as _;

use crate::captures::Captures;

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// Text; where it is expected it may have captures.
    Text(String),
    /// A number, a boolean or bytes: anything that a text never equals.
    Plain(String),
    List(Vec<Tree>),
    /// Entries in order; a key may come more than once.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn plain(value: impl ToString) -> Self {
        Self::Plain(value.to_string())
    }

    /// A map whose entries are put in order of their keys, those of one key left in theirs.
    pub fn sorted(mut entries: Vec<(String, Tree)>) -> Self {
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self::Map(entries)
    }

    /// The expected tree in the words of the found one: a text whose pattern matches what stands
    /// in its place becomes that, any other gets what is bound so far.
    pub fn resolve(&self, found: Option<&Tree>, captures: &mut Captures) -> Tree {
        match self {
            Self::Text(pattern) => match found {
                Some(Self::Text(text)) if captures.matches(pattern, text) => {
                    Self::Text(text.clone())
                }
                _ => Self::Text(captures.fill(pattern)),
            },
            Self::Plain(_) => self.clone(),
            Self::List(items) => {
                let found = |index| match found {
                    Some(Self::List(items)) => items.get(index),
                    _ => None,
                };
                let items = items.iter().enumerate();
                Self::List(
                    items.map(|(index, item)| item.resolve(found(index), captures)).collect(),
                )
            }
            Self::Map(entries) => {
                let resolved = entries.iter().enumerate().map(|(index, (key, value))| {
                    let earlier =
                        entries.iter().take(index).filter(|(other, _)| other == key).count();
                    let found = found.and_then(|found| found.nth_entry(key, earlier));
                    (key.clone(), value.resolve(found, captures))
                });
                Self::Map(resolved.collect())
            }
        }
    }

    /// The tree as JSON; of a key that comes more than once the last value.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Plain(value) => plain_json(value),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.clone(), value.to_json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }

    /// Shows the tree as YAML.
    pub fn to_yaml(&self) -> String {
        let mut yaml = String::new();
        self.write(&mut yaml, 0);
        yaml
    }

    fn nth_entry(&self, key: &str, nth: usize) -> Option<&Tree> {
        match self {
            Self::Map(entries) => {
                entries.iter().filter(|(other, _)| other == key).nth(nth).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    fn write(&self, yaml: &mut String, indent: usize) {
        let pad = "  ".repeat(indent);
        match self {
            Self::Text(_) | Self::Plain(_) => {
                let _ = writeln!(yaml, "{pad}{}", self.inline());
            }
            Self::List(items) => {
                for item in items {
                    if item.is_inline() {
                        let _ = writeln!(yaml, "{pad}- {}", item.inline());
                    } else {
                        let mut nested = String::new();
                        item.write(&mut nested, indent + 1);
                        let _ = write!(yaml, "{pad}- {}", nested.trim_start());
                    }
                }
            }
            Self::Map(entries) => {
                for (key, value) in entries {
                    if value.is_inline() {
                        let _ = writeln!(yaml, "{pad}{}: {}", scalar(key), value.inline());
                    } else {
                        let _ = writeln!(yaml, "{pad}{}:", scalar(key));
                        value.write(yaml, indent + 1);
                    }
                }
            }
        }
    }

    fn is_inline(&self) -> bool {
        match self {
            Self::Text(_) | Self::Plain(_) => true,
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
        }
    }

    fn inline(&self) -> String {
        match self {
            Self::Text(text) => scalar(text),
            Self::Plain(value) => value.clone(),
            Self::List(_) => "[]".into(),
            Self::Map(_) => "{}".into(),
        }
    }
}

/// A plain value as JSON has it: a number in hex becomes one, what is no number and no boolean text.
fn plain_json(value: &str) -> serde_json::Value {
    let hex = value.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    hex.map(Into::into).or_else(|| serde_json::from_str(value).ok()).unwrap_or_else(|| value.into())
}

/// A text as a YAML scalar: plain where YAML reads it back as that text, else in double quotes.
fn scalar(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:~()+,;?&%@ ".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !matches!(
            text,
            "true" | "false" | "null" | "True" | "False" | "Null" | "TRUE" | "FALSE" | "NULL"
        );
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tree: &Tree, yaml: &str) {
        assert_eq!(tree.to_yaml(), yaml);
    }

    #[test]
    fn a_tree_is_shown_as_yaml() {
        let span = Tree::Map(vec![
            ("name".into(), Tree::text("GET")),
            ("code".into(), Tree::plain(200)),
            ("text".into(), Tree::text("200")),
            ("links".into(), Tree::List(vec![])),
        ]);
        let tree = Tree::Map(vec![
            ("spans".into(), Tree::List(vec![span])),
            ("a b".into(), Tree::Map(vec![])),
        ]);
        check(
            &tree,
            "spans:\n  - name: GET\n    code: 200\n    text: \"200\"\n    links: []\na b: {}\n",
        );
    }

    #[test]
    fn a_tree_is_json_with_its_types() {
        let tree = Tree::Map(vec![
            ("text".into(), Tree::text("200")),
            ("flags".into(), Tree::plain("0x103")),
            (
                "values".into(),
                Tree::List(vec![Tree::plain(-1), Tree::plain(0.5), Tree::plain(true)]),
            ),
            ("bytes".into(), Tree::plain("value_hex ff")),
        ]);
        let json = serde_json::json!({
            "text": "200", "flags": 259, "values": [-1, 0.5, true], "bytes": "value_hex ff"
        });
        assert_eq!(tree.to_json(), json);
    }

    #[test]
    fn texts_that_yaml_would_read_otherwise_are_quoted() {
        for text in ["", "1", "true", "- a", "a: b", "a ", "\n", "#", "é", "0x1f", "~"] {
            check(&Tree::text(text), &format!("{}\n", serde_json::Value::from(text)));
        }
    }

    #[test]
    fn repeated_keys_are_matched_in_their_order() {
        let lines = |one: &str, two: &str| {
            Tree::sorted(vec![
                ("x".into(), Tree::text(one)),
                ("b3".into(), Tree::text("0")),
                ("x".into(), Tree::text(two)),
            ])
        };
        let found = lines("ab", "cd");
        assert_eq!(lines("${a}", "${b}").resolve(Some(&found), &mut Captures::default()), found);
        assert_ne!(lines("${a}", "${a}").resolve(Some(&found), &mut Captures::default()), found);
    }
}
