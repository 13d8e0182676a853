//! The configuration: JSON text in, everything that a request needs compiled out.

mod access_log;
mod attribute_limits;
mod document;
mod error;
mod export_on;
mod exporter;
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

use serde::Deserialize;

use crate::export::ExporterSettings;
use crate::http::digits;
use crate::propagation::response::Response;
use crate::propagation::{Format, Propagation};
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

pub use self::error::ConfigError;

/// A configuration in force.
#[derive(Debug, Clone)]
pub struct Config {
    pub resource: ResourceSettings,
    pub propagation: Propagation,
    pub trust: TrustPolicy,
    /// Share of roots that are sampled where no rule says otherwise.
    pub ratio: Ratio,
    /// The same as it was written.
    configured_ratio: f64,
    pub rules: Rules,
    /// Spans that are made at most, of all reasons.
    pub limit: Option<Limit>,
    pub export_on: Option<ExportOn>,
    /// Headers that hold tokens, by the indices that conditions name.
    pub tokens: Vec<TokenHeader>,
    /// Headers that are removed before the upstream.
    pub strip: Vec<String>,
    pub span: SpanSettings,
    pub response: Response,
    /// Access logs get the trace context.
    pub logs_context: bool,
    pub exporter: Option<ExporterSettings>,
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
        document::parse(json)?.read::<RawConfig>()?.compile(environment)
    }

    /// Says in one line what is configured: rules, ratio, where spans go and how, the formats.
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

/// The whole configuration, `pluginConfig` in Istio.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawConfig {
    /// `service.name` of the resource. Default: the VM's variable `OTEL_SERVICE_NAME`, else from the
    /// node (Istio's canonical service label, its `WORKLOAD_NAME`, the node's cluster, else
    /// `unknown_service:envoy`). Example: `checkout`.
    #[serde(alias = "serviceName")]
    service_name: Option<String>,
    /// More resource attributes; they replace those of the VM's variable `OTEL_RESOURCE_ATTRIBUTES`,
    /// and these those of the node. Default: none.
    /// A value is a string, or an object with `literal` or `environment` as in `custom_tags`.
    /// Example: `{deployment.environment.name: production, cloud.region: {environment: {name: REGION}}}`.
    #[serde(alias = "resourceAttributes")]
    resource_attributes: Entries<resource::RawResourceValue>,
    /// Which contexts are read, written and trusted.
    propagation: propagation::RawPropagation,
    /// Which requests are traced.
    sampling: sampling::RawSampling,
    /// Attributes of the operator's own on every span: a list as Envoy's `CustomTag`, or an object
    /// by name as in Istio's Telemetry. Default: none.
    #[serde(alias = "customTags")]
    custom_tags: tags::RawCustomTags,
    /// Headers that hold credentials and that tags may record all the same. Default: none.
    /// Example: `[x-forwarded-client-cert]`.
    #[serde(alias = "allowSensitiveHeaders")]
    allow_sensitive_headers: Vec<String>,
    /// How many attributes a span has, and how long they are.
    #[serde(alias = "attributeLimits")]
    attribute_limits: attribute_limits::RawAttributeLimits,
    /// What every span is made of.
    span: span::RawSpan,
    /// Where spans go. Default: nowhere; the filter then decides and propagates only.
    exporter: Option<exporter::RawExporter>,
    /// What the client is told of its trace, in headers of the response. Default: nothing.
    response: response::RawResponse,
    /// What Envoy's access logs can show of the trace. Default: nothing.
    #[serde(alias = "accessLog")]
    access_log: access_log::RawAccessLog,
}

impl RawConfig {
    fn compile(self, environment: Environment<'_>) -> Result<Config, ConfigError> {
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
        let attribute_limits = self.attribute_limits.compile().under("attribute_limits")?;
        let exporter = self.exporter.map(|raw| raw.compile(environment, &secret)).transpose();
        let exporter = exporter.under("exporter")?;
        let secret_variables = &*secret_variables.borrow();
        let attributes = resource::compile(self.resource_attributes, environment, secret_variables);
        let attributes = attributes.under("resource_attributes")?;
        let settings = tags::Settings {
            environment,
            secret_variables,
            allow_sensitive_headers: &self.allow_sensitive_headers,
            tokens: &headers.tokens,
            limits: attribute_limits,
        };
        let tags = self.custom_tags.compile(&settings).under("custom_tags")?;
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
            span: SpanSettings::new(attribute_limits, tags, self.span.compile().under("span")?),
            response,
            logs_context: self.access_log.filter_state,
            exporter,
        })
    }
}
