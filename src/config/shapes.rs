//! Types that several sections are made of, and checks of values.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{
    self, Deserialize, DeserializeOwned, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};

use super::error::{ConfigError, InPath, OBJECT, Result, SECRET, quoted};
use crate::http::head;

/// Returns the value of a variable of the VM's environment.
pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Checks that a variable holds neither a token's key nor a credential of the exporter: everybody who
/// can read spans could read it.
pub(super) fn public_variable(name: &str, secrets: &[String]) -> Result<()> {
    if secrets.iter().any(|secret| secret == name) {
        let found = format_args!("{}, which holds a secret", quoted(name));
        return Err(ConfigError::new("the name of a variable without secrets", found));
    }
    Ok(())
}

/// One value, or an array of at least one value.
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// Compiles each value. In an array, the path of an error has the index.
    pub(super) fn compile<C>(self, compile: &mut dyn FnMut(T) -> Result<C>) -> Result<Vec<C>> {
        match self {
            Self::One(value) => Ok(vec![compile(value)?]),
            Self::Many(values) => {
                let values = values.into_iter().enumerate();
                values.map(|(index, value)| compile(value).at(index)).collect()
            }
        }
    }
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or an array of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> std::result::Result<Self::Value, A::Error> {
        let values = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
        if values.is_empty() {
            // As a condition, an empty array would hold for every request.
            return Err(de::Error::custom(ConfigError::new("at least one", "an empty array")));
        }
        Ok(OneOrMany::Many(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(OneOrMany::One)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> std::result::Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> std::result::Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_unit<E: de::Error>(self) -> std::result::Result<Self::Value, E> {
        T::deserialize(().into_deserializer()).map(OneOrMany::One)
    }
}

/// An object with any keys. They stay in the order of the text.
pub(super) struct Entries<T>(pub Vec<(String, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

struct EntriesVisitor<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for EntriesVisitor<T> {
    type Value = Entries<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(OBJECT)
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

/// A string that must not appear in any log or error.
pub(super) struct Secret(pub String);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SECRET)
    }

    fn visit_str<E>(self, secret: &str) -> std::result::Result<Secret, E> {
        Ok(Secret(secret.to_owned()))
    }
}

/// Reads the value of a key that may be absent, but not null.
pub(super) fn not_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Checks that a string is not empty.
pub(super) fn non_empty(value: String) -> Result<String> {
    if value.is_empty() { Err(ConfigError::new("a non-empty string", "\"\"")) } else { Ok(value) }
}

/// Checks the lower bound of a number.
pub(super) fn at_least(least: u32, value: u32) -> Result<u32> {
    if value < least {
        return Err(ConfigError::new(format_args!("a whole number from {least} up"), value));
    }
    Ok(value)
}

/// Checks that a number is from `least` to `most`, both included.
pub(super) fn within(least: u32, most: u32, value: u32) -> Result<u32> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::new(format_args!("a whole number from {least} to {most}"), value))
}

/// Checks the name of a header: a token of RFC 9110, section 5.6.2, or a pseudo-header of a request.
/// Returns the name in lower case, as Envoy keeps it.
pub(super) fn header_name(name: &str) -> Result<String> {
    let lower = name.to_ascii_lowercase();
    let pseudo = [head::PATH, head::METHOD, head::AUTHORITY, head::SCHEME];
    if pseudo.contains(&lower.as_str())
        || (!name.is_empty() && name.as_bytes().iter().all(head::is_tchar))
    {
        return Ok(lower);
    }
    Err(ConfigError::new("the name of a header", quoted(name)))
}
