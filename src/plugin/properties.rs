//! Several of Envoy's attributes for the price of one.
//!
//! What a property costs Envoy is the call of this module's allocator, by which it hands the value
//! over. Its foreign functions `expr_create` and `expr_evaluate`
//! (`source/extensions/common/wasm/foreign.cc`) evaluate a CEL expression, and a list of attributes
//! is one, handed over at once. An Envoy that is built without its CEL parser lacks them; the
//! properties are then read one by one.

use super::host::{self, Bytes, Failure};

/// A list of attributes that are read together. They are named as in CEL: `response.code`.
pub struct PropertyList<const N: usize> {
    attributes: [&'static str; N],
    /// Envoy's tokens of the compiled expressions, where it has them: first the attributes as they
    /// are, which fails where one is absent, then each behind a `has()`, which costs half as much
    /// again.
    expressions: [Option<Bytes>; 2],
}

/// The values of a [`PropertyList`], in its order, as the host encodes them.
pub enum Properties<const N: usize> {
    Together(Bytes),
    Single([Result<Bytes, Failure>; N]),
}

impl<const N: usize> PropertyList<N> {
    /// Has the host compile the list.
    pub fn compile(attributes: [&'static str; N]) -> Self {
        let expressions = [false, true].map(|guarded| {
            let expression = expression(&attributes, guarded);
            host::call_foreign("expr_create", expression.as_bytes()).ok()
        });
        Self { attributes, expressions }
    }

    /// Reads the attributes of the current stream.
    pub fn read(&self) -> Properties<N> {
        let mut tokens = self.expressions.iter().flatten();
        let together =
            tokens.find_map(|token| host::call_foreign("expr_evaluate", token.as_slice()).ok());
        match together {
            Some(values) => Properties::Together(values),
            None => Properties::Single(
                self.attributes.map(|name| host::property(&name.replace('.', "\0"))),
            ),
        }
    }
}

/// Returns a CEL list of attributes.
fn expression(attributes: &[&'static str], guarded: bool) -> String {
    let mut expression = String::new();
    for name in attributes {
        expression.push(if expression.is_empty() { '[' } else { ',' });
        let parts: &[&str] = if guarded { &["has(", name, ")?", name, ":\"\""] } else { &[name] };
        parts.iter().for_each(|part| expression.push_str(part));
    }
    expression.push(']');
    expression
}

impl<const N: usize> Properties<N> {
    /// Returns the values; one that is absent is empty. Envoy writes a list as pairs whose names are
    /// the values.
    pub fn values(&self) -> [&[u8]; N] {
        let mut values: [&[u8]; N] = [&[]; N];
        match self {
            Self::Together(list) => {
                for (value, (found, _)) in values.iter_mut().zip(host::pairs(list.as_slice())) {
                    *value = found;
                }
            }
            Self::Single(each) => {
                for (value, found) in values.iter_mut().zip(each) {
                    *value = found.as_ref().map(Bytes::as_slice).unwrap_or_default();
                }
            }
        }
        values
    }
}

/// Reads an attribute that Envoy encodes as a 64-bit integer; 0 where it is absent.
pub fn integer(value: &[u8]) -> u64 {
    value.try_into().map(u64::from_le_bytes).unwrap_or_default()
}
