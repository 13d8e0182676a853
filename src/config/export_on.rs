//! `sampling.export_on`: the requests that are exported because of how they end.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Unexpected, Visitor};

use super::error::{ConfigError, InPath, Result, quoted};
use super::limit::RawLimit;
use super::shapes::OneOrMany;
use crate::http::response_flags;
use crate::sampling::export_on::ExportOn;
use crate::sampling::export_reason::ExportReason;
use crate::sampling::late_limit::LateLimit;

/// The conditions under which a request is exported late; one of them is enough.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawExportOn {
    /// Status codes and classes. Default: none. Example: `["5xx", 429]`.
    pub status: OneOrMany<RawStatus>,
    /// gRPC status codes, from 0 to 16. Default: none. Example: `[2, 13, 14]`.
    #[serde(alias = "grpcStatus")]
    pub grpc_status: OneOrMany<RawGrpcStatus>,
    /// Envoy's response flags by their short names. Default: none. Example: `[UH, UF]`.
    #[serde(alias = "responseFlags")]
    pub response_flags: OneOrMany<String>,
    /// Whether streams are exported that a timeout, the client or the upstream cut short. Default: `false`.
    pub resets: bool,
    /// The shortest duration of a request that is exported, in milliseconds. Default: none.
    /// Example: `1000`.
    #[serde(alias = "minDurationMs")]
    pub min_duration_ms: Option<u32>,
    /// The limit of late spans; spans over the limit are dropped and counted. Half of the limit is divided
    /// evenly among the conditions: each class of status codes, and each other key.
    /// Default: `{per_second: 100}`.
    pub limit: Option<RawLimit>,
    /// The most bytes of request headers that a worker holds until its requests end. A request whose
    /// headers have no room gets no late span, and is counted. Default: `8388608`.
    #[serde(alias = "maxHeldBytes")]
    pub max_held_bytes: Option<u32>,
}

/// A status code, or a class of them such as `5xx`: its codes from the first to the last.
#[derive(Clone, Copy)]
pub(super) struct RawStatus {
    first: u16,
    last: u16,
}

impl<'de> Deserialize<'de> for RawStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(StatusVisitor)
    }
}

struct StatusVisitor;

impl Visitor<'_> for StatusVisitor {
    type Value = RawStatus;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status code from 100 to 599, or a class from 1xx to 5xx")
    }

    fn visit_str<E: de::Error>(self, class: &str) -> std::result::Result<RawStatus, E> {
        match class.as_bytes() {
            [digit @ b'1'..=b'5', b'x', b'x'] => {
                let first = u16::from(digit - b'0') * 100;
                Ok(RawStatus { first, last: first + 99 })
            }
            _ => Err(E::invalid_value(Unexpected::Str(class), &self)),
        }
    }

    fn visit_f64<E: de::Error>(self, code: f64) -> std::result::Result<RawStatus, E> {
        if code.fract() != 0.0 || !(100.0..=599.0).contains(&code) {
            return Err(E::invalid_value(Unexpected::Float(code), &self));
        }
        let code = code as u16;
        Ok(RawStatus { first: code, last: code })
    }
}

/// A gRPC status code.
#[derive(Clone, Copy)]
pub(super) struct RawGrpcStatus(u64);

impl<'de> Deserialize<'de> for RawGrpcStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(GrpcStatusVisitor)
    }
}

struct GrpcStatusVisitor;

impl Visitor<'_> for GrpcStatusVisitor {
    type Value = RawGrpcStatus;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0 to 16")
    }

    fn visit_f64<E: de::Error>(self, code: f64) -> std::result::Result<RawGrpcStatus, E> {
        if code.fract() != 0.0 || !(0.0..=MAX_GRPC_STATUS).contains(&code) {
            return Err(E::invalid_value(Unexpected::Float(code), &self));
        }
        Ok(RawGrpcStatus(code as u64))
    }
}

impl RawExportOn {
    pub(super) fn compile(self) -> Result<ExportOn> {
        let status = self.status.compile(&mut |raw| Ok((raw.first, raw.last))).under("status")?;
        let grpc_status = self.grpc_status.compile(&mut |raw| Ok(raw.0)).under("grpc_status")?;
        let flags = self.response_flags.compile(&mut |name| flag(&name)).under("response_flags")?;
        let min_duration_nanos = self.min_duration_ms.map(|millis| u64::from(millis) * 1_000_000);
        let mut reasons = Vec::new();
        for class in status.iter().flat_map(|(first, last)| first / 100..=last / 100) {
            let reason = ExportReason::StatusClass(class);
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let others = [
            (!grpc_status.is_empty(), ExportReason::GrpcStatus),
            (!flags.is_empty(), ExportReason::ResponseFlags),
            (self.resets, ExportReason::Reset),
            (min_duration_nanos.is_some(), ExportReason::Duration),
        ];
        reasons.extend(others.iter().filter(|(is_given, _)| *is_given).map(|(_, reason)| *reason));
        let limit = limit(self.limit, &reasons).under("limit")?;
        if reasons.is_empty() {
            let expected = "one of `status`, `grpc_status`, `response_flags`, `resets`, \
                            `min_duration_ms`";
            return Err(ConfigError::new(expected, "none of them"));
        }
        Ok(ExportOn {
            status,
            grpc_status,
            flags: flags.into_iter().fold(0, |all, flag| all | flag),
            resets: self.resets,
            min_duration_nanos,
            limit,
            max_held_bytes: self.max_held_bytes.unwrap_or(DEFAULT_MAX_HELD_BYTES) as usize,
        })
    }
}

fn flag(short_name: &str) -> Result<u64> {
    let expected = "the short name of one of Envoy's response flags";
    response_flags::bit(short_name).ok_or_else(|| ConfigError::new(expected, quoted(short_name)))
}

fn limit(raw: Option<RawLimit>, reasons: &[ExportReason]) -> Result<LateLimit> {
    let (per_second, burst) = match raw {
        Some(raw) => raw.numbers()?,
        None => (DEFAULT_PER_SECOND, DEFAULT_PER_SECOND as u32),
    };
    LateLimit::new(reasons, per_second, burst)
        .ok_or_else(|| ConfigError::new("a whole number from 1 to 1000000", burst).under("burst"))
}

const DEFAULT_PER_SECOND: f64 = 100.0;
const DEFAULT_MAX_HELD_BYTES: u32 = 8 << 20;
const MAX_GRPC_STATUS: f64 = 16.0;

#[cfg(test)]
mod tests {
    use crate::config::testing::check_refused;

    #[test]
    fn wrong_conditions_are_refused_with_their_path() {
        let one_of =
            "one of `status`, `grpc_status`, `response_flags`, `resets`, `min_duration_ms`";
        let status = "a status code from 100 to 599, or a class from 1xx to 5xx";
        let flag = "the short name of one of Envoy's response flags";
        for (members, path, findings) in [
            ("", "", [one_of, "found none of them"]),
            (r#""limit": {"per_second": 1}"#, "", [one_of, "found none of them"]),
            (r#""status": ["6xx"]"#, ".status[0]", [status, "found \"6xx\""]),
            (r#""status": "5XX""#, ".status", [status, "found \"5XX\""]),
            (r#""status": [99.5]"#, ".status[0]", [status, "found 99.5"]),
            (r#""status": [500, 600]"#, ".status[1]", [status, "found 600"]),
            (r#""status": [[500]]"#, ".status[0]", [status, "found an array"]),
            (r#""status": {}"#, ".status", [status, "found an object"]),
            (r#""status": []"#, ".status", ["at least one", "an empty array"]),
            (r#""grpc_status": 17"#, ".grpc_status", ["from 0 to 16", "found 17"]),
            (r#""grpc_status": [1, 1.5]"#, ".grpc_status[1]", ["a whole number", "found 1.5"]),
            (r#""grpc_status": {}"#, ".grpc_status", ["a whole number", "found an object"]),
            (r#""response_flags": ["UH", "uf"]"#, ".response_flags[1]", [flag, "found \"uf\""]),
            (r#""responseFlags": null"#, ".responseFlags", ["a string", "found null"]),
            (r#""min_duration_ms": -1"#, ".min_duration_ms", ["a whole number", "found -1"]),
            (
                r#""resets": true, "limit": {"per_second": 1e7}"#,
                ".limit.per_second",
                ["from 0.001 to 1000000", "found 10000000"],
            ),
        ] {
            let json = format!(r#"{{"sampling": {{"export_on": {{{members}}}}}}}"#);
            check_refused(&json, &format!("sampling.export_on{path}"), &findings);
        }
    }
}
