//! JSON -> raw configuration, with the path of whatever is wrong.
//!
//! serde's derived code for these structs takes a third of the module's permitted size, and its
//! errors have no path; a trait and two macros do both.

use super::error::{ConfigError, one_of, quoted};
use super::json::{self, Json};

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

/// Whole numbers may be written as doubles too: Istio's `pluginConfig` passes through a protobuf
/// `Struct`, where every number is one.
impl Decode for u32 {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        let whole =
            |value: &f64| value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(value);
        match &json {
            Json::Number(written) => json::number(written).filter(whole).map(|value| value as u32),
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
            return Err(json.unlike_shape("an array"));
        };
        let mut decoded = Vec::new();
        for (index, json) in values.into_iter().enumerate() {
            decoded.push(T::decode(json).map_err(|error| error.at(index))?);
        }
        Ok(decoded)
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

/// An object with any keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries(pub Vec<(String, String)>);

impl Decode for Entries {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        let Json::Object(entries) = json else {
            return Err(json.unlike_shape("an object"));
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

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T: Decode> Decode for OneOrMany<T> {
    fn decode(json: Json) -> Result<Self, ConfigError> {
        match json {
            // A condition without anything in it would hold for everything.
            Json::Array(values) if values.is_empty() => {
                Err(ConfigError::new("at least one", "an empty array"))
            }
            Json::Array(_) => Vec::decode(json).map(Self::Many),
            json => T::decode(json).map(Self::One),
        }
    }

    fn absent() -> Option<Self> {
        Some(Self::Many(Vec::new()))
    }
}

/// An object under way from JSON to a struct. What is wrong is kept until all fields are taken:
/// leaving at each of them would cost the module the code that drops those before it. A key may be
/// written in lowerCamelCase too, as protobuf's JSON and Istio's resources have it:
/// <https://protobuf.dev/programming-guides/json/>.
pub struct Fields {
    entries: Vec<(String, Json)>,
    /// The key that was taken last, as it is written.
    key: String,
    /// The first thing that is wrong.
    error: Option<ConfigError>,
}

impl Fields {
    /// Takes an object apart that may have these keys and no others.
    pub fn of(json: Json, keys: &[&str]) -> Result<Self, ConfigError> {
        let Json::Object(entries) = json else {
            return Err(json.unlike_shape("an object"));
        };
        match entries.iter().find(|(found, _)| !keys.iter().any(|key| is_key(key, found))) {
            Some((key, _)) => {
                let expected = format!("a known key, {}", one_of(keys));
                Err(ConfigError::new(expected, quoted(key)).under(key))
            }
            None => Ok(Self { entries, key: String::new(), error: None }),
        }
    }

    /// Reads the value under a key, or what stands for it where the key is absent. A value that
    /// is wrong is noted for [`Fields::finish`].
    pub fn take<T: Decode + Default>(&mut self, key: &str) -> T {
        let value = match self.take_json(key) {
            Some(json) => T::decode(json),
            None => {
                T::absent().ok_or_else(|| ConfigError::new("a value, which is required", "none"))
            }
        };
        match value {
            Ok(value) => value,
            Err(error) => {
                self.note(error);
                T::default()
            }
        }
    }

    /// Returns the struct, or the first thing that was wrong.
    pub fn finish<T>(self, decoded: T) -> Result<T, ConfigError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(decoded),
        }
    }

    /// Takes the keys that are left, as they are written.
    pub fn take_rest(&mut self) -> Vec<(String, Json)> {
        std::mem::take(&mut self.entries)
    }

    /// Takes the value under a key.
    fn take_json(&mut self, key: &str) -> Option<Json> {
        let place = self.entries.iter().position(|(found, _)| is_key(key, found));
        let Some(place) = place else {
            self.key = key.to_owned();
            return None;
        };
        let (found, json) = self.entries.swap_remove(place);
        if let Some((again, _)) = self.entries.iter().find(|(found, _)| is_key(key, found)) {
            let error = ConfigError::new("the key once, in one spelling", quoted(again));
            self.key = again.clone();
            self.note(error);
        }
        self.key = found;
        Some(json)
    }

    /// Keeps the error under the key that was taken last, where it is the first.
    #[inline(never)]
    fn note(&mut self, error: ConfigError) {
        if self.error.is_none() {
            self.error = Some(error.under(&self.key));
        }
    }
}

/// Whether `found` is this key, in lower_snake_case as it is or in lowerCamelCase.
pub fn is_key(key: &str, found: &str) -> bool {
    if key == found {
        return true;
    }
    let mut found = found.bytes();
    let mut raise = false;
    for byte in key.bytes() {
        if byte == b'_' {
            raise = true;
        } else {
            let expected = if raise { byte.to_ascii_uppercase() } else { byte };
            raise = false;
            if found.next() != Some(expected) {
                return false;
            }
        }
    }
    found.next().is_none()
}

/// Defines structs that are read from objects: a field is a key, and an absent key is the value
/// that its type says. An absent object is one without keys, where that is valid.
macro_rules! objects {
    ($($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Default)]
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
                let decoded = Self {
                    $($field: fields.take($crate::config::decode::key(stringify!($field))),)*
                };
                fields.finish(decoded)
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
                let place = $crate::config::decode::place_of(&json, &[$($text,)*])?;
                match [$(Self::$variant,)*].get(place) {
                    Some(variant) => Ok(*variant),
                    None => Err(json.unlike("a known name")),
                }
            }
        }
    )*};
}

/// Returns the place of a name among those that are known.
pub fn place_of(json: &Json, names: &[&str]) -> Result<usize, ConfigError> {
    let place = match json {
        Json::Text(text) => names.iter().position(|name| name == text),
        _ => None,
    };
    place.ok_or_else(|| json.unlike(&one_of(names)))
}

pub(super) use {names, objects};

/// Returns the key that a field stands for: its name, without the mark of a raw identifier.
pub const fn key(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}
