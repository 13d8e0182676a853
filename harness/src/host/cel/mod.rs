//! CEL expressions, with which a module reads several attributes in one hostcall: Envoy's foreign
//! functions `expr_create` and `expr_evaluate` (`source/extensions/common/wasm/foreign.cc`).
//!
//! The crate `cel` (0.15) does not make this shorter. Its strings are UTF-8, while Envoy's are any
//! bytes, so attributes, header maps and messages (which are read field by field) would need value types
//! of our own with all their operators. It also brings an ANTLR runtime. So this is the subset of CEL in
//! [`parser`], evaluated as cel-cpp does.

mod functions;
mod parser;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use self::functions::Function;
use super::status::Status;
use super::value::Value;

/// A compiled expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expression {
    Literal(Value),
    Name(String),
    /// `map.key` or `map[key]`.
    Member(Box<Expression>, Box<Expression>),
    /// `has(map.key)`.
    Has(Box<Expression>, Box<Expression>),
    List(Vec<Expression>),
    Not(Box<Expression>),
    Negate(Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
    Call(Function, Vec<Expression>),
    /// `list.map(name, body)`.
    Macro(Macro, Box<Expression>, String, Box<Expression>),
    /// `condition ? then : otherwise`, in this order.
    Conditional(Box<[Expression; 3]>),
}

/// An operator with two operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    In,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// A macro over the items of a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Macro {
    All,
    Exists,
    Filter,
    Map,
}

impl Macro {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "exists" => Self::Exists,
            "filter" => Self::Filter,
            "map" => Self::Map,
            _ => return None,
        })
    }
}

/// Returns an attribute by its path, whose parts are separated by NUL.
type ReadAttribute<'a> = &'a dyn Fn(&str) -> Result<Value, Status>;

impl Expression {
    /// Compiles an expression; `None` if it is not in the grammar of [`parser`].
    pub(crate) fn parse(text: &str) -> Option<Self> {
        parser::parse(text)
    }

    /// Evaluates the expression. An error in any part that is evaluated fails the whole expression,
    /// such as an absent attribute or an operand of the wrong type.
    pub(crate) fn evaluate(&self, read: ReadAttribute) -> Result<Value, Status> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Name(name) => match functions::type_by_name(name) {
                Some(of) => Value::Type(of),
                None => read(name).map_err(|_| FAILED)?,
            },
            Self::Member(map, key) => {
                member(&map.evaluate(read)?, &key.evaluate(read)?, read)?.ok_or(FAILED)?
            }
            Self::Has(map, key) => {
                let (map, key) = (map.evaluate(read)?, key.evaluate(read)?);
                let found = member(&map, &key, read)?;
                // A map field of a protobuf message: `has` is true if the map is not empty.
                let is_protobuf = matches!(map, Value::Message(path) if path.ends_with("metadata"));
                Value::Bool(found.is_some_and(|found| !is_protobuf || found != Value::Map(vec![])))
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
            Self::Binary(operator, left, right) => binary(*operator, left, right, read)?,
            Self::Call(function, arguments) => {
                let values = arguments.iter().map(|argument| argument.evaluate(read));
                function.apply(&values.collect::<Result<Vec<_>, _>>()?)?
            }
            Self::Macro(kind, list, name, body) => {
                let Value::List(items) = list.evaluate(read)? else {
                    return Err(FAILED);
                };
                over_items(*kind, items, name, body, read)?
            }
            Self::Conditional(parts) => {
                let [condition, then, otherwise] = parts.as_ref();
                let branch = if condition.condition(read)? { then } else { otherwise };
                branch.evaluate(read)?
            }
        })
    }

    fn condition(&self, read: ReadAttribute) -> Result<bool, Status> {
        match self.evaluate(read)? {
            Value::Bool(value) => Ok(value),
            _ => Err(FAILED),
        }
    }
}

/// Evaluates a macro, whose body sees each item under a name.
fn over_items(
    kind: Macro,
    items: Vec<Value>,
    name: &str,
    body: &Expression,
    read: ReadAttribute,
) -> Result<Value, Status> {
    let of_item = |item: &Value| {
        body.evaluate(&|path| if path == name { Ok(item.clone()) } else { read(path) })
    };
    let holds = |item: &Value| match of_item(item)? {
        Value::Bool(holds) => Ok(holds),
        _ => Err(FAILED),
    };
    Ok(match kind {
        Macro::Map => Value::List(items.iter().map(of_item).collect::<Result<_, _>>()?),
        Macro::All => {
            let all: Vec<bool> = items.iter().map(holds).collect::<Result<_, _>>()?;
            Value::Bool(all.iter().all(|holds| *holds))
        }
        Macro::Exists => {
            let all: Vec<bool> = items.iter().map(holds).collect::<Result<_, _>>()?;
            Value::Bool(all.iter().any(|holds| *holds))
        }
        Macro::Filter => {
            let mut kept = Vec::new();
            for item in items {
                if holds(&item)? {
                    kept.push(item);
                }
            }
            Value::List(kept)
        }
    })
}

/// Returns a map's value by key or a list's item by index; `None` if a map does not have the key.
fn member(map: &Value, key: &Value, read: ReadAttribute) -> Result<Option<Value>, Status> {
    match (map, key) {
        (Value::Message(path), Value::Text(key)) => {
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
    left: &Expression,
    right: &Expression,
    read: ReadAttribute,
) -> Result<Value, Status> {
    let operands = || Ok((left.evaluate(read)?, right.evaluate(read)?));
    Ok(match operator {
        // If one operand decides the result, an error in the other is ignored.
        Operator::Or | Operator::And => {
            let decisive = operator == Operator::Or;
            match (left.condition(read), right.condition(read)) {
                (Ok(value), _) | (_, Ok(value)) if value == decisive => Value::Bool(decisive),
                (Ok(_), Ok(_)) => Value::Bool(!decisive),
                _ => return Err(FAILED),
            }
        }
        Operator::Equal => operands().map(|(left, right)| Value::Bool(equal(&left, &right)))?,
        Operator::NotEqual => operands().map(|(left, right)| Value::Bool(!equal(&left, &right)))?,
        Operator::In => match operands()? {
            (value, Value::List(items)) => {
                Value::Bool(items.iter().any(|item| equal(item, &value)))
            }
            (key, map @ (Value::Map(_) | Value::Headers(_) | Value::Message(_))) => {
                Value::Bool(member(&map, &key, read)?.is_some())
            }
            _ => return Err(FAILED),
        },
        Operator::Add => match operands()? {
            (Value::Text(left), Value::Text(right)) => Value::Text([left, right].concat()),
            (Value::List(left), Value::List(right)) => Value::List([left, right].concat()),
            (Value::Int(left), Value::Int(right)) => {
                Value::Int(left.checked_add(right).ok_or(FAILED)?)
            }
            (Value::Uint(left), Value::Uint(right)) => {
                Value::Uint(left.checked_add(right).ok_or(FAILED)?)
            }
            (Value::Double(left), Value::Double(right)) => Value::Double(left + right),
            _ => return Err(FAILED),
        },
        Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => {
            let (left, right) = operands()?;
            arithmetic(operator, &left, &right).ok_or(FAILED)?
        }
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            let (left, right) = operands()?;
            let order = order(&left, &right).ok_or(FAILED)?;
            Value::Bool(match operator {
                Operator::Less => order.is_lt(),
                Operator::LessOrEqual => order.is_le(),
                Operator::Greater => order.is_gt(),
                _ => order.is_ge(),
            })
        }
    })
}

/// Computes with two numbers of one type. Returns `None` where the result is not of that type.
fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Option<Value> {
    macro_rules! of_integers {
        ($left:expr, $right:expr) => {
            match operator {
                Operator::Subtract => $left.checked_sub($right)?,
                Operator::Multiply => $left.checked_mul($right)?,
                Operator::Divide => $left.checked_div($right)?,
                _ => $left.checked_rem($right)?,
            }
        };
    }
    Some(match (left, right) {
        (Value::Int(left), Value::Int(right)) => Value::Int(of_integers!(left, *right)),
        (Value::Uint(left), Value::Uint(right)) => Value::Uint(of_integers!(left, *right)),
        (Value::Double(left), Value::Double(right)) => Value::Double(match operator {
            Operator::Subtract => left - right,
            Operator::Multiply => left * right,
            Operator::Divide => left / right,
            _ => return None,
        }),
        _ => return None,
    })
}

/// Orders two texts, booleans or numbers.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        _ => number(left)?.partial_cmp(&number(right)?),
    }
}

/// Compares two values. Numbers of different types are compared as numbers; other values of different
/// types are not equal.
fn equal(left: &Value, right: &Value) -> bool {
    left == right || number(left).is_some_and(|left| number(right) == Some(left))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        _ => None,
    }
}

const FAILED: Status = Status::InternalFailure;
