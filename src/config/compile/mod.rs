//! Raw configuration -> compiled configuration: checks what types alone cannot say.

mod exporter;
mod matching;
mod sampling;
mod tags;
mod trust;

use super::Config;
use super::error::{ConfigError, quoted};
use super::raw::{Format, RawBaggage, RawConfig, RawPropagation, RawResponse, RawWhen};
use crate::head;
use crate::propagation::baggage::Limits;
use crate::propagation::{Form, Propagation};
use crate::response::{Response, When};
use crate::trust::Trust;
use matching::Headers;

type Result<T> = std::result::Result<T, ConfigError>;
type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

pub fn config(raw: RawConfig, environment: Environment<'_>) -> Result<Config> {
    let service_name = raw.service_name.map(non_empty).transpose();
    let mut headers = Headers { environment, tokens: Vec::new(), strip: Vec::new() };
    let sampling =
        sampling::sampling(raw.sampling, &mut headers).map_err(|error| error.under("sampling"))?;
    let propagation =
        propagation(raw.propagation, &mut headers).map_err(|error| error.under("propagation"))?;
    let limits =
        tags::limits(&raw.attribute_limits).map_err(|error| error.under("attribute_limits"))?;
    let allow_sensitive_headers = raw.allow_sensitive_headers.as_slice();
    let tokens = headers.tokens.as_slice();
    let settings = tags::Settings { environment, allow_sensitive_headers, tokens, limits };
    let tags =
        tags::tags(raw.custom_tags, &settings).map_err(|error| error.under("custom_tags"))?;
    Ok(Config {
        service_name: service_name.map_err(|error| error.under("service_name"))?,
        resource_attributes: raw.resource_attributes.0,
        propagation,
        ratio: sampling.root_ratio,
        rules: sampling.rules,
        limit: sampling.limit,
        export_on: sampling.export_on,
        tokens: headers.tokens,
        strip: headers.strip,
        tags,
        attribute_limits: limits,
        response: response(raw.response).map_err(|error| error.under("response"))?,
        exporter: raw
            .exporter
            .map(|raw| exporter::exporter(raw, environment))
            .transpose()
            .map_err(|error| error.under("exporter"))?,
    })
}

fn propagation(raw: RawPropagation, headers: &mut Headers<'_>) -> Result<Propagation> {
    let extract = raw.extract.unwrap_or_else(|| DEFAULT_EXTRACT.to_vec());
    let inject = raw.inject.unwrap_or_else(|| DEFAULT_INJECT.to_vec());
    no_contradiction(&extract).map_err(|error| error.under("extract"))?;
    no_contradiction(&inject).map_err(|error| error.under("inject"))?;
    let mut read: Vec<Form> = Vec::new();
    for form in extract.iter().flat_map(|format| format.read()) {
        if !read.contains(&form) {
            read.push(form);
        }
    }
    let silent = inject.is_empty() || inject.contains(&Format::None);
    let written = || inject.iter().filter_map(|format| format.written()).collect();
    let baggage = baggage(&raw.baggage).map_err(|error| error.under("baggage"))?;
    let mut propagation = Propagation::new(read, (!silent).then(written), baggage);
    propagation.trust = raw.trust.map_or(Trust::Accept, trust::trust);
    propagation.trust_rules =
        trust::rules(raw.trust_rules, headers).map_err(|error| error.under("trust_rules"))?;
    propagation.egress = trust::egress(raw.egress).map_err(|error| error.under("egress"))?;
    propagation.random_flag = raw.random_flag;
    Ok(propagation)
}

fn baggage(raw: &RawBaggage) -> Result<Option<Limits>> {
    let limit = |key, least: usize, value: Option<u32>| match value {
        None => Ok(usize::MAX),
        Some(value) => {
            let value = at_least(least as u32, value).map_err(|error| error.under(key))?;
            Ok(value as usize)
        }
    };
    let limits = Limits {
        max_members: limit("max_members", Limits::LEAST.max_members, raw.max_members)?,
        max_bytes: limit("max_bytes", Limits::LEAST.max_bytes, raw.max_bytes)?,
    };
    Ok((raw.max_members.is_some() || raw.max_bytes.is_some()).then_some(limits))
}

impl Format {
    /// The form that is written. Baggage goes on as it came.
    fn written(self) -> Option<Form> {
        match self {
            Self::TraceContext => Some(Form::TraceContext),
            Self::B3 => Some(Form::B3Single),
            Self::B3Multi => Some(Form::B3Multi),
            Self::Jaeger => Some(Form::Jaeger),
            Self::XRay => Some(Form::XRay),
            Self::OtTrace => Some(Form::OtTrace),
            Self::Datadog => Some(Form::Datadog),
            Self::GrpcTraceBin => Some(Form::GrpcTraceBin),
            Self::Baggage | Self::None => None,
        }
    }

    /// The forms that are read, in order: of B3 both, whatever its name here.
    fn read(self) -> Vec<Form> {
        match self {
            Self::B3 | Self::B3Multi => vec![Form::B3Single, Form::B3Multi],
            other => other.written().into_iter().collect(),
        }
    }
}

fn no_contradiction(formats: &[Format]) -> Result<()> {
    if formats.len() > 1 && formats.contains(&Format::None) {
        return Err(ConfigError::new("`none` alone or other formats", "both"));
    }
    for (place, format) in formats.iter().enumerate() {
        if formats.iter().take(place).any(|before| before == format) {
            return Err(ConfigError::new("each format once", "it again").at(place));
        }
    }
    Ok(())
}

fn response(raw: RawResponse) -> Result<Response> {
    let trace_id_header = match raw.trace_id_header {
        Some(name) => {
            let name = header_name(&name).map_err(|error| error.under("trace_id_header"))?;
            if name.starts_with(':') || is_taken(&name) {
                let expected = "a header that says nothing else of the response";
                return Err(ConfigError::new(expected, quoted(&name)).under("trace_id_header"));
            }
            Some(name)
        }
        None => None,
    };
    let when = match raw.when {
        None | Some(RawWhen::Always) => When::Always,
        Some(RawWhen::Sampled) => When::Sampled,
        Some(RawWhen::Forced) => When::Forced,
    };
    let (traceresponse, server_timing) = (raw.traceresponse, raw.server_timing);
    Ok(Response { trace_id_header, traceresponse, server_timing, when })
}

/// Whether a header of a response says something of its own, which a trace id would replace.
fn is_taken(name: &str) -> bool {
    TAKEN_HEADERS.contains(&name)
        || ["content-", "access-control-", "grpc-"].iter().any(|start| name.starts_with(start))
}

fn non_empty(value: String) -> Result<String> {
    if value.is_empty() { Err(ConfigError::new("a non-empty string", "\"\"")) } else { Ok(value) }
}

fn at_least(least: u32, value: u32) -> Result<u32> {
    if value < least {
        return Err(ConfigError::new(format!("a whole number from {least} up"), value.to_string()));
    }
    Ok(value)
}

/// Checks a header's name (a token of RFC 9110, section 5.6.2, or a pseudo header of a request)
/// and returns it in lower case, as Envoy keeps it.
fn header_name(name: &str) -> Result<String> {
    let lower = name.to_ascii_lowercase();
    let pseudo = [head::PATH, head::METHOD, head::AUTHORITY, head::SCHEME];
    if pseudo.contains(&lower.as_str())
        || (!name.is_empty() && name.as_bytes().iter().all(head::is_tchar))
    {
        return Ok(lower);
    }
    Err(ConfigError::new("the name of a header", quoted(name)))
}

const DEFAULT_EXTRACT: [Format; 3] = [Format::TraceContext, Format::B3, Format::Baggage];
const DEFAULT_INJECT: [Format; 2] = [Format::TraceContext, Format::Baggage];
/// Headers of a response that its message, its caches, its browser or this filter needs.
const TAKEN_HEADERS: [&str; 20] = [
    "cache-control",
    "connection",
    "date",
    "etag",
    "expires",
    "keep-alive",
    "last-modified",
    "location",
    "proxy-authenticate",
    "retry-after",
    "server-timing",
    "set-cookie",
    "strict-transport-security",
    "te",
    "traceresponse",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
];
