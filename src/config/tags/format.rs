//! Format strings of custom tags, compiled, and the commands that may stand in them.

use super::Compiler;
use super::source::RawRead;
use crate::config::error::{ConfigError, Result, one_of, quoted};
use crate::span::tags::format::{EXPECTED, ParsedPart, Part, split_part};
use crate::span::tags::property::{Encoding, Type};
use crate::span::tags::source::Source;
use crate::span::text::first_chars;

/// Returns when the request headers of a format string are read. Refuses `read` where the format has
/// no request header.
pub(super) fn check_read(format: &str, read: Option<RawRead>) -> Result<RawRead> {
    let Some(read) = read else {
        return Ok(RawRead::Start);
    };
    let mut rest = format;
    while let Some((part, after)) = split_part(rest).filter(|_| !rest.is_empty()) {
        if matches!(part, ParsedPart::Command { name: REQ, .. }) {
            return Ok(read);
        }
        rest = after;
    }
    let expected = "no `read`, since the format reads no request header";
    Err(ConfigError::new(expected, "one").under("read"))
}

impl Compiler<'_> {
    /// Compiles a format string.
    pub(crate) fn format(&mut self, text: &str, read: RawRead) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let Some((part, after)) = split_part(rest) else {
                return Err(ConfigError::new(EXPECTED, quoted(rest)));
            };
            parts.push(match part {
                ParsedPart::Text(text) => Part::Text(text.to_owned()),
                ParsedPart::Command { name, argument, max_length } => {
                    self.command(name, argument, max_length, read)?
                }
            });
            rest = after;
        }
        if parts.is_empty() {
            return Err(ConfigError::new("a non-empty string", "\"\""));
        }
        Ok(parts)
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
                let known = ATTRIBUTE_COMMANDS.iter().find(|(known, ..)| *known == name);
                let (_, path, encoding) = known.ok_or_else(|| unknown_command(name))?;
                vec![self.attribute(path.replace('.', "\0"), *encoding, None)]
            }
            Some(variable) if name == ENVIRONMENT => {
                let text = (self.settings.environment)(variable).unwrap_or_default();
                let max_chars = max_length.map_or(usize::MAX, |max| max as usize);
                return Ok(Part::Text(first_chars(&text, max_chars).to_owned()));
            }
            Some(argument) if [REQ, RESP, TRAILER].contains(&name) => {
                let names = argument.splitn(2, '?');
                names.map(|header| self.header_source(name, header, read)).collect::<Result<_>>()?
            }
            Some(argument) => {
                let known = METADATA_COMMANDS.iter().find(|(known, _)| *known == name);
                let (_, root) = known.ok_or_else(|| unknown_command(name))?;
                vec![self.metadata(root, &argument.replace(':', "\0"))?]
            }
        };
        Ok(Part::Value { sources, max_length })
    }

    fn header_source(&mut self, command: &str, name: &str, read: RawRead) -> Result<Source> {
        match command {
            RESP => self.header(name).map(Source::ResponseHeader),
            TRAILER => self.header(name).map(Source::ResponseTrailer),
            _ => self.request_header(name, read),
        }
    }
}

fn unknown_command(name: &str) -> ConfigError {
    let mut known = vec![REQ, RESP, TRAILER, ENVIRONMENT];
    known.extend(METADATA_COMMANDS.iter().map(|(name, _)| *name));
    known.extend(ATTRIBUTE_COMMANDS.iter().map(|(name, ..)| *name));
    ConfigError::new(format_args!("a known command, {}", one_of(&known)), quoted(name))
}

/// The commands without an argument: name, Envoy's attribute, and its encoding.
const ATTRIBUTE_COMMANDS: [(&str, &str, Encoding); 25] = [
    ("BYTES_RECEIVED", "request.size", INT),
    ("BYTES_SENT", "response.size", INT),
    ("CONNECTION_ID", "connection.id", INT),
    ("DOWNSTREAM_LOCAL_ADDRESS", "destination.address", TEXT),
    ("DOWNSTREAM_LOCAL_URI_SAN", "connection.uri_san_local_certificate", TEXT),
    ("DOWNSTREAM_PEER_URI_SAN", "connection.uri_san_peer_certificate", TEXT),
    ("DOWNSTREAM_REMOTE_ADDRESS", "source.address", TEXT),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "source.address", Encoding::Host),
    ("DOWNSTREAM_TLS_VERSION", "connection.tls_version", TEXT),
    ("DURATION", "request.duration", Encoding::Millis),
    ("GRPC_STATUS_NUMBER", "response.grpc_status", INT),
    ("PROTOCOL", "request.protocol", TEXT),
    ("REQUESTED_SERVER_NAME", "connection.requested_server_name", TEXT),
    ("RESPONSE_CODE", "response.code", INT),
    ("RESPONSE_CODE_DETAILS", "response.code_details", TEXT),
    ("RESPONSE_FLAGS", "response.flags", Encoding::Flags),
    ("ROUTE_NAME", "xds.route_name", TEXT),
    ("UPSTREAM_CLUSTER", "xds.cluster_name", TEXT),
    ("UPSTREAM_HOST", "upstream.address", TEXT),
    ("UPSTREAM_LOCAL_URI_SAN", "upstream.uri_san_local_certificate", TEXT),
    ("UPSTREAM_PEER_URI_SAN", "upstream.uri_san_peer_certificate", TEXT),
    ("UPSTREAM_REMOTE_ADDRESS", "upstream.address", TEXT),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "upstream.address", Encoding::Host),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", "upstream.request_attempt_count", INT),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", "upstream.transport_failure_reason", TEXT),
];

/// The commands that read metadata: name, and the attribute that holds the metadata.
const METADATA_COMMANDS: [(&str, &str); 3] = [
    ("CLUSTER_METADATA", "xds.cluster_metadata"),
    ("DYNAMIC_METADATA", "metadata"),
    ("UPSTREAM_METADATA", "xds.upstream_host_metadata"),
];

const ENVIRONMENT: &str = "ENVIRONMENT";
/// The commands that read headers.
const REQ: &str = "REQ";
const RESP: &str = "RESP";
const TRAILER: &str = "TRAILER";

const TEXT: Encoding = Encoding::Plain(Type::Text);
const INT: Encoding = Encoding::Plain(Type::Int);
