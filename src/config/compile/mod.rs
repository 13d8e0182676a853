//! Raw configuration -> compiled configuration: checks what types alone cannot say.

mod exporter;
mod sampling;
mod tags;

use super::Config;
use super::error::{ConfigError, quoted};
use super::raw::{Format, RawConfig, RawPropagation};
use crate::head;
use crate::propagation::{Form, Propagation, Source};

type Result<T> = std::result::Result<T, ConfigError>;
type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

pub fn config(raw: RawConfig, environment: Environment<'_>) -> Result<Config> {
    let service_name = raw.service_name.map(non_empty).transpose();
    let (ratio, rules) =
        sampling::sampling(raw.sampling).map_err(|error| error.under("sampling"))?;
    Ok(Config {
        service_name: service_name.map_err(|error| error.under("service_name"))?,
        resource_attributes: raw.resource_attributes.0,
        propagation: propagation(raw.propagation).map_err(|error| error.under("propagation"))?,
        ratio,
        rules,
        tags: tags::tags(raw.custom_tags, environment)
            .map_err(|error| error.under("custom_tags"))?,
        exporter: raw
            .exporter
            .map(|raw| exporter::exporter(raw, environment))
            .transpose()
            .map_err(|error| error.under("exporter"))?,
    })
}

fn propagation(raw: RawPropagation) -> Result<Propagation> {
    let extract = raw.extract.unwrap_or_else(|| DEFAULT_EXTRACT.to_vec());
    let inject = raw.inject.unwrap_or_else(|| DEFAULT_INJECT.to_vec());
    no_contradiction(&extract).map_err(|error| error.under("extract"))?;
    no_contradiction(&inject).map_err(|error| error.under("inject"))?;
    let mut sources: Vec<Source> = Vec::new();
    for source in extract.iter().filter_map(|format| source(*format)) {
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    let silent = inject.is_empty() || inject.contains(&Format::None);
    let forms = || inject.iter().filter_map(|format| form(*format)).collect();
    Ok(Propagation { extract: sources, inject: (!silent).then(forms) })
}

fn source(format: Format) -> Option<Source> {
    match format {
        Format::TraceContext => Some(Source::TraceContext),
        Format::B3 | Format::B3Multi => Some(Source::B3),
        Format::Baggage | Format::None => None,
    }
}

fn form(format: Format) -> Option<Form> {
    match format {
        Format::TraceContext => Some(Form::TraceContext),
        Format::B3 => Some(Form::B3Single),
        Format::B3Multi => Some(Form::B3Multi),
        Format::Baggage | Format::None => None,
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

fn non_empty(value: String) -> Result<String> {
    if value.is_empty() { Err(ConfigError::new("a non-empty string", "\"\"")) } else { Ok(value) }
}

/// Checks a header's name (a token of RFC 9110, section 5.6.2, or a pseudo header of a request)
/// and returns it in lower case, as Envoy keeps it.
fn header_name(name: &str) -> Result<String> {
    let pseudo = [head::PATH, head::METHOD, head::AUTHORITY, head::SCHEME];
    if pseudo.contains(&name) || (!name.is_empty() && name.as_bytes().iter().all(head::is_tchar)) {
        return Ok(name.to_ascii_lowercase());
    }
    Err(ConfigError::new("the name of a header", quoted(name)))
}

const DEFAULT_EXTRACT: [Format; 3] = [Format::TraceContext, Format::B3, Format::Baggage];
const DEFAULT_INJECT: [Format; 2] = [Format::TraceContext, Format::Baggage];
