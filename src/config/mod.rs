//! The configuration: JSON bytes in, everything a request needs precompiled out.

mod compile;
mod decode;
mod error;
pub mod raw;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::propagation::Propagation;
use crate::queue::Limits;
use crate::ratio::Ratio;
use crate::rules::Rules;

pub use error::ConfigError;

/// A configuration in force.
#[derive(Debug, Clone)]
pub struct Config {
    pub service_name: Option<String>,
    pub resource_attributes: BTreeMap<String, String>,
    pub propagation: Propagation,
    /// Share of roots that are sampled where no rule says otherwise.
    pub ratio: Ratio,
    pub rules: Rules,
    pub tags: Tags,
    pub exporter: Option<Exporter>,
}

/// The attributes of one's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// Those that never change, encoded as a span holds them.
    pub constant: Vec<u8>,
    pub request_headers: Vec<RequestHeaderTag>,
}

/// An attribute whose value is a request header's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeaderTag {
    pub tag: String,
    pub header: String,
    pub default_value: Option<String>,
}

/// Where spans go, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exporter {
    pub cluster: String,
    pub path: String,
    pub timeout: Duration,
    /// Name and value of each header besides those that OTLP asks for.
    pub headers: Vec<(String, String)>,
    pub limits: Limits,
    /// Longest time a span waits for its batch.
    pub interval: Duration,
}

impl Config {
    /// Reads a configuration. `environment` looks a variable of the VM up.
    ///
    /// The first thing that is wrong is returned, with its path, what was expected there and what
    /// was found. An empty input is the empty object, which is valid.
    pub fn parse(
        json: &[u8],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        compile::config(decode::decode(json)?, environment)
    }
}
