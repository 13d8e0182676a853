//! A tree of texts, maps and lists: what was expected and what was found, in one form, so that
//! both can be compared whole and shown side by side as YAML.

use serde::ser::{Serialize, Serializer};
use serde_json::{Number, Value};
use serde_saphyr::Commented;

use crate::captures::Captures;

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// Text; where it is expected it may have captures.
    Text(String),
    Bool(bool),
    Number(Number),
    /// Flags of a span, which YAML shows with their hex digits in a comment.
    Flags(u32),
    /// What stands where no value can: a text never equals it.
    Word(String),
    List(Vec<Tree>),
    /// Entries in order; a key may come more than once.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn word(word: impl Into<String>) -> Self {
        Self::Word(word.into())
    }

    pub fn number(number: impl Into<Number>) -> Self {
        Self::Number(number.into())
    }

    /// A number with a fraction; JSON has none for infinity.
    pub fn double(value: f64) -> Self {
        Number::from_f64(value).map_or_else(|| Self::word(value.to_string()), Self::Number)
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
            Self::Bool(_) | Self::Number(_) | Self::Flags(_) | Self::Word(_) => self.clone(),
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
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) | Self::Word(text) => text.as_str().into(),
            Self::Bool(value) => (*value).into(),
            Self::Number(number) => number.clone().into(),
            Self::Flags(flags) => (*flags).into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.clone(), value.to_json()));
                Value::Object(entries.collect())
            }
        }
    }

    /// Shows the tree as YAML, each text on a line of its own.
    pub fn to_yaml(&self) -> String {
        let options =
            serde_saphyr::ser_options! { compact_list_indent: false, prefer_block_scalars: false };
        let yaml = serde_saphyr::to_string_with_options(self, options);
        yaml.unwrap_or_else(|error| format!("# {error}\n"))
    }

    fn nth_entry(&self, key: &str, nth: usize) -> Option<&Tree> {
        match self {
            Self::Map(entries) => {
                entries.iter().filter(|(other, _)| other == key).nth(nth).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) | Self::Word(text) => serializer.serialize_str(text),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Flags(flags) => Commented(*flags, format!("{flags:#05x}")).serialize(serializer),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (key, value)))
            }
        }
    }
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
            ("code".into(), Tree::number(200)),
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
            ("flags".into(), Tree::Flags(0x103)),
            (
                "values".into(),
                Tree::List(vec![Tree::number(-1), Tree::double(0.5), Tree::Bool(true)]),
            ),
            ("bytes".into(), Tree::word("value_hex ff")),
        ]);
        let json = serde_json::json!({
            "text": "200", "flags": 259, "values": [-1, 0.5, true], "bytes": "value_hex ff"
        });
        assert_eq!(tree.to_json(), json);
    }

    #[test]
    fn yaml_is_read_back_as_what_it_was() {
        for text in
            ["", "1", "true", "- a", "a: b", "a ", "\n", "#", "é", "0x1f", "~", "a # b", "no"]
        {
            let yaml = Tree::text(text).to_yaml();
            let read: String = serde_saphyr::from_str(&yaml).expect("YAML");
            assert_eq!(read, text, "{yaml}");
        }
        let long = "a ".repeat(100);
        assert_eq!(Tree::text(long.as_str()).to_yaml().lines().count(), 1);
        check(&Tree::Map(vec![("flags".into(), Tree::Flags(0x103))]), "flags: 259 # 0x103\n");
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
