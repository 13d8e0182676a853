//! Format strings of custom tags, compiled.

use super::Compiler;
use super::source::RawRead;
use crate::config::error::{ConfigError, Result, one_of, quoted};
use crate::span::tags::Value;
use crate::span::tags::format::{self, Part, Written};
use crate::span::tags::source::Source;
use crate::span::text::first_chars;

impl Compiler<'_> {
    /// Returns when a format string's request headers are read. `read` is refused where it has none.
    pub fn read_of_format(&self, text: &str, read: Option<RawRead>) -> Result<RawRead> {
        let Some(read) = read else {
            return Ok(RawRead::Start);
        };
        let mut rest = text;
        while let Some((part, after)) = format::split_part(rest).filter(|_| !rest.is_empty()) {
            if matches!(part, Written::Command { name: format::REQ, .. }) {
                return Ok(read);
            }
            rest = after;
        }
        let expected = "no `read`, since the format reads no request header";
        Err(ConfigError::new(expected, "one").under("read"))
    }

    pub fn format(&mut self, text: &str, read: RawRead) -> Result<Value> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let Some((part, after)) = format::split_part(rest) else {
                return Err(ConfigError::new(format::EXPECTED, quoted(rest)));
            };
            parts.push(match part {
                Written::Text(text) => Part::Text(text.to_owned()),
                Written::Command { name, argument, max_length } => {
                    self.command(name, argument, max_length, read)?
                }
            });
            rest = after;
        }
        if parts.is_empty() {
            return Err(ConfigError::new("a non-empty string", "\"\""));
        }
        Ok(Value::Format(parts))
    }

    fn command(
        &mut self,
        name: &str,
        argument: Option<&str>,
        max_length: Option<u32>,
        read: RawRead,
    ) -> Result<Part> {
        let sources = match argument {
            None => {
                let known = format::PROPERTY_COMMANDS.iter().find(|(known, ..)| *known == name);
                let (_, path, encoding) = known.ok_or_else(|| unknown_command(name))?;
                vec![self.attribute(path.replace('.', "\0"), *encoding, None)]
            }
            Some(variable) if name == format::ENVIRONMENT => {
                let text = (self.settings.environment)(variable).unwrap_or_default();
                let max_chars = max_length.map_or(usize::MAX, |max| max as usize);
                return Ok(Part::Text(first_chars(&text, max_chars).to_owned()));
            }
            Some(argument) if [format::REQ, format::RESP, format::TRAILER].contains(&name) => {
                let names = argument.splitn(2, '?');
                names.map(|header| self.header_source(name, header, read)).collect::<Result<_>>()?
            }
            Some(argument) => {
                let known = format::METADATA_COMMANDS.iter().find(|(known, _)| *known == name);
                let (_, root) = known.ok_or_else(|| unknown_command(name))?;
                vec![self.metadata_value(root, &argument.replace(':', "\0"))?]
            }
        };
        Ok(Part::Value { sources, max_length })
    }

    fn header_source(&mut self, command: &str, name: &str, read: RawRead) -> Result<Source> {
        match command {
            format::RESP => self.header(name).map(Source::ResponseHeader),
            format::TRAILER => self.header(name).map(Source::ResponseTrailer),
            _ => self.request_header(name, read),
        }
    }
}

fn unknown_command(name: &str) -> ConfigError {
    let mut known = vec![format::REQ, format::RESP, format::TRAILER, format::ENVIRONMENT];
    known.extend(format::METADATA_COMMANDS.iter().map(|(name, _)| *name));
    known.extend(format::PROPERTY_COMMANDS.iter().map(|(name, ..)| *name));
    ConfigError::new(format_args!("a known command, {}", one_of(&known)), quoted(name))
}
