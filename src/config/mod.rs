//! The configuration: JSON text in, compiled settings out.
//!
//! [`Config::parse`] takes three steps: `document` reads the text as a [`value::Value`], serde reads
//! that as [`RawConfig`], and `compile` checks and compiles it. Each section of the configuration is a
//! file, which holds its raw structs and their compilation. The doc comments of the raw structs are the
//! users' reference: docs/configuration.md is written from them (see `page`).

pub(crate) mod acceptance;
mod access_log;
mod attribute_limits;
mod document;
mod error;
mod export_on;
mod exporter;
mod limit;
mod matching;
mod propagation;
mod queue;
mod resource;
mod response;
mod sampling;
mod shapes;
mod span;
mod tags;
mod token;
mod value;

#[cfg(test)]
mod page;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use serde::Deserialize;

use crate::export::ExporterSettings;
use crate::http::digits;
use crate::propagation::response::Response;
use crate::propagation::{Format, Propagation};
use crate::sampling::conditions::Conditions;
use crate::sampling::export_on::ExportOn;
use crate::sampling::limit::Limit;
use crate::sampling::ratio::Ratio;
use crate::sampling::rules::Rules;
use crate::sampling::token::TokenHeader;
use crate::sampling::trust::TrustPolicy;
use crate::span::SpanSettings;
use crate::span::resource::ResourceSettings;

use self::error::InPath;
use self::matching::HeaderConditions;
use self::shapes::{Entries, Environment, non_empty};

pub(crate) use self::error::ConfigError;

/// A compiled configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub resource: ResourceSettings,
    pub propagation: Propagation,
    pub trust: TrustPolicy,
    /// Share of root requests that are sampled where no rule says otherwise.
    pub ratio: Ratio,
    /// The same share, as the configuration has it.
    configured_ratio: f64,
    pub rules: Rules,
    /// The limit of all spans, whatever their reason.
    pub limit: Option<Limit>,
    pub export_on: Option<ExportOn>,
    /// Headers that hold tokens. Conditions refer to them by index.
    pub tokens: Vec<TokenHeader>,
    /// Headers that are removed before the request goes upstream.
    pub strip: Vec<String>,
    pub span: SpanSettings,
    pub response: Response,
    /// Whether access logs get the trace context.
    pub logs_context: bool,
    pub exporter: Option<ExporterSettings>,
}

impl Config {
    /// Parses a configuration, except for its CEL expressions, which only Envoy can check.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn parse(
        json: &[u8],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        Self::parse_checked(json, environment, &|_| true)
    }

    /// Parses a configuration. `environment` returns the value of one of the VM's variables; `compiles`
    /// tells whether Envoy compiles a CEL expression.
    ///
    /// Returns the first error, with its path, what was expected there and what was found. Empty input
    /// means the empty object, which is valid.
    pub fn parse_checked(
        json: &[u8],
        environment: &dyn Fn(&str) -> Option<String>,
        compiles: &dyn Fn(&str) -> bool,
    ) -> Result<Self, ConfigError> {
        document::parse(json)?.read::<RawConfig>()?.compile(environment, compiles)
    }

    /// Tells whether the decision on a request needs the direction, which costs a hostcall.
    pub(crate) fn needs_direction(&self) -> bool {
        self.span.spawns_upstream_span || self.conditions().any(Conditions::needs_direction)
    }

    /// Returns the conditions of each rule, trust rule and span name, without those on the path.
    fn conditions(&self) -> impl Iterator<Item = &Conditions> {
        let of_names = self.span.names.conditions();
        self.rules.conditions().chain(self.trust.conditions()).chain(of_names)
    }

    /// Returns one line for the log: the number of rules, the ratio, the receiver of the spans, and the
    /// formats of contexts.
    pub fn summary(&self) -> String {
        let rules = self.rules.iter().count();
        let names = |formats: &[Format]| match formats {
            [] => "nothing".to_owned(),
            formats => formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(", "),
        };
        let destination = match &self.exporter {
            Some(exporter) => exporter.summary(),
            None => "spans are not exported".to_owned(),
        };
        [
            rules.to_string().as_str(),
            if rules == 1 { " rule, ratio " } else { " rules, ratio " },
            &digits::float(self.configured_ratio),
            "; ",
            &destination,
            "; contexts are read as ",
            &names(&self.propagation.extract),
            " and written as ",
            &names(self.propagation.inject.as_deref().unwrap_or_default()),
        ]
        .concat()
    }
}

/// The whole configuration: `pluginConfig` in Istio.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawConfig {
    /// `service.name` of the resource. Default: the VM's variable `OTEL_SERVICE_NAME`, else the first
    /// of Istio's label for the canonical service, Istio's `WORKLOAD_NAME` and the cluster of Envoy's
    /// node, else `unknown_service:envoy`. Example: `checkout`.
    #[serde(alias = "serviceName")]
    service_name: Option<String>,
    /// More resource attributes. A value is a string, or an object with `literal` or `environment` as in
    /// `custom_tags`. These attributes replace those of the VM's variable `OTEL_RESOURCE_ATTRIBUTES`,
    /// which replace those of Envoy's node. Default: none.
    /// Example: `{deployment.environment.name: production, cloud.region: {environment: {name: REGION}}}`.
    #[serde(alias = "resourceAttributes")]
    resource_attributes: Entries<resource::RawResourceValue>,
    /// Which contexts are read, written and trusted.
    propagation: propagation::RawPropagation,
    /// Which requests are traced.
    sampling: sampling::RawSampling,
    /// Attributes that you add to every span: a list as in Envoy's `CustomTag`, or an object by name as
    /// in Istio's Telemetry. Default: none.
    #[serde(alias = "customTags")]
    custom_tags: tags::RawCustomTags,
    /// Headers with credentials that tags may record nevertheless. Default: none.
    /// Example: `[x-forwarded-client-cert]`.
    #[serde(alias = "allowSensitiveHeaders")]
    allow_sensitive_headers: Vec<String>,
    /// How many attributes a span may have, and how long their values may be.
    #[serde(alias = "attributeLimits")]
    attribute_limits: attribute_limits::RawAttributeLimits,
    /// What spans record.
    span: span::RawSpan,
    /// Where spans are sent. Default: nowhere; the filter then only decides and propagates.
    exporter: Option<exporter::RawExporter>,
    /// Response headers that tell the client which trace its request belongs to. Default: none.
    response: response::RawResponse,
    /// The trace context for Envoy's access logs. Default: none.
    #[serde(alias = "accessLog")]
    access_log: access_log::RawAccessLog,
}

impl RawConfig {
    fn compile(
        mut self,
        environment: Environment<'_>,
        compiles: &dyn Fn(&str) -> bool,
    ) -> Result<Config, ConfigError> {
        let service_name = self.service_name.map(non_empty).transpose().under("service_name")?;
        let secret_variables = RefCell::new(Vec::new());
        let secret = |name: &str| {
            secret_variables.borrow_mut().push(name.to_owned());
            environment(name)
        };
        let mut headers =
            HeaderConditions { environment: &secret, tokens: Vec::new(), strip: Vec::new() };
        let sampling = self.sampling.compile(&mut headers).under("sampling")?;
        let (propagation, trust) = self.propagation.compile(&mut headers).under("propagation")?;
        let spawns_upstream_span = self.span.spawn_upstream_span;
        let names = self.span.take_matches(&mut headers).under("span")?;
        let attribute_limits = self.attribute_limits.compile().under("attribute_limits")?;
        let exporter = self.exporter.map(|raw| raw.compile(environment, &secret)).transpose();
        let exporter = exporter.under("exporter")?;
        let secret_variables = &*secret_variables.borrow();
        let attributes = resource::compile(self.resource_attributes, environment, secret_variables);
        let attributes = attributes.under("resource_attributes")?;
        let privacy = Rc::new(self.span.privacy().under("span")?);
        let settings = tags::Settings {
            environment,
            secret_variables,
            allow_sensitive_headers: &self.allow_sensitive_headers,
            tokens: &headers.tokens,
            limits: attribute_limits,
            compiles,
            privacy: &privacy,
        };
        let mut tags = tags::Compiler::new(&settings);
        self.custom_tags.compile(&mut tags).under("custom_tags")?;
        self.span.add_names(&mut tags).under("span")?;
        let mut span =
            SpanSettings::new(attribute_limits, tags.into_tags(), names, privacy.clone());
        span.spawns_upstream_span = spawns_upstream_span;
        let response = self.response.compile().under("response")?;
        Ok(Config {
            resource: ResourceSettings { service_name, attributes },
            propagation,
            trust,
            ratio: sampling.root_ratio,
            configured_ratio: sampling.configured_root_ratio,
            rules: sampling.rules,
            limit: sampling.limit,
            export_on: sampling.export_on,
            tokens: headers.tokens,
            strip: headers.strip,
            span,
            response,
            logs_context: self.access_log.filter_state,
            exporter,
        })
    }
}
