//! Several of Envoy's attributes for the price of one.
//!
//! What a property costs Envoy is the call of this module's allocator, by which it hands the value
//! over. Its foreign functions `expr_create` and `expr_evaluate`
//! (`source/extensions/common/wasm/foreign.cc`) evaluate a CEL expression, and a list of attributes
//! is one, handed over at once. An Envoy that is built without its CEL parser lacks them; the
//! properties are then read one by one.

use super::host::{self, Bytes, Failure};

/// A list of attributes that are read together.
pub struct PropertyList<const N: usize> {
    attributes: [Attribute; N],
    /// Envoy's token of the compiled expression, where it has one.
    expression: Option<Bytes>,
}

/// An attribute as CEL names it, such as `response.code`.
#[derive(Debug, Clone, Copy)]
pub enum Attribute {
    /// There for every stream.
    Always(&'static str),
    /// Not there for every stream; its value is then empty.
    Maybe(&'static str),
}

/// The values of a [`PropertyList`], in its order, as the host encodes them.
pub enum Properties<const N: usize> {
    Together(Bytes),
    Single([Result<Bytes, Failure>; N]),
}

impl<const N: usize> PropertyList<N> {
    /// Has the host compile the list.
    pub fn compile(attributes: [Attribute; N]) -> Self {
        let mut expression = String::from("[");
        for attribute in &attributes {
            attribute.write_to(&mut expression);
        }
        expression.push(']');
        let expression = host::call_foreign("expr_create", expression.as_bytes()).ok();
        Self { attributes, expression }
    }

    /// Reads the attributes of the current stream. Where one is absent that is said to be always
    /// there, the host evaluates none of them, and they are read one by one.
    pub fn read(&self) -> Properties<N> {
        let together = self
            .expression
            .as_ref()
            .and_then(|token| host::call_foreign("expr_evaluate", token.as_slice()).ok());
        match together {
            Some(values) => Properties::Together(values),
            None => Properties::Single(
                self.attributes
                    .map(|attribute| host::property(&attribute.name().replace('.', "\0"))),
            ),
        }
    }
}

impl Attribute {
    fn name(self) -> &'static str {
        match self {
            Self::Always(name) | Self::Maybe(name) => name,
        }
    }

    /// Writes the element of a CEL list. CEL takes a comma behind the last one too.
    fn write_to(self, expression: &mut String) {
        let name = self.name();
        match self {
            Self::Always(_) => expression.push_str(name),
            Self::Maybe(_) => {
                for part in ["has(", name, ")?", name, ":\"\""] {
                    expression.push_str(part);
                }
            }
        }
        expression.push(',');
    }
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
