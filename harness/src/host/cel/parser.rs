//! Parses the subset of CEL that this host evaluates.
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md>
//!
//! ```text
//! expression = or [ "?" or ":" expression ]
//! or         = and *( "||" and )
//! and        = relation *( "&&" relation )
//! relation   = sum *( ( "==" / "!=" / "<" / "<=" / ">" / ">=" / "in" ) sum )
//! sum        = product *( ( "+" / "-" ) product )
//! product    = unary *( ( "*" / "/" / "%" ) unary )
//! unary      = "!" unary / "-" unary / member
//! member     = primary *( "." macro / "." call / "." name / "[" expression "]" )
//! primary    = "has(" member "." name ")" / "(" expression ")" / list / literal / call / name
//! list       = "[" [ expression *( "," expression ) ] [ "," ] "]"
//! call       = function "(" [ expression *( "," expression ) ] ")"
//! macro      = ( "all" / "exists" / "filter" / "map" ) "(" name "," expression ")"
//! ```
//!
//! A comment begins with `//` and ends with its line. The rest of CEL (maps, bytes, messages, other
//! macros, functions that Envoy does not have) is rejected, as is text that is not CEL.

use winnow::ascii::{digit1, multispace1, till_line_ending};
use winnow::combinator::{
    alt, delimited, not, opt, preceded, repeat, separated, separated_foldl1, terminated,
};
use winnow::error::EmptyError;
use winnow::prelude::*;
use winnow::token::{none_of, one_of, take_till, take_while};

use super::{Expression, Function, Macro, Operator};
use crate::host::value::Value;

type Parsed<T> = Result<T, EmptyError>;

/// Parses a whole expression.
pub(crate) fn parse(text: &str) -> Option<Expression> {
    terminated(expression, space).parse(text).ok()
}

/// Parses white space and comments.
fn space(input: &mut &str) -> Parsed<()> {
    repeat(0.., alt((multispace1.void(), ("//", till_line_ending).void()))).parse_next(input)
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
        token("<=").value(Operator::LessOrEqual),
        token("<").value(Operator::Less),
        token(">=").value(Operator::GreaterOrEqual),
        token(">").value(Operator::Greater),
        terminated(token("in"), not(one_of(is_name))).value(Operator::In),
    ));
    separated_foldl1(sum, operator, operation).parse_next(input)
}

fn sum(input: &mut &str) -> Parsed<Expression> {
    let operator = alt((token("+").value(Operator::Add), token("-").value(Operator::Subtract)));
    separated_foldl1(product, operator, operation).parse_next(input)
}

fn product(input: &mut &str) -> Parsed<Expression> {
    let operator = alt((
        token("*").value(Operator::Multiply),
        token("/").value(Operator::Divide),
        token("%").value(Operator::Remainder),
    ));
    separated_foldl1(unary, operator, operation).parse_next(input)
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
    let mut found = primary.parse_next(input)?;
    while let Some(step) = opt(step).parse_next(input)? {
        found = match step {
            Step::Key(key) => Expression::Member(Box::new(found), Box::new(key)),
            Step::Call(function, arguments) => {
                Expression::Call(function, [vec![found], arguments].concat())
            }
            Step::Macro(kind, name, body) => {
                Expression::Macro(kind, Box::new(found), name, Box::new(body))
            }
        };
    }
    Ok(found)
}

/// What follows the beginning of a member.
enum Step {
    Key(Expression),
    Call(Function, Vec<Expression>),
    Macro(Macro, String, Expression),
}

fn step(input: &mut &str) -> Parsed<Step> {
    let kind = name.verify_map(Macro::by_name);
    let arguments = (preceded(token("("), name), preceded(token(","), expression));
    let of_macro = (kind, terminated(arguments, token(")")));
    let dotted = alt((
        of_macro.map(|(kind, (name, body))| Step::Macro(kind, name.to_owned(), body)),
        call(Function::method).map(|(function, arguments)| Step::Call(function, arguments)),
        terminated(name, not(token("("))).map(|name| Step::Key(field(name))),
    ));
    let indexed = delimited(token("["), expression, token("]")).map(Step::Key);
    alt((preceded(token("."), dotted), indexed)).parse_next(input)
}

fn call<'i>(
    by_name: fn(&str) -> Option<Function>,
) -> impl Parser<&'i str, (Function, Vec<Expression>), EmptyError> {
    let arguments = delimited(token("("), separated(0.., expression, token(",")), token(")"));
    (name.verify_map(by_name), arguments)
}

fn primary(input: &mut &str) -> Parsed<Expression> {
    let list = terminated(separated(0.., expression, token(",")), opt(token(",")));
    alt((
        has,
        call(Function::global).map(|(function, arguments)| Expression::Call(function, arguments)),
        delimited(token("("), expression, token(")")),
        delimited(token("["), list, token("]")).map(Expression::List),
        string.map(|text: String| Expression::Literal(Value::text(text))),
        preceded(space, number).map(Expression::Literal),
        terminated(name, not(token("("))).verify_map(|name| {
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
    preceded(space, text.take()).parse_next(input)
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

/// Parses a string in double or single quotes, with the escapes of one character and `\uXXXX`; a raw
/// string, after `r`, has none.
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
    let raw = |quote: char| {
        delimited(('r', quote), take_till(0.., [quote, '\n']).map(str::to_owned), quote)
    };
    preceded(space, alt((quoted('"'), quoted('\''), raw('"'), raw('\'')))).parse_next(input)
}

fn token<'i>(text: &'static str) -> impl Parser<&'i str, &'i str, EmptyError> {
    preceded(space, text)
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
