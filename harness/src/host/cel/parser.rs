//! Parses the subset of CEL that this host evaluates.
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md>
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
//! The rest of CEL (functions, macros, maps, other operators) is rejected, as is text that is not CEL.

use winnow::ascii::{digit1, multispace0};
use winnow::combinator::{
    alt, delimited, not, opt, preceded, repeat, separated, separated_foldl1, terminated,
};
use winnow::error::EmptyError;
use winnow::prelude::*;
use winnow::token::{none_of, one_of, take_while};

use super::{Expression, Operator};
use crate::host::value::Value;

type Parsed<T> = Result<T, EmptyError>;

/// Parses a whole expression.
pub(crate) fn parse(text: &str) -> Option<Expression> {
    terminated(expression, multispace0).parse(text).ok()
}

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

fn operation(left: Expression, operator: Operator, right: Expression) -> Expression {
    Expression::Binary(operator, Box::new(left), Box::new(right))
}

fn unary(input: &mut &str) -> Parsed<Expression> {
    let not = preceded(token("!"), unary).map(|operand| Expression::Not(Box::new(operand)));
    let negate = preceded(token("-"), unary).map(|operand| Expression::Negate(Box::new(operand)));
    alt((not, negate, member)).parse_next(input)
}

fn member(input: &mut &str) -> Parsed<Expression> {
    let map = primary.parse_next(input)?;
    let field = preceded(token("."), name).map(field);
    let keys: Vec<Expression> =
        repeat(0.., alt((field, delimited(token("["), expression, token("]")))))
            .parse_next(input)?;
    let select = |map, key| Expression::Member(Box::new(map), Box::new(key));
    Ok(keys.into_iter().fold(map, select))
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

/// `has` tests a field that is selected by a dot; `has(a["b"])` is rejected.
fn has(input: &mut &str) -> Parsed<Expression> {
    let tested = delimited((token("has"), token("(")), member.with_taken(), token(")"));
    let test = |(tested, text): (Expression, &str)| match tested {
        Expression::Member(map, key) if !text.trim_end().ends_with(']') => {
            Some(Expression::Has(map, key))
        }
        _ => None,
    };
    tested.verify_map(test).parse_next(input)
}

fn field(name: &str) -> Expression {
    Expression::Literal(Value::text(name))
}

fn name<'i>(input: &mut &'i str) -> Parsed<&'i str> {
    let text = (one_of(|c: char| c.is_ascii_alphabetic() || c == '_'), take_while(0.., is_name));
    preceded(multispace0, text.take()).parse_next(input)
}

/// Parses `7`, `7u`, `7.5`, `7e-3`.
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

/// Parses a string in double or single quotes, with the escapes of one character and `\uXXXX`.
fn string(input: &mut &str) -> Parsed<String> {
    let quoted = |quote: char| {
        let plain = none_of([quote, '\\', '\n', '\r']);
        let short =
            one_of(['\\', '"', '\'', '`', '?', 'n', 'r', 't']).map(|escaped| match escaped {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            });
        let digits = take_while(4, |c: char| c.is_ascii_hexdigit());
        let code_point = preceded('u', digits)
            .verify_map(|digits| char::from_u32(u32::from_str_radix(digits, 16).ok()?));
        let escape = preceded('\\', alt((short, code_point)));
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
