//! The part of CEL in which the filter asks for attributes: Envoy's foreign functions
//! `expr_create` and `expr_evaluate` (`source/extensions/common/wasm/foreign.cc`).
//!
//! ```text
//! expression = list | value
//! list       = "[" [ value *( "," value ) ] "]"
//! value      = "has(" path ")" "?" value ":" value | path | string | integer
//! path       = name *( "." name | "[" string "]" )
//! ```
//!
//! What else CEL has is refused like text that is not CEL at all.

use super::guest::Status;
use super::properties::pairs;

/// A compiled expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    List(Vec<Value>),
    Single(Value),
}

/// One value of an expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An attribute; its parts have a zero byte between them, as in `proxy_get_property`.
    Attribute(String),
    Literal(Vec<u8>),
    /// `has(tested) ? then : otherwise`.
    Conditional {
        tested: String,
        then: Box<Value>,
        otherwise: Box<Value>,
    },
}

/// Reads an attribute by its path.
type Read<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, Status>;

impl Expression {
    /// Compiles an expression; `None` where it is not of the grammar above.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser { rest: text };
        let expression = match parser.take("[") {
            true => Self::List(parser.values()?),
            false => Self::Single(parser.value()?),
        };
        parser.space();
        parser.rest.is_empty().then_some(expression)
    }

    /// Evaluates it whole: one attribute that is absent and not asked for by `has` fails it. A list
    /// becomes pairs whose names are the values.
    pub fn evaluate(&self, read: Read) -> Result<Vec<u8>, Status> {
        match self {
            Self::Single(value) => value.evaluate(read),
            Self::List(values) => {
                let values = values.iter().map(|value| Ok((value.evaluate(read)?, Vec::new())));
                Ok(pairs(&values.collect::<Result<Vec<_>, Status>>()?))
            }
        }
    }
}

impl Value {
    fn evaluate(&self, read: Read) -> Result<Vec<u8>, Status> {
        match self {
            Self::Literal(bytes) => Ok(bytes.clone()),
            Self::Attribute(path) => read(path).map_err(failure),
            Self::Conditional { tested, then, otherwise } => {
                if has(tested, read)? {
                    then.evaluate(read)
                } else {
                    otherwise.evaluate(read)
                }
            }
        }
    }
}

/// Whether the last part of a path is there; one before it that is absent is an error.
fn has(path: &str, read: Read) -> Result<bool, Status> {
    let (parent, _) = path.rsplit_once('\0').ok_or(Status::InternalFailure)?;
    // What is there need not be something that can be handed over.
    let there = |path| !matches!(read(path), Err(Status::NotFound));
    if there(path) {
        Ok(true)
    } else if ATTRIBUTES.contains(&parent) || there(parent) {
        Ok(false)
    } else {
        Err(Status::InternalFailure)
    }
}

fn failure(status: Status) -> Status {
    if status == Status::NotFound { Status::InternalFailure } else { status }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// The values of a list, whose `[` was taken.
    fn values(&mut self) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        if self.take("]") {
            return Some(values);
        }
        loop {
            values.push(self.value()?);
            if self.take("]") {
                return Some(values);
            }
            self.take(",").then_some(())?;
        }
    }

    fn value(&mut self) -> Option<Value> {
        self.space();
        if self.take("has(") {
            let tested = self.path()?;
            self.take(")").then_some(())?;
            self.take("?").then_some(())?;
            let then = Box::new(self.value()?);
            self.take(":").then_some(())?;
            return Some(Value::Conditional { tested, then, otherwise: Box::new(self.value()?) });
        }
        match self.rest.chars().next()? {
            '"' | '\'' => Some(Value::Literal(self.string()?.into())),
            '0'..='9' | '-' => {
                let digits = self.run(|c| c.is_ascii_digit() || c == '-');
                Some(Value::Literal(digits.parse::<i64>().ok()?.to_le_bytes().into()))
            }
            _ => self.path().map(Value::Attribute),
        }
    }

    fn path(&mut self) -> Option<String> {
        let mut path = self.name()?.to_owned();
        loop {
            let part = if self.take(".") {
                self.name()?
            } else if self.take("[") {
                let part = self.string()?;
                self.take("]").then_some(())?;
                part
            } else {
                return Some(path);
            };
            path.push('\0');
            path.push_str(part);
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        self.space();
        let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
        self.rest.starts_with(starts).then(|| self.run(|c| c.is_ascii_alphanumeric() || c == '_'))
    }

    /// A string without escapes.
    fn string(&mut self) -> Option<&'a str> {
        self.space();
        let quote = self.rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let (text, rest) = self.rest.strip_prefix(quote)?.split_once(quote)?;
        self.rest = rest;
        (!text.contains('\\')).then_some(text)
    }

    fn run(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        run
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

/// Attributes that are always there, of which the others are parts.
const ATTRIBUTES: [&str; 9] = [
    "request",
    "response",
    "connection",
    "upstream",
    "source",
    "destination",
    "xds",
    "metadata",
    "metadata\0filter_metadata",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Evaluates over attributes of which `a.b` is `1`, and `a.c` and `a.d.e` are not there.
    #[track_caller]
    fn check(text: &str, expected: Option<Result<&[&str], Status>>) {
        let read = |path: &str| match path {
            "request\0id" => Ok(b"1".to_vec()),
            "request\0headers" => Ok(Vec::new()),
            _ => Err(Status::NotFound),
        };
        let list = |values: &[&str]| {
            pairs(
                &values.iter().map(|value| (value.as_bytes().to_vec(), vec![])).collect::<Vec<_>>(),
            )
        };
        let found = Expression::parse(text).map(|expression| expression.evaluate(&read));
        assert_eq!(found, expected.map(|values| values.map(list)), "{text}");
    }

    #[test]
    fn a_list_has_its_values_in_order() {
        check("[]", Some(Ok(&[])));
        check("[request.id,request.id]", Some(Ok(&["1", "1"])));
        check(r#"[ request["id"], 'a', "" ]"#, Some(Ok(&["1", "a", ""])));
        check("[7]", Some(Ok(&["\u{7}\0\0\0\0\0\0\0"])));
    }

    #[test]
    fn one_absent_attribute_fails_all() {
        check("[request.id,request.none]", Some(Err(Status::InternalFailure)));
        check("[request]", Some(Err(Status::InternalFailure)));
    }

    #[test]
    fn has_asks_for_the_last_part() {
        check(r#"[has(request.id) ? request.id : ""]"#, Some(Ok(&["1"])));
        check(r#"[has(request.none)?request.none:""]"#, Some(Ok(&[""])));
        check(r#"[has(request.headers.none) ? 1 : "b"]"#, Some(Ok(&["b"])));
        check(
            r#"[has(request.a) ? "a" : has(request.b) ? "b" : request.id, "c"]"#,
            Some(Ok(&["1", "c"])),
        );
        check(r#"[has(request.none.none) ? "a" : "b"]"#, Some(Err(Status::InternalFailure)));
        check(r#"[has(none.none) ? "a" : "b"]"#, Some(Err(Status::InternalFailure)));
    }

    #[test]
    fn what_is_not_of_the_grammar_is_refused() {
        for text in [
            "",
            "[",
            "[request.id",
            "[request.id,]",
            "[,]",
            "request.id]",
            "[request.]",
            "[.id]",
            "[has(request.id)]",
            "[has(request.id) ? 1]",
            "[has request.id ? 1 : 2]",
            "['a]",
            r#"["\n"]"#,
            "[request[id]]",
            "[a == b]",
            "[--1]",
        ] {
            check(text, None);
        }
    }
}
