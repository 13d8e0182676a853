//! JSON -> raw configuration, with the path of whatever is wrong.
//!
//! serde's derived code for these structs takes a third of the module's permitted size, and its
//! errors have no path; a trait and two macros do both.

use super::error::{ConfigError, one_of, quoted};
use super::json::Json;

/// A value that can be read from JSON.
pub trait Decode: Sized {
    /// Reads the value; the error's path starts at it.
    fn decode(json: Json) -> Result<Self, ConfigError>;

    /// Returns the value of a key that is absent, and none where the key is required.
    fn absent() -> Option<Self> {
        None
    }
}

impl Decode for bool {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        match json {
            Json::Bool(value) => Ok(value),
            other => Err(other.unlike("true or false")),
        }
    }

    fn absent() -> Option<Self> {
        Some(false)
    }
}

impl Decode for f64 {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        match &json {
            Json::Number(number) => number.as_f64().ok_or_else(|| json.unlike("a number")),
            other => Err(other.unlike("a number")),
        }
    }
}

/// Whole numbers may be written as doubles too: Istio's `pluginConfig` passes through a protobuf
/// `Struct`, where every number is one.
impl Decode for u32 {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        let whole =
            |value: &f64| value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(value);
        match &json {
            Json::Number(number) => number.as_f64().filter(whole).map(|value| value as u32),
            _ => None,
        }
        .ok_or_else(|| json.unlike("a whole number from 0 to 4294967295"))
    }
}

impl Decode for String {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        match json {
            Json::Text(text) => Ok(text),
            other => Err(other.unlike("a string")),
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        match json {
            Json::Null => Ok(None),
            json => T::decode(json).map(Some),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        let Json::Array(values) = json else {
            return Err(json.unlike("an array"));
        };
        let values = values.into_iter().enumerate();
        values.map(|(index, json)| T::decode(json).map_err(|error| error.at(index))).collect()
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

/// An object with any keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries(pub Vec<(String, String)>);

impl Decode for Entries {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        let Json::Object(entries) = json else {
            return Err(json.unlike("an object"));
        };
        let mut decoded = Vec::with_capacity(entries.len());
        for (key, json) in entries {
            let value = String::decode(json).map_err(|error| error.under(&key))?;
            decoded.push((key, value));
        }
        Ok(Self(decoded))
    }

    fn absent() -> Option<Self> {
        Some(Self(Vec::new()))
    }
}

/// A value, or an array of such values.
#[derive(Debug)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: Decode> Decode for OneOrMany<T> {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        match json {
            Json::Array(_) => Vec::decode(json).map(Self::Many),
            json => T::decode(json).map(Self::One),
        }
    }

    fn absent() -> Option<Self> {
        Some(Self::Many(Vec::new()))
    }
}

/// An object under way from JSON to a struct.
pub struct Fields(Vec<(String, Json)>);

impl Fields {
    /// Takes an object apart that may have these keys and no others.
    pub fn of(json: Json, keys: &[&str]) -> Result<Self, ConfigError> {
        let Json::Object(entries) = json else {
            return Err(json.unlike("an object"));
        };
        match entries.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
            Some((key, _)) => {
                let expected = format!("a known key, {}", one_of(keys));
                Err(ConfigError::new(expected, quoted(key)).under(key))
            }
            None => Ok(Self(entries)),
        }
    }

    /// Reads the value under a key, or what stands for it where the key is absent.
    pub fn take<T: Decode>(&mut self, key: &str) -> Result<T, ConfigError> {
        match self.0.iter().position(|(found, _)| found == key) {
            Some(place) => T::decode(self.0.swap_remove(place).1),
            None => {
                T::absent().ok_or_else(|| ConfigError::new("a value, which is required", "none"))
            }
        }
        .map_err(|error| error.under(key))
    }

    /// Returns the keys that were not taken, as an object, where there are any.
    pub fn rest(self) -> Option<Json> {
        (!self.0.is_empty()).then_some(Json::Object(self.0))
    }
}

/// Defines structs that are read from objects: a field is a key, and an absent key is the value
/// that its type says. An absent object is one without keys, where that is valid.
macro_rules! objects {
    ($($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $name {
            /// The keys that the object may have.
            pub const KEYS: &[&str] = &[$($crate::config::decode::key(stringify!($field)),)*];
        }

        impl $crate::config::decode::Decode for $name {
            fn decode(json: $crate::config::json::Json) -> Result<Self, $crate::config::ConfigError> {
                let mut fields = $crate::config::decode::Fields::of(json, Self::KEYS)?;
                Ok(Self {
                    $($field: fields.take($crate::config::decode::key(stringify!($field)))?,)*
                })
            }
            fn absent() -> Option<Self> {
                Self::decode($crate::config::json::Json::Object(Vec::new())).ok()
            }
        }
    )*};
}

/// Defines enums that are read from names.
macro_rules! names {
    ($($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $crate::config::decode::Decode for $name {
            fn decode(json: $crate::config::json::Json) -> Result<Self, $crate::config::ConfigError> {
                match &json {
                    $($crate::config::json::Json::Text(text) if text == $text => Ok(Self::$variant),)*
                    other => Err(other.unlike($crate::config::error::one_of(&[$($text,)*]))),
                }
            }
        }
    )*};
}

pub(super) use {names, objects};

/// Returns the key that a field stands for: its name, without the mark of a raw identifier.
pub const fn key(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}
