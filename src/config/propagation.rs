//! `propagation`: which contexts are read, written and trusted, and where they go.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, EnumAccess, Visitor};

use super::error::{ConfigError, InPath, Result, quoted};
use super::matching::{
    HeaderConditions, RawDirection, RawHeaderMatch, RawStringMatch, port_number,
};
use super::shapes::{OneOrMany, at_least};
use crate::propagation::baggage::{BAGGAGE, Limits};
use crate::propagation::{Format, Propagation, TrustAction};
use crate::sampling::cidr::Cidr;
use crate::sampling::conditions::Conditions;
use crate::sampling::trust::{EgressRule, TrustPolicy, TrustRule};

/// Context formats, by their names in `OTEL_PROPAGATORS` where they have one.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPropagation {
    /// Formats to read, in order; the first valid context wins: [`NAMES`]. `b3` and `b3multi` both read
    /// both encodings of B3. With `none` alone, every request is a root. Default:
    /// `[tracecontext, b3, baggage]`.
    pub extract: Option<Vec<RawFormat>>,
    /// Formats to write, with the same names; `none` alone writes nothing. `b3` is the single header,
    /// `b3multi` the `x-b3-*` headers. Default: `[tracecontext, baggage]`.
    pub inject: Option<Vec<RawFormat>>,
    /// Bounds of the `baggage` header. Default: none; the header is not changed.
    pub baggage: RawBaggage,
    /// How an incoming context is handled: `accept`, `restart` or `ignore_flags`.
    /// Default: `accept`.
    pub trust: Option<RawTrust>,
    /// Exceptions to `trust`, in order; the first rule that matches decides. Default: none.
    #[serde(alias = "trustRules")]
    pub trust_rules: Vec<RawTrustRule>,
    /// Which requests carry contexts and baggage upstream: rules in order; the first that matches decides.
    /// Default: none; every request carries them.
    pub egress: Vec<RawEgressRule>,
    /// Whether new traces get W3C's random flag, which OpenTelemetry's SDK for Go before 1.42
    /// refuses. Default: `false`.
    #[serde(alias = "randomFlag")]
    pub random_flag: bool,
}

/// A name in `propagation.extract` or `propagation.inject`, one of [`NAMES`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RawFormat {
    Context(Format),
    /// The `baggage` header, which is passed on whether it is named or not.
    Baggage,
    None,
}

/// Bounds of the `baggage` header; members beyond them are dropped and counted.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBaggage {
    /// The most members that are passed on, from 64. Default: any number. Example: `64`.
    #[serde(alias = "maxMembers")]
    pub max_members: Option<u32>,
    /// The most bytes that are passed on, from 8192. A member is passed on or dropped as a whole, with its
    /// properties. Default: any number. Example: `8192`.
    #[serde(alias = "maxBytes")]
    pub max_bytes: Option<u32>,
}

/// How an incoming context is handled.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawTrust {
    /// The context is followed.
    Accept,
    /// A new trace starts. Its first span links to the old context.
    Restart,
    /// The ids of the context are kept, but sampling is decided again.
    IgnoreFlags,
}

/// How far the contexts of some callers are trusted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrustRule {
    /// Which requests the rule is for: all conditions must hold; within a list, any one.
    /// Default: every request.
    #[serde(default)]
    pub r#match: RawTrustMatch,
    /// How the context is handled: `accept`, `restart` or `ignore_flags`. Required.
    pub trust: RawTrust,
}

/// Conditions on the caller.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTrustMatch {
    /// `inbound` or `outbound`; a gateway's requests are inbound. Default: both.
    pub direction: Option<RawDirection>,
    /// Ranges of the client's address as Envoy knows it (`source.address`), in CIDR notation.
    /// Default: any. Example: `[10.0.0.0/8, "fd00::/8"]`.
    #[serde(alias = "sourceRanges")]
    pub source_ranges: OneOrMany<String>,
    /// Conditions on request headers. Default: none.
    pub headers: OneOrMany<RawHeaderMatch>,
}

/// Whether contexts go to an authority.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEgressRule {
    /// Conditions on the host of `:authority` (`Host`), without its port; letters match in either case.
    /// Default: every one. Example: `[{suffix: .example.com}]`.
    #[serde(default)]
    pub authority: OneOrMany<RawStringMatch>,
    /// Ports of `:authority`; without a port, 443 for `https` and else 80. Default: any.
    #[serde(default)]
    pub port: OneOrMany<f64>,
    /// `strip` removes all contexts and all baggage, in every format; `keep` leaves them. Required.
    pub action: RawEgress,
}

/// Whether a request keeps its contexts and baggage.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawEgress {
    Keep,
    Strip,
}

impl RawPropagation {
    pub(super) fn compile(
        self,
        headers: &mut HeaderConditions<'_>,
    ) -> Result<(Propagation, TrustPolicy)> {
        let extract = self.extract.unwrap_or_else(|| DEFAULT_EXTRACT.to_vec());
        let inject = self.inject.unwrap_or_else(|| DEFAULT_INJECT.to_vec());
        no_contradiction(&extract).under("extract")?;
        no_contradiction(&inject).under("inject")?;
        let mut read: Vec<Format> = Vec::new();
        for format in extract.iter().filter_map(|name| name.context()) {
            // `b3` and `b3multi` both read both encodings.
            for encoding in format.encodings() {
                if !read.contains(&encoding) {
                    read.push(encoding);
                }
            }
        }
        let silent = inject.is_empty() || inject.contains(&RawFormat::None);
        let written = || inject.iter().filter_map(|name| name.context()).collect();
        let baggage = self.baggage.compile().under("baggage")?;
        let mut propagation = Propagation::new(read, (!silent).then(written), baggage);
        let mut rules = Vec::new();
        for (index, raw) in self.trust_rules.into_iter().enumerate() {
            rules.push(raw.compile(headers).at(index).under("trust_rules")?);
        }
        let mut egress = Vec::new();
        for (index, raw) in self.egress.into_iter().enumerate() {
            egress.push(raw.compile().at(index).under("egress")?);
        }
        propagation.random_flag = self.random_flag;
        let default = self.trust.map_or(TrustAction::Accept, TrustAction::from);
        Ok((propagation, TrustPolicy { default, rules, egress }))
    }
}

fn no_contradiction(formats: &[RawFormat]) -> Result<()> {
    if formats.len() > 1 && formats.contains(&RawFormat::None) {
        return Err(ConfigError::new("`none` alone or other formats", "both"));
    }
    for (index, format) in formats.iter().enumerate() {
        if formats.iter().take(index).any(|before| before == format) {
            return Err(ConfigError::new("each format once", "it again").at(index));
        }
    }
    Ok(())
}

impl RawFormat {
    fn named(name: &str) -> Option<Self> {
        match name {
            BAGGAGE => Some(Self::Baggage),
            NONE => Some(Self::None),
            _ => {
                Format::ALL.iter().find(|format| format.name() == name).copied().map(Self::Context)
            }
        }
    }

    fn context(self) -> Option<Format> {
        match self {
            Self::Context(format) => Some(format),
            Self::Baggage | Self::None => None,
        }
    }
}

impl<'de> Deserialize<'de> for RawFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_enum("format", NAMES, NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = RawFormat;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a format")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, name: A) -> std::result::Result<RawFormat, A::Error> {
        let (name, _) = name.variant::<String>()?;
        RawFormat::named(&name).ok_or_else(|| de::Error::unknown_variant(&name, NAMES))
    }
}

impl RawBaggage {
    fn compile(&self) -> Result<Option<Limits>> {
        let limit = |key, least: usize, value: Option<u32>| match value {
            None => Ok(usize::MAX),
            Some(value) => at_least(least as u32, value).map(|value| value as usize).under(key),
        };
        let limits = Limits {
            max_members: limit("max_members", Limits::MINIMUM.max_members, self.max_members)?,
            max_bytes: limit("max_bytes", Limits::MINIMUM.max_bytes, self.max_bytes)?,
        };
        Ok((self.max_members.is_some() || self.max_bytes.is_some()).then_some(limits))
    }
}

impl From<RawTrust> for TrustAction {
    fn from(raw: RawTrust) -> Self {
        match raw {
            RawTrust::Accept => Self::Accept,
            RawTrust::Restart => Self::Restart,
            RawTrust::IgnoreFlags => Self::IgnoreFlags,
        }
    }
}

impl RawTrustRule {
    fn compile(self, headers: &mut HeaderConditions<'_>) -> Result<TrustRule> {
        let conditions = self.r#match.compile(headers).under("match")?;
        Ok(TrustRule { conditions, action: self.trust.into() })
    }
}

impl RawTrustMatch {
    fn compile(self, headers: &mut HeaderConditions<'_>) -> Result<Conditions> {
        let Self { direction, source_ranges, headers: header_matches } = self;
        Ok(Conditions {
            direction: direction.map(Into::into),
            source_ranges: source_ranges
                .compile(&mut |text| range(&text))
                .under("source_ranges")?,
            headers: headers.compile(header_matches).under("headers")?,
            ..Conditions::default()
        })
    }
}

fn range(text: &str) -> Result<Cidr> {
    Cidr::parse(text).ok_or_else(|| {
        ConfigError::new("an address range, such as 10.0.0.0/8 or fd00::/8", quoted(text))
    })
}

impl RawEgressRule {
    fn compile(self) -> Result<EgressRule> {
        let Self { authority, port, action } = self;
        let conditions = Conditions {
            hosts: authority.compile(&mut RawStringMatch::compile_host).under("authority")?,
            ports: port.compile(&mut port_number).under("port")?,
            ..Conditions::default()
        };
        Ok(EgressRule { conditions, strip: action == RawEgress::Strip })
    }
}

/// The names of all formats, `baggage` and `none`, in the order in which errors list them.
#[expect(clippy::indexing_slicing, reason = "an index out of bounds does not compile here")]
pub(super) const NAMES: &[&str] = &{
    let mut names = [NONE; Format::ALL.len() + 2];
    let mut index = 0;
    while index < Format::ALL.len() {
        names[index] = Format::ALL[index].name();
        index += 1;
    }
    names[index] = BAGGAGE;
    names
};
pub(super) const NONE: &str = "none";
const DEFAULT_EXTRACT: [RawFormat; 3] = [
    RawFormat::Context(Format::TraceContext),
    RawFormat::Context(Format::B3Single),
    RawFormat::Baggage,
];
const DEFAULT_INJECT: [RawFormat; 2] =
    [RawFormat::Context(Format::TraceContext), RawFormat::Baggage];

#[cfg(test)]
mod tests;
