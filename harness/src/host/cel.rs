//! CEL as a module uses it to read several attributes at once: Envoy's foreign functions
//! `expr_create` and `expr_evaluate` (`source/extensions/common/wasm/foreign.cc`).
//!
//! ```text
//! expression = or [ "?" or ":" expression ]
//! or         = and *( "||" and )
//! and        = relation *( "&&" relation )
//! relation   = sum *( ( "==" / "!=" / "in" ) sum )
//! sum        = unary *( "+" unary )
//! unary      = "!" unary / "-" unary / member
//! member     = primary *( "." name / "[" expression "]" )
//! primary    = "has(" member "." name ")" / "(" expression ")" / list / literal / name
//! list       = "[" [ expression *( "," expression ) ] [ "," ] "]"
//! ```
//!
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md>. The rest of CEL (functions,
//! macros, maps, other operators) is refused like text that is not CEL at all.

use winnow::ascii::{digit1, multispace0};
use winnow::combinator::{
    alt, delimited, not, opt, preceded, repeat, separated, separated_foldl1, terminated,
};
use winnow::error::EmptyError;
use winnow::prelude::*;
use winnow::token::{none_of, one_of, take_while};

use super::guest::Status;
use super::value::Value;

/// A compiled expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    Literal(Value),
    Name(String),
    Member(Box<Expression>, Box<Expression>),
    Has(Box<Expression>, Box<Expression>),
    List(Vec<Expression>),
    Not(Box<Expression>),
    Negate(Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
    /// Condition, then, otherwise.
    Conditional(Box<[Expression; 3]>),
}

/// Operators with two operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    In,
    Add,
}

/// Reads an attribute by its path, whose parts are separated by NUL.
type Read<'a> = &'a dyn Fn(&str) -> Result<Value, Status>;

impl Expression {
    /// Compiles an expression; `None` where it is not of the grammar above.
    pub fn parse(text: &str) -> Option<Self> {
        terminated(expression, multispace0).parse(text).ok()
    }

    /// Evaluates the expression. An error in any part that is evaluated fails it whole: an absent
    /// attribute, an operand of the wrong type.
    pub fn evaluate(&self, read: Read) -> Result<Value, Status> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Name(name) => read(name).map_err(|_| FAILED)?,
            Self::Member(of, key) => {
                member(&of.evaluate(read)?, &key.evaluate(read)?, read)?.ok_or(FAILED)?
            }
            Self::Has(of, key) => {
                let (of, key) = (of.evaluate(read)?, key.evaluate(read)?);
                let found = member(&of, &key, read)?;
                // A field of a protobuf message that is a map: `has` means that it is not empty.
                let is_message =
                    matches!(of, Value::Attributes(path) if path.ends_with("metadata"));
                Value::Bool(found.is_some_and(|found| !is_message || found != Value::Map(vec![])))
            }
            Self::List(items) => {
                let items = items.iter().map(|item| item.evaluate(read));
                Value::List(items.collect::<Result<_, Status>>()?)
            }
            Self::Not(operand) => Value::Bool(!operand.condition(read)?),
            Self::Negate(operand) => match operand.evaluate(read)? {
                Value::Int(value) => Value::Int(value.checked_neg().ok_or(FAILED)?),
                Value::Double(value) => Value::Double(-value),
                _ => return Err(FAILED),
            },
            Self::Binary(operator, one, other) => binary(*operator, one, other, read)?,
            Self::Conditional(parts) => {
                let [condition, then, otherwise] = parts.as_ref();
                let chosen = if condition.condition(read)? { then } else { otherwise };
                chosen.evaluate(read)?
            }
        })
    }

    fn condition(&self, read: Read) -> Result<bool, Status> {
        match self.evaluate(read)? {
            Value::Bool(value) => Ok(value),
            _ => Err(FAILED),
        }
    }
}

/// Member of a map or item of a list; `None` where a map has no such member.
fn member(of: &Value, key: &Value, read: Read) -> Result<Option<Value>, Status> {
    match (of, key) {
        (Value::Attributes(path), Value::Text(key)) => {
            let key = str::from_utf8(key).map_err(|_| FAILED)?;
            match read(&format!("{path}\0{key}")) {
                Ok(value) => Ok(Some(value)),
                Err(Status::NotFound) => Ok(None),
                Err(_) => Err(FAILED),
            }
        }
        (Value::Map(entries), Value::Text(key)) => {
            let found = entries.iter().find(|(known, _)| known == key);
            Ok(found.map(|(_, value)| value.clone()))
        }
        (Value::Headers(headers), Value::Text(name)) => {
            let value = str::from_utf8(name).ok().and_then(|name| headers.joined(name));
            Ok(value.map(Value::Text))
        }
        (Value::List(items), Value::Int(index)) => {
            let index = usize::try_from(*index).ok();
            let item = index.and_then(|index| items.get(index));
            item.cloned().map(Some).ok_or(FAILED)
        }
        _ => Err(FAILED),
    }
}

fn binary(
    operator: Operator,
    one: &Expression,
    other: &Expression,
    read: Read,
) -> Result<Value, Status> {
    let operands = || Ok((one.evaluate(read)?, other.evaluate(read)?));
    Ok(match operator {
        // Either operand may decide alone; then an error in the other one does not count.
        Operator::Or | Operator::And => {
            let decisive = operator == Operator::Or;
            match (one.condition(read), other.condition(read)) {
                (Ok(value), _) | (_, Ok(value)) if value == decisive => Value::Bool(decisive),
                (Ok(_), Ok(_)) => Value::Bool(!decisive),
                _ => return Err(FAILED),
            }
        }
        Operator::Equal => operands().map(|(one, other)| Value::Bool(equal(&one, &other)))?,
        Operator::NotEqual => operands().map(|(one, other)| Value::Bool(!equal(&one, &other)))?,
        Operator::In => match operands()? {
            (one, Value::List(items)) => Value::Bool(items.iter().any(|item| equal(item, &one))),
            (key, map @ (Value::Map(_) | Value::Headers(_) | Value::Attributes(_))) => {
                Value::Bool(member(&map, &key, read)?.is_some())
            }
            _ => return Err(FAILED),
        },
        Operator::Add => match operands()? {
            (Value::Text(one), Value::Text(other)) => Value::Text([one, other].concat()),
            (Value::List(one), Value::List(other)) => Value::List([one, other].concat()),
            (Value::Int(one), Value::Int(other)) => {
                Value::Int(one.checked_add(other).ok_or(FAILED)?)
            }
            (Value::Uint(one), Value::Uint(other)) => {
                Value::Uint(one.checked_add(other).ok_or(FAILED)?)
            }
            (Value::Double(one), Value::Double(other)) => Value::Double(one + other),
            _ => return Err(FAILED),
        },
    })
}

/// Values of different types are not equal, but numbers are compared as numbers.
fn equal(one: &Value, other: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        _ => None,
    };
    one == other || number(one).is_some_and(|one| number(other) == Some(one))
}

type Parsed<T> = Result<T, EmptyError>;

fn expression(input: &mut &str) -> Parsed<Expression> {
    let condition = or.parse_next(input)?;
    let mut branches = opt((preceded(token("?"), or), preceded(token(":"), expression)));
    Ok(match branches.parse_next(input)? {
        Some((then, otherwise)) => Expression::Conditional(Box::new([condition, then, otherwise])),
        None => condition,
    })
}

fn or(input: &mut &str) -> Parsed<Expression> {
    separated_foldl1(and, token("||").value(Operator::Or), operation).parse_next(input)
}

fn and(input: &mut &str) -> Parsed<Expression> {
    separated_foldl1(relation, token("&&").value(Operator::And), operation).parse_next(input)
}

fn relation(input: &mut &str) -> Parsed<Expression> {
    let operator = alt((
        token("==").value(Operator::Equal),
        token("!=").value(Operator::NotEqual),
        terminated(token("in"), not(one_of(is_name))).value(Operator::In),
    ));
    separated_foldl1(sum, operator, operation).parse_next(input)
}

fn sum(input: &mut &str) -> Parsed<Expression> {
    separated_foldl1(unary, token("+").value(Operator::Add), operation).parse_next(input)
}

fn operation(one: Expression, operator: Operator, other: Expression) -> Expression {
    Expression::Binary(operator, Box::new(one), Box::new(other))
}

fn unary(input: &mut &str) -> Parsed<Expression> {
    let not = preceded(token("!"), unary).map(|operand| Expression::Not(Box::new(operand)));
    let negate = preceded(token("-"), unary).map(|operand| Expression::Negate(Box::new(operand)));
    alt((not, negate, path)).parse_next(input)
}

fn path(input: &mut &str) -> Parsed<Expression> {
    let of = primary.parse_next(input)?;
    let field = preceded(token("."), name).map(field);
    let keys: Vec<Expression> =
        repeat(0.., alt((field, delimited(token("["), expression, token("]")))))
            .parse_next(input)?;
    let member = |of, key| Expression::Member(Box::new(of), Box::new(key));
    Ok(keys.into_iter().fold(of, member))
}

fn primary(input: &mut &str) -> Parsed<Expression> {
    let list = terminated(separated(0.., expression, token(",")), opt(token(",")));
    alt((
        has,
        delimited(token("("), expression, token(")")),
        delimited(token("["), list, token("]")).map(Expression::List),
        string.map(|text: String| Expression::Literal(Value::text(text))),
        preceded(multispace0, number).map(Expression::Literal),
        name.verify_map(|name| {
            Some(match name {
                "true" | "false" => Expression::Literal(Value::Bool(name == "true")),
                "null" => Expression::Literal(Value::Null),
                "in" => return None,
                _ => Expression::Name(name.to_owned()),
            })
        }),
    ))
    .parse_next(input)
}

/// `has` takes a selection by a dot alone: `has(a["b"])` is refused.
fn has(input: &mut &str) -> Parsed<Expression> {
    let tested = delimited((token("has"), token("(")), path.with_taken(), token(")"));
    let selected = |(tested, taken): (Expression, &str)| match tested {
        Expression::Member(of, key) if !taken.trim_end().ends_with(']') => {
            Some(Expression::Has(of, key))
        }
        _ => None,
    };
    tested.verify_map(selected).parse_next(input)
}

fn field(name: &str) -> Expression {
    Expression::Literal(Value::text(name))
}

fn name<'i>(input: &mut &'i str) -> Parsed<&'i str> {
    let text = (one_of(|c: char| c.is_ascii_alphabetic() || c == '_'), take_while(0.., is_name));
    preceded(multispace0, text.take()).parse_next(input)
}

/// `7`, `7u`, `7.5`, `7e-3`.
fn number(input: &mut &str) -> Parsed<Value> {
    let double = (digit1, alt(((".", digit1, opt(exponent)).void(), exponent.void())));
    alt((
        double.take().parse_to().map(Value::Double),
        terminated(digit1.parse_to(), one_of(['u', 'U'])).map(Value::Uint),
        digit1.parse_to().map(Value::Int),
    ))
    .parse_next(input)
}

fn exponent<'i>(input: &mut &'i str) -> Parsed<&'i str> {
    (one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1).take().parse_next(input)
}

/// Text in quotes of either kind, with the escapes of one character.
fn string(input: &mut &str) -> Parsed<String> {
    let quoted = |quote: char| {
        let plain = none_of([quote, '\\', '\n', '\r']);
        let escape = preceded('\\', one_of(['\\', '"', '\'', '`', '?', 'n', 'r', 't']));
        let escape = escape.map(|escaped| match escaped {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            other => other,
        });
        delimited(quote, repeat(0.., alt((plain, escape))), quote)
    };
    preceded(multispace0, alt((quoted('"'), quoted('\'')))).parse_next(input)
}

fn token<'i>(text: &'static str) -> impl Parser<&'i str, &'i str, EmptyError> {
    preceded(multispace0, text)
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

const FAILED: Status = Status::InternalFailure;

#[cfg(test)]
mod tests {
    use super::*;

    /// Evaluates over attributes of which `request.id` is `1` and `request.headers` has `x-a`.
    #[track_caller]
    fn check(text: &str, expected: Option<Result<Value, Status>>) {
        let read = |path: &str| match path {
            "request" | "metadata" => Ok(Value::Attributes(path.into())),
            "request\0id" => Ok(Value::text("1")),
            "request\0size" => Ok(Value::Int(3)),
            "request\0null" => Ok(Value::Null),
            "request\0headers" => {
                Ok(Value::Headers([("x-a", "a"), ("x-a", "b")].into_iter().collect()))
            }
            "metadata\0filter_metadata" => Ok(Value::Map(vec![])),
            _ => Err(Status::NotFound),
        };
        let found = Expression::parse(text).map(|expression| expression.evaluate(&read));
        assert_eq!(found, expected, "{text}");
    }

    fn list(texts: &[&str]) -> Option<Result<Value, Status>> {
        Some(Ok(Value::List(texts.iter().map(|text| Value::text(*text)).collect())))
    }

    fn bool(value: bool) -> Option<Result<Value, Status>> {
        Some(Ok(Value::Bool(value)))
    }

    #[test]
    fn a_list_has_its_values_in_order() {
        check("[]", list(&[]));
        check("[request.id,request.id]", list(&["1", "1"]));
        check(r#"[ request["id"], 'a', "" ]"#, list(&["1", "a", ""]));
        check("[7]", Some(Ok(Value::List(vec![Value::Int(7)]))));
        check("['a',]", list(&["a"]));
        check("[,]", list(&[]));
    }

    #[test]
    fn one_absent_attribute_fails_all() {
        check("[request.id,request.none]", FAIL);
        check(r#"[request.headers["x-none"]]"#, FAIL);
        check("none", FAIL);
        check("request.id.more", FAIL);
    }

    #[test]
    fn has_asks_for_the_last_part() {
        check(r#"[has(request.id) ? request.id : ""]"#, list(&["1"]));
        check(r#"[has(request.none)?request.none:""]"#, list(&[""]));
        check(r#"[has(request.headers.none) ? 1 : "b"]"#, list(&["b"]));
        check(
            r#"[has(request.a) ? "a" : has(request.b) ? "b" : request.id, "c"]"#,
            list(&["1", "c"]),
        );
        check("has( request . id )", bool(true));
        check(r#"has(request["headers"].none)"#, bool(false));
        check(r#"[has(request.none.none) ? "a" : "b"]"#, FAIL);
        check(r#"[has(none.none) ? "a" : "b"]"#, FAIL);
    }

    #[test]
    fn a_map_in_a_message_is_there_where_it_is_not_empty() {
        check("has(metadata.filter_metadata)", bool(false));
        check("metadata.filter_metadata", Some(Ok(Value::Map(vec![]))));
        check("has(metadata.filter_metadata.a)", bool(false));
    }

    #[test]
    fn a_header_is_guarded_by_in() {
        let guarded = |name: &str| {
            format!(
                r#"[has(request.headers) && "{name}" in request.headers ? request.headers["{name}"] : ""]"#
            )
        };
        check(&guarded("x-a"), list(&["a,b"]));
        check(&guarded("X-A"), list(&["a,b"]));
        check(&guarded("x-none"), list(&[""]));
        check("\"id\" in request", bool(true));
        check("2 in [1, 2.0]", bool(true));
        check("index", FAIL);
        check("1 in 1", FAIL);
    }

    #[test]
    fn an_operand_that_decides_alone_absorbs_the_error_of_the_other() {
        check("request.none == 1 || true", bool(true));
        check("true || request.none", bool(true));
        check("request.none && false", bool(false));
        check("request.none && true", FAIL);
        check("false || request.none", FAIL);
        check("1 && true", FAIL);
        check("true || false && false", bool(true));
        check("!(true && false)", bool(true));
        check("!!true", bool(true));
        check("!1", FAIL);
    }

    #[test]
    fn values_are_compared_and_added() {
        check("request.id == \"1\"", bool(true));
        check("request.id == 1", bool(false));
        check("request.size == 3u && request.size == 3.0 && request.size != 4", bool(true));
        check("\"a\" + 'b' == \"ab\"", bool(true));
        check("-1 + 3", Some(Ok(Value::Int(2))));
        check("--1", Some(Ok(Value::Int(1))));
        check("1.5 + 5e-1", Some(Ok(Value::Double(2.0))));
        check("[\"a\"] + [\"b\"]", list(&["a", "b"]));
        check("[1, 2][1]", Some(Ok(Value::Int(2))));
        check("[1][1]", FAIL);
        check("1 + \"a\"", FAIL);
        check("9223372036854775807 + 1", FAIL);
        check("request.null == null", bool(true));
        check("request.id ? 1 : 2", FAIL);
    }

    #[test]
    fn text_may_have_escapes() {
        check(r#"["a\"\\\n", 'a"']"#, list(&["a\"\\\n", "a\""]));
    }

    #[test]
    fn what_is_not_of_the_grammar_is_refused() {
        for text in [
            "",
            "[",
            "[request.id",
            "[,,]",
            "[,'a']",
            "request.id]",
            "[request.]",
            "[.id]",
            "has(request)",
            "has(request[\"id\"])",
            "[has(request.id) ? 1]",
            "[has request.id ? 1 : 2]",
            "['a]",
            r#"["\q"]"#,
            "\"a\nb\"",
            "a = b",
            "a & b",
            "a in",
            "in",
            "1u8",
            "99999999999999999999",
            "size(a)",
            "a.map(b, c)",
        ] {
            check(text, None);
        }
    }

    const FAIL: Option<Result<Value, Status>> = Some(Err(Status::InternalFailure));
}
