//! Expected and found results as trees of texts, numbers, lists and maps. The trees are compared, and shown
//! as YAML.

use serde::ser::{Serialize, Serializer};
use serde_json::{Number, Value};
use serde_saphyr::Commented;

use super::captures::Captures;

/// A node of a tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    /// Text; in an expected tree it can have captures.
    Text(String),
    Bool(bool),
    Number(Number),
    /// Flags of a span, which YAML shows in hex too.
    Flags(u32),
    /// A name such as `SERVER`, or a note such as `not defined`; never equal to a text.
    Symbol(String),
    List(Vec<Tree>),
    /// Entries in order; keys can repeat.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn symbol(symbol: impl Into<String>) -> Self {
        Self::Symbol(symbol.into())
    }

    pub(crate) fn number(number: impl Into<Number>) -> Self {
        Self::Number(number.into())
    }

    /// Creates a number with a fraction, or a symbol for infinity and NaN, which JSON does not have.
    pub(crate) fn double(value: f64) -> Self {
        Number::from_f64(value).map_or_else(|| Self::symbol(value.to_string()), Self::Number)
    }

    /// Creates a map with its entries sorted by key; entries with the same key keep their order.
    pub(crate) fn sorted(mut entries: Vec<(String, Tree)>) -> Self {
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        Self::Map(entries)
    }

    /// Returns the expected tree with captures replaced. If a text matches the found text, it is replaced by
    /// the found text. Otherwise, only captures that have values are replaced.
    pub(crate) fn resolve(&self, found: Option<&Tree>, captures: &mut Captures) -> Tree {
        match self {
            Self::Text(pattern) => match found {
                Some(Self::Text(text)) if captures.matches(pattern, text) => {
                    Self::Text(text.clone())
                }
                _ => Self::Text(captures.fill(pattern)),
            },
            Self::Bool(_) | Self::Number(_) | Self::Flags(_) | Self::Symbol(_) => self.clone(),
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

    /// Converts the tree to JSON. Of repeated keys the last value counts.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Text(text) | Self::Symbol(text) => text.as_str().into(),
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

    /// Formats the tree as YAML, each text on one line.
    pub(crate) fn to_yaml(&self) -> String {
        let options =
            serde_saphyr::ser_options! { compact_list_indent: false, prefer_block_scalars: false };
        let yaml = serde_saphyr::to_string_with_options(self, options);
        yaml.unwrap_or_else(|error| format!("# {error}\n"))
    }

    /// Returns the value of the nth entry with that key.
    fn nth_entry(&self, key: &str, nth: usize) -> Option<&Tree> {
        match self {
            Self::Map(entries) => {
                entries.iter().filter(|(other, _)| other == key).nth(nth).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

/// Creates an entry of a map.
pub(crate) fn entry(key: &str, value: Tree) -> (String, Tree) {
    (key.to_owned(), value)
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) | Self::Symbol(text) => serializer.serialize_str(text),
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
    fn a_tree_is_formatted_as_yaml() {
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
    fn json_keeps_the_types_of_values() {
        let tree = Tree::Map(vec![
            ("text".into(), Tree::text("200")),
            ("flags".into(), Tree::Flags(0x103)),
            (
                "values".into(),
                Tree::List(vec![Tree::number(-1), Tree::double(0.5), Tree::Bool(true)]),
            ),
            ("bytes".into(), Tree::symbol("value_hex ff")),
        ]);
        let json = serde_json::json!({
            "text": "200", "flags": 259, "values": [-1, 0.5, true], "bytes": "value_hex ff"
        });
        assert_eq!(tree.to_json(), json);
    }

    #[test]
    fn texts_are_quoted_so_that_yaml_reads_them_back() {
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
    fn repeated_keys_are_matched_in_order() {
        let lines = |first: &str, second: &str| {
            Tree::sorted(vec![
                ("x".into(), Tree::text(first)),
                ("b3".into(), Tree::text("0")),
                ("x".into(), Tree::text(second)),
            ])
        };
        let found = lines("ab", "cd");
        assert_eq!(lines("${a}", "${b}").resolve(Some(&found), &mut Captures::default()), found);
        assert_ne!(lines("${a}", "${a}").resolve(Some(&found), &mut Captures::default()), found);
    }
}
