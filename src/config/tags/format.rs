//! Format strings of custom tags, compiled, and the commands that may stand in them.

use super::Compiler;
use super::compiler::{RawRead, zero_separated};
use crate::config::error::{ConfigError, Result, one_of, quoted};
use crate::config::shapes::{non_empty, public_variable};
use crate::http::head;
use crate::span::cel;
use crate::span::tags::format::{Conversion, EXPECTED, ParsedPart, Part, split_part};
use crate::span::tags::property::{Encoding, GrpcStatusFormat, PropertySource, Type};
use crate::span::tags::source::Source;
use crate::span::tags::time::{self, append_time};
use crate::span::text::first_chars;

/// What a command reads.
#[derive(Clone, Copy)]
enum Command {
    /// Its argument is one header or two.
    RequestHeader,
    WithoutQuery,
    ResponseHeader,
    ResponseTrailer,
    Environment,
    Path,
    QueryParameter,
    StartTime,
    GrpcStatus,
    FilterState,
    Expression,
    /// Metadata of the kind that the argument begins with.
    Metadata,
    /// The metadata that this attribute holds.
    MetadataOf(&'static str),
    /// Without an argument.
    Attribute(&'static str, Encoding),
    /// A command whose value filters cannot read, and what to use instead.
    Refused(&'static str),
}

/// Returns when the request headers of a format string are read. Refuses `read` where the format has
/// no request header.
pub(super) fn check_read(format: &str, read: Option<RawRead>) -> Result<RawRead> {
    let Some(read) = read else {
        return Ok(RawRead::Start);
    };
    let mut rest = format;
    while let Some((part, after)) = split_part(rest).filter(|_| !rest.is_empty()) {
        if let ParsedPart::Command { name, .. } = part
            && let Some(Command::RequestHeader | Command::WithoutQuery | Command::Path) =
                known(name)
        {
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
        let command = known(name).ok_or_else(|| unknown_command(name))?;
        let mut given = argument.unwrap_or_default();
        let mut conversion = Conversion::None;
        match command {
            Command::Environment => {
                let variable = non_empty(given.to_owned())?;
                public_variable(&variable, self.settings.secret_variables)?;
                let text = (self.settings.environment)(&variable).unwrap_or_default();
                let max_chars = max_length.map_or(usize::MAX, |max| max as usize);
                return Ok(Part::Text(first_chars(&text, max_chars).to_owned()));
            }
            Command::WithoutQuery => conversion = Conversion::WithoutQuery,
            Command::Path => {
                let (query, of) = given.split_once(':').unwrap_or((given, ""));
                let of = PATHS.iter().find(|(known, _)| *known == of);
                let (_, headers) = of.ok_or_else(|| refused(PATH_ARGUMENT, given))?;
                match query {
                    "" | "WQ" => {}
                    "NQ" => conversion = Conversion::WithoutQuery,
                    _ => return Err(refused(PATH_ARGUMENT, given)),
                }
                given = headers;
            }
            Command::StartTime => {
                let format = argument.unwrap_or("%Y-%m-%dT%H:%M:%E3SZ");
                append_time(&mut Vec::new(), format, time::EXAMPLE)
                    .ok_or_else(|| refused(TIME_FORMAT, format))?;
                conversion = Conversion::Time(format.to_owned());
            }
            Command::Attribute(..) if argument.is_some() => return Err(unknown_command(name)),
            Command::Refused(expected) => return Err(refused(expected, name)),
            _ => {}
        }
        let (first, second) = match (command, given.split_once('?')) {
            (
                Command::RequestHeader
                | Command::WithoutQuery
                | Command::Path
                | Command::ResponseHeader
                | Command::ResponseTrailer,
                Some((first, second)),
            ) => (first, Some(second)),
            _ => (given, None),
        };
        let mut sources = vec![self.source(command, first, read)?];
        if let Some(second) = second {
            sources.push(self.source(command, second, read)?);
        }
        Ok(Part::Value { sources, max_length, conversion })
    }

    #[inline(never)]
    fn source(&mut self, command: Command, argument: &str, read: RawRead) -> Result<Source> {
        let (path, encoding) = match command {
            Command::ResponseHeader => return self.header(argument).map(Source::ResponseHeader),
            Command::ResponseTrailer => return self.header(argument).map(Source::ResponseTrailer),
            // Envoy sets it after all filters, when it rewrites the path.
            Command::Path if argument == ORIGINAL_PATH => {
                return self.request_header(argument, RawRead::End);
            }
            Command::QueryParameter => {
                let name = non_empty(argument.to_owned())?;
                return Ok(Source::PlainQueryParameter(name));
            }
            Command::StartTime => {
                return Ok(self.property(PropertySource::Cel(time::START_TIME.to_owned())));
            }
            Command::GrpcStatus => {
                let known = GRPC_STATUS_FORMATS.iter().find(|(known, _)| *known == argument);
                let (_, format) = known.ok_or_else(|| refused(GRPC_STATUS_FORMAT, argument))?;
                (GRPC_STATUS, Encoding::GrpcStatus(*format))
            }
            Command::FilterState => return self.filter_state(argument),
            Command::Expression => return self.expression(argument),
            Command::Metadata => {
                let (kind, keys) = argument.split_once(':').unwrap_or((argument, ""));
                let root = METADATA_KINDS.iter().find(|(known, _)| *known == kind);
                let (_, root) = root.ok_or_else(|| refused(KINDS, kind))?;
                return self.metadata(root, &zero_separated(keys, ':'));
            }
            Command::MetadataOf(root) => {
                return self.metadata(root, &zero_separated(argument, ':'));
            }
            Command::Attribute(path, encoding) => (path, encoding),
            _ => return self.request_header(argument, read),
        };
        Ok(self.attribute(zero_separated(path, '.'), encoding, None))
    }

    /// Compiles `FILTER_STATE(KEY:PLAIN)` and `FILTER_STATE(KEY:FIELD:NAME)`. CEL makes the value text,
    /// and fails if it is an object with fields.
    fn filter_state(&mut self, argument: &str) -> Result<Source> {
        let (key, format) = argument.split_once(':').unwrap_or_default();
        let field = format.strip_prefix("FIELD:").filter(|field| !field.is_empty());
        let path = match field {
            _ if key.is_empty() => return Err(refused(FILTER_STATE_ARGUMENT, argument)),
            Some(field) => ["filter_state\0", key, "\0", field].concat(),
            None if format == "PLAIN" => ["filter_state\0", key].concat(),
            None => return Err(refused(FILTER_STATE_ARGUMENT, argument)),
        };
        let value = cel::value_or_empty(&path).unwrap_or_default();
        Ok(self.property(PropertySource::Cel(["string(", &value, ")"].concat())))
    }
}

fn known(name: &str) -> Option<Command> {
    COMMANDS.iter().find(|(known, _)| *known == name).map(|(_, command)| *command)
}

#[inline(never)]
fn refused(expected: &str, found: &str) -> ConfigError {
    ConfigError::new(expected, quoted(found))
}

fn unknown_command(name: &str) -> ConfigError {
    let usable = COMMANDS.iter().filter(|(_, command)| !matches!(command, Command::Refused(_)));
    let names: Vec<_> = usable.map(|(name, _)| *name).collect();
    ConfigError::new(format_args!("a known command, {}", one_of(&names)), quoted(name))
}

const COMMANDS: [(&str, Command); 44] = [
    ("REQ", Command::RequestHeader),
    ("REQUEST_HEADER", Command::RequestHeader),
    ("RESP", Command::ResponseHeader),
    ("TRAILER", Command::ResponseTrailer),
    ("ENVIRONMENT", Command::Environment),
    ("CEL", Command::Expression),
    ("FILTER_STATE", Command::FilterState),
    ("GRPC_STATUS", Command::GrpcStatus),
    ("METADATA", Command::Metadata),
    ("PATH", Command::Path),
    ("QUERY_PARAM", Command::QueryParameter),
    ("REQ_WITHOUT_QUERY", Command::WithoutQuery),
    ("START_TIME", Command::StartTime),
    ("BYTES_RECEIVED", Command::Attribute("request.size", INT)),
    ("BYTES_SENT", Command::Attribute("response.size", INT)),
    ("CONNECTION_ID", Command::Attribute("connection.id", INT)),
    ("DOWNSTREAM_LOCAL_ADDRESS", Command::Attribute("destination.address", TEXT)),
    ("DOWNSTREAM_LOCAL_URI_SAN", Command::Attribute("connection.uri_san_local_certificate", TEXT)),
    ("DOWNSTREAM_PEER_SUBJECT", Command::Attribute("connection.subject_peer_certificate", TEXT)),
    ("DOWNSTREAM_PEER_URI_SAN", Command::Attribute("connection.uri_san_peer_certificate", TEXT)),
    ("DOWNSTREAM_REMOTE_ADDRESS", Command::Attribute("source.address", TEXT)),
    (
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        Command::Attribute("source.address", Encoding::Host),
    ),
    ("DOWNSTREAM_TLS_VERSION", Command::Attribute("connection.tls_version", TEXT)),
    ("DURATION", Command::Attribute("request.duration", Encoding::Millis)),
    (
        "GRPC_STATUS_NUMBER",
        Command::Attribute(GRPC_STATUS, Encoding::GrpcStatus(GrpcStatusFormat::Number)),
    ),
    ("PROTOCOL", Command::Attribute("request.protocol", TEXT)),
    ("REQUESTED_SERVER_NAME", Command::Attribute("connection.requested_server_name", TEXT)),
    ("RESPONSE_CODE", Command::Attribute("response.code", INT)),
    ("RESPONSE_CODE_DETAILS", Command::Attribute("response.code_details", TEXT)),
    ("RESPONSE_FLAGS", Command::Attribute("response.flags", Encoding::Flags)),
    ("ROUTE_NAME", Command::Attribute("xds.route_name", TEXT)),
    ("UPSTREAM_CLUSTER", Command::Attribute("xds.cluster_name", TEXT)),
    ("UPSTREAM_HOST", Command::Attribute("upstream.address", TEXT)),
    ("UPSTREAM_LOCAL_URI_SAN", Command::Attribute("upstream.uri_san_local_certificate", TEXT)),
    ("UPSTREAM_PEER_URI_SAN", Command::Attribute("upstream.uri_san_peer_certificate", TEXT)),
    ("UPSTREAM_REMOTE_ADDRESS", Command::Attribute("upstream.address", TEXT)),
    (
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        Command::Attribute("upstream.address", Encoding::Host),
    ),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Command::Attribute("upstream.request_attempt_count", INT)),
    (
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
        Command::Attribute("upstream.transport_failure_reason", TEXT),
    ),
    ("CLUSTER_METADATA", Command::MetadataOf("xds.cluster_metadata")),
    ("DYNAMIC_METADATA", Command::MetadataOf("metadata")),
    ("UPSTREAM_METADATA", Command::MetadataOf("xds.upstream_host_metadata")),
    (
        "HOSTNAME",
        Command::Refused("`%ENVIRONMENT(HOSTNAME)%`, since filters cannot read the host's name"),
    ),
    (
        "UPSTREAM_HOST_NAME",
        Command::Refused("`%UPSTREAM_HOST%`, since filters cannot read the upstream's name"),
    ),
];

/// The kinds of metadata that `METADATA` reads, and the attribute that holds each.
const METADATA_KINDS: [(&str, &str); 6] = [
    ("DYNAMIC", "metadata"),
    ("CLUSTER", "xds.cluster_metadata"),
    ("ROUTE", "xds.route_metadata"),
    ("UPSTREAM_HOST", "xds.upstream_host_metadata"),
    ("LISTENER", "xds.listener_metadata"),
    ("VIRTUAL_HOST", "xds.virtual_host_metadata"),
];

const GRPC_STATUS_FORMATS: [(&str, GrpcStatusFormat); 4] = [
    ("", GrpcStatusFormat::Camel),
    ("CAMEL_STRING", GrpcStatusFormat::Camel),
    ("SNAKE_STRING", GrpcStatusFormat::Snake),
    ("NUMBER", GrpcStatusFormat::Number),
];

/// The second arguments of `PATH`, and the headers that each reads.
const PATHS: [(&str, &str); 4] = [
    ("", "x-envoy-original-path?:path"),
    ("ORIG_OR_PATH", "x-envoy-original-path?:path"),
    ("ORIG", ORIGINAL_PATH),
    ("PATH", head::PATH),
];
const ORIGINAL_PATH: &str = "x-envoy-original-path";

// These describe arguments in errors.
const FILTER_STATE_ARGUMENT: &str = "`KEY:PLAIN` or `KEY:FIELD:NAME`, since filters cannot read the \
                                     message of a filter state";
const GRPC_STATUS_FORMAT: &str = "one of `CAMEL_STRING`, `SNAKE_STRING`, `NUMBER`";
const KINDS: &str =
    "one of `DYNAMIC`, `CLUSTER`, `ROUTE`, `UPSTREAM_HOST`, `LISTENER`, `VIRTUAL_HOST`";
const PATH_ARGUMENT: &str = "`WQ` or `NQ`, then `:ORIG`, `:PATH` or `:ORIG_OR_PATH`";
const TIME_FORMAT: &str = "a format of `%Y %m %d %H %M %S %F %T %s %f %3f %E3S %z %Z`";

const GRPC_STATUS: &str = "response.grpc_status";
const TEXT: Encoding = Encoding::Plain(Type::Text);
const INT: Encoding = Encoding::Plain(Type::Int);
