use super::RawCustomTag;
use crate::config::Config;
use crate::config::error::one_of;
use crate::config::testing::{check_refused, fields, is_alias, parse, tag};
use crate::span::tags::property::PropertySource;

const SECRET: &str = "a header without credentials, or one of `allow_sensitive_headers`";

/// Every key of a tag is a source, but for a few, and errors list the sources.
#[test]
fn a_tag_has_one_source() {
    let mut sources = fields::<RawCustomTag>();
    let others = ["tag", "redact", "max_length", "read", "type"];
    sources.retain(|key| !is_alias(key) && !others.contains(key));
    let sources = one_of(&sources);
    for (member, found) in [
        (
            r#""literal": {"value": "a"}, "environment": {"name": "A"}"#,
            "both `literal` and `environment`",
        ),
        (
            r#""header": {"name": "a"}, "requestHeader": {"name": "a"}"#,
            "both `request_header` and `header`",
        ),
        (r#""literal": null, "redact": "hash""#, "none of them"),
        (r#""read": "end""#, "none of them"),
        (r#""type": "Literal""#, "none of them"),
    ] {
        check_refused(&tag(member), "custom_tags[0]", &[&sources, found]);
    }
    assert!(parse(&tag(r#""literal": {"value": "a"}, "environment": null"#)).is_ok());
}

#[test]
fn a_type_agrees_with_the_source() {
    let literal = r#""literal": {"value": "a"}"#;
    for (member, findings) in [
        (format!(r#"{literal}, "type": "Environment""#), ["Literal, since", "\"Environment\""]),
        (format!(r#"{literal}, "type": "literal""#), ["the tag has `literal`", "\"literal\""]),
        (
            r#""environment": {"name": "A"}, "type": "RequestHeader""#.to_owned(),
            ["Environment, since the tag has `environment`", "\"RequestHeader\""],
        ),
        (
            r#""header": {"name": "a"}, "type": "Metadata""#.to_owned(),
            ["RequestHeader, since the tag has `header`", "\"Metadata\""],
        ),
        (
            r#""cookie": {"name": "a"}, "type": "RequestHeader""#.to_owned(),
            ["no `type`, since the tag has `cookie`", "\"RequestHeader\""],
        ),
        (
            r#""value": "a", "type": """#.to_owned(),
            ["no `type`, since the tag has `value`", "\"\""],
        ),
        (format!(r#"{literal}, "type": 1"#), ["a string", "found 1"]),
    ] {
        check_refused(&tag(&member), "custom_tags[0].type", &findings);
    }
    for member in [
        format!(r#"{literal}, "type": "Literal""#),
        r#""type": "Environment", "environment": {"name": "A", "defaultValue": "-"}"#.to_owned(),
        r#""type": "RequestHeader", "requestHeader": {"name": "x-a"}"#.to_owned(),
    ] {
        assert!(parse(&tag(&member)).is_ok(), "{member}");
    }
}

#[test]
fn wrong_sources_are_refused_with_their_path() {
    let path = "a path such as `xds.route_name`, or its parts";
    let kinds = "one of `request`, `route`, `cluster`, `host`";
    let namespace = "a namespace, and a key in it";
    let name = "the name of a header";
    let long = format!(r#""literal": {{"value": "{}"}}"#, "a".repeat(1025));
    for (member, at, findings) in [
        (r#""literal": {"value": ""}"#, ".literal.value", ["a non-empty string", "\"\""]),
        (&long, ".literal.value", ["a value of at most 1024 characters", "1025 characters"]),
        (r#""literal": "a""#, ".literal", ["an object", "found a string"]),
        (r#""environment": {"name": ""}"#, ".environment.name", ["a non-empty string", "\"\""]),
        (r#""request_header": {"name": "x\n"}"#, ".request_header.name", [name, "\"x\\n\""]),
        (r#""cookie": {"name": ""}"#, ".cookie.name", ["a non-empty string", "\"\""]),
        (
            r#""baggage": {"nam": "a"}"#,
            ".baggage.nam",
            ["a known key, one of `name`, `default_value`, but", "found \"nam\""],
        ),
        (
            r#""property": {"path": "request.headers"}"#,
            ".property.path",
            ["the path of one value", "\"request.headers\""],
        ),
        (
            r#""property": {"path": "response"}"#,
            ".property.path",
            ["the path of one value", "\"response\""],
        ),
        (
            r#""property": {"path": "request.headers.a.b"}"#,
            ".property.path",
            ["the path of one value", "\"request.headers.a.b\""],
        ),
        (r#""property": {"path": "a..b"}"#, ".property.path", [path, "\"a..b\""]),
        (
            r#""property": {"path": "request.headers[x-user]"}"#,
            ".property.path",
            [path, "\"request.headers[x-user]\""],
        ),
        (r#""property": {"path": []}"#, ".property.path", ["at least one", "an empty array"]),
        (r#""property": {"path": ["a", 1]}"#, ".property.path[1]", ["a string", "found 1"]),
        (r#""property": {"path": {}}"#, ".property.path", ["a string", "found an object"]),
        (r#""property": {}"#, ".property.path", ["a value, which is required", "none"]),
        (
            r#""property": {"path": "a", "type": "integer"}"#,
            ".property.type",
            ["one of `string`, `int`, `double`, `bool`", "\"integer\""],
        ),
        (r#""identity": "peer""#, ".identity", ["one of `source`, `destination`", "\"peer\""]),
        (
            r#""metadata": {"kind": {"host": {}}, "metadata_key": {"key": "a"}}"#,
            ".metadata.metadata_key",
            [namespace, "found \"a\""],
        ),
        (
            r#""metadata": {"kind": {"peer": {}}, "metadata_key": {"key": "a"}}"#,
            ".metadata.kind.peer",
            ["a known key, one of `request`, `route`, `cluster`, `host`, but", "\"peer\""],
        ),
        (
            r#""metadata": {"kind": {}, "metadata_key": {"key": "a"}}"#,
            ".metadata.kind",
            [kinds, "none of them"],
        ),
        (
            r#""metadata": {"kind": {"route": {}, "host": {}}, "metadata_key": {"key": "a"}}"#,
            ".metadata.kind",
            [kinds, "several of them"],
        ),
        (
            r#""metadata": {"kind": {"host": {"a": 1}}, "metadata_key": {"key": "a"}}"#,
            ".metadata.kind.host.a",
            ["an object without keys", "\"a\""],
        ),
        (
            r#""metadata": {"kind": "host", "metadata_key": {"key": "a"}}"#,
            ".metadata.kind",
            ["an object", "found a string"],
        ),
        (
            r#""metadata": {"kind": {"host": {}}, "metadataKey": {"key": "a", "path": [{}]}}"#,
            ".metadata.metadataKey.path[0].key",
            ["a value, which is required", "none"],
        ),
        (
            r#""value": "50% off""#,
            ".value",
            ["text with commands such as %REQ(X?Y):12%, and %% for a %", "\"% off\""],
        ),
        (r#""value": """#, ".value", ["a non-empty string", "\"\""]),
        (r#""formatter": {"value": ""}"#, ".formatter.value", ["a non-empty string", "\"\""]),
        (r#""value": "%DYNAMIC_METADATA(a)%""#, ".value", [namespace, "\"a\""]),
        (r#""value": "%REQ()%""#, ".value", [name, "\"\""]),
        (
            r#""cookie": {"name": "a"}, "max_length": 0"#,
            ".max_length",
            ["a whole number from 1 up", "found 0"],
        ),
        (
            r#""cookie": {"name": "a"}, "redact": "drop""#,
            ".redact",
            ["one of `hash`, `mask`", "\"drop\""],
        ),
        (
            r#""cookie": {"name": "a"}, "max_length": 3, "maxLength": 3"#,
            ".max_length",
            ["the key once, in one spelling", "it twice"],
        ),
    ] {
        check_refused(&tag(member), &format!("custom_tags[0]{at}"), &findings);
    }
}

#[test]
fn expressions_that_envoy_does_not_compile_are_refused() {
    let error = |member: &str, compiles: &dyn Fn(&str) -> bool| {
        let config = Config::parse_checked(tag(member).as_bytes(), &|_| None, compiles);
        config.map(|_| ()).map_err(|error| error.to_string())
    };
    let expected = "expected a CEL expression of at most 2048 bytes that Envoy compiles (its log has \
                    the reason at `info`), but found";
    let refused = |member: &str, at: &str, found: &str, compiles: &dyn Fn(&str) -> bool| {
        let reason = format!("custom_tags[0].{at}: {expected} {found}");
        assert_eq!(error(member, compiles), Err(reason), "{member}");
    };
    refused(r#""cel": "1 +""#, "cel", "\"1 +\"", &|text| text != "1 +");
    refused(r#""cel": """#, "cel", "\"\"", &|_| true);
    refused(r#""cel": " \n""#, "cel", "\" \\n\"", &|_| true);
    let long = format!(r#""cel": "{}""#, "a".repeat(2049));
    assert!(error(&long, &|_| true).is_err());
    assert_eq!(
        error(r#""cel": "request.path + ' '""#, &|text| text == "request.path + ' '"),
        Ok(())
    );
    check_refused(&tag(r#""cel": 1"#), "custom_tags[0].cel", &["a string", "found 1"]);
    let read = r#""cel": "request.path", "read": "end""#;
    check_refused(&tag(read), "custom_tags[0].read", &["no `read` here", "one"]);
}

#[test]
fn headers_with_credentials_are_refused() {
    let header = |source: &str| format!(r#""{source}": {{"name": "Authorization"}}"#);
    for (member, at, found) in [
        (header("request_header"), ".request_header.name", "\"authorization\""),
        (header("responseHeader"), ".response_header.name", "\"authorization\""),
        (header("response_trailer"), ".response_trailer.name", "\"authorization\""),
        (header("header"), ".header.name", "\"authorization\""),
        (r#""header": {"name": "Cookie", "read": "end"}"#.to_owned(), ".header.name", "\"cookie\""),
        (r#""value": "a %REQ(X?Cookie):3%""#.to_owned(), ".value", "\"cookie\""),
        (r#""cel": "request.headers['X-API-Key']""#.to_owned(), ".cel", "\"x-api-key\""),
        (r#""cel": "request.headers.cookie + ''""#.to_owned(), ".cel", "\"cookie\""),
        (r#""value": "%REQ(Cookie)%", "read": "end""#.to_owned(), ".value", "\"cookie\""),
        (
            r#""formatter": {"value": "%RESP(SET-COOKIE)%"}"#.to_owned(),
            ".formatter.value",
            "\"set-cookie\"",
        ),
        (
            r#""property": {"path": "request.headers.X-Api-Key"}"#.to_owned(),
            ".property.path",
            "\"x-api-key\"",
        ),
        (
            r#""property": {"path": ["response", "headers", "set-cookie"]}"#.to_owned(),
            ".property.path",
            "\"set-cookie\"",
        ),
    ] {
        check_refused(&tag(&member), &format!("custom_tags[0]{at}"), &[SECRET, found]);
    }
    // A header that holds tokens, also where its name has characters that end a word of CEL.
    for name in ["x-debug", "x_debug.token"] {
        let token = format!(
            r#""sampling": {{"rules": [{{"name": "r", "match": {{"headers": {{"name": "{name}", "token":
                {{"keys": [{{"id": "k", "secret": "0123456789abcdef0123456789abcdef"}}]}}}}}}}}]}}"#
        );
        let tag = format!(r#"{{"tag": "a", "cel": "request.headers['{name}']"}}"#);
        let json = format!(r#"{{{token}, "custom_tags": [{tag}]}}"#);
        check_refused(&json, "custom_tags[0].cel", &[SECRET, name]);
    }
    let tag = r#""custom_tags": [{"tag": "a", "request_header": {"name": "Cookie"}}]"#;
    let allowed = |names: &str| format!(r#"{{"allow_sensitive_headers": [{names}], {tag}}}"#);
    assert!(parse(&allowed(r#""authorization", "COOKIE", "x-other""#)).is_ok());
    assert!(parse(&allowed(r#""authorization""#)).is_err());
}

#[test]
fn an_unknown_command_is_refused_with_the_known_ones() {
    for command in ["UNIQUE_ID", "REQUEST(X)", "PROTOCOL()", "GRPC_STATUS_NUMBER(NUMBER)"] {
        let name = command.split('(').next().unwrap();
        check_refused(
            &tag(&format!(r#""value": "%{command}%""#)),
            "custom_tags[0].value",
            &["a known command, one of `REQ`,", &format!("found \"{name}\"")],
        );
    }
}

#[test]
fn wrong_arguments_of_commands_are_refused() {
    let path = "`WQ` or `NQ`, then `:ORIG`, `:PATH` or `:ORIG_OR_PATH`";
    let state = "`KEY:PLAIN` or `KEY:FIELD:NAME`, since filters cannot read the message";
    let time = "a format of `%Y %m %d";
    let kinds = "one of `DYNAMIC`, `CLUSTER`, `ROUTE`, `UPSTREAM_HOST`, `LISTENER`, `VIRTUAL_HOST`";
    for (command, expected, found) in [
        ("HOSTNAME", "`%ENVIRONMENT(HOSTNAME)%`, since filters cannot read", "\"HOSTNAME\""),
        ("UPSTREAM_HOST_NAME", "`%UPSTREAM_HOST%`, since filters", "\"UPSTREAM_HOST_NAME\""),
        ("FILTER_STATE(a)", state, "\"a\""),
        ("FILTER_STATE(a:TYPED)", state, "\"a:TYPED\""),
        ("FILTER_STATE(a:FIELD)", state, "\"a:FIELD\""),
        ("FILTER_STATE(a:PLAIN:b)", state, "\"a:PLAIN:b\""),
        ("FILTER_STATE(:PLAIN)", state, "\":PLAIN\""),
        ("FILTER_STATE(a:FIELD:)", state, "\"a:FIELD:\""),
        ("ENVIRONMENT", "a non-empty string", "\"\""),
        ("START_TIME(%j)", time, "\"%j\""),
        ("PATH(WQ:QUERY)", path, "\"WQ:QUERY\""),
        ("PATH(Q)", path, "\"Q\""),
        ("PATH(WQ:PATH:)", path, "\"WQ:PATH:\""),
        ("GRPC_STATUS(number)", "one of `CAMEL_STRING`, `SNAKE_STRING`, `NUMBER`", "\"number\""),
        ("METADATA(HOST:a:b)", kinds, "\"HOST\""),
        ("METADATA(LISTENER_FILTER_CHAIN:a:b)", kinds, "\"LISTENER_FILTER_CHAIN\""),
        ("METADATA(ROUTE:a)", "a namespace, and a key in it", "\"a\""),
        ("METADATA(ROUTE)", "a namespace, and a key in it", "\"\""),
        ("REQ_WITHOUT_QUERY(COOKIE)", SECRET, "\"cookie\""),
        ("CEL(request.headers['cookie'])", SECRET, "\"cookie\""),
        ("CEL()", "a CEL expression", "\"\""),
        ("CEL", "a CEL expression", "\"\""),
        ("REQ", "the name of a header", "\"\""),
        ("QUERY_PARAM", "a non-empty string", "\"\""),
    ] {
        let format = format!(r#""value": "%{command}%""#);
        check_refused(
            &tag(&format),
            "custom_tags[0].value",
            &[expected, &format!("found {found}")],
        );
    }
}

#[test]
fn read_is_refused_where_no_request_header_is_named() {
    let read = "one of `start`, `end`";
    let elsewhere = "no `read` here: it belongs beside `value`, or in `request_header`, `header` or \
                     `formatter`";
    let nothing = "no `read`, since the format reads no request header";
    for (member, at, findings) in [
        (
            r#""request_header": {"name": "a", "read": "later"}"#,
            ".request_header.read",
            [read, "\"later\""],
        ),
        (r#""request_header": {"name": "a"}, "read": "end""#, ".read", [elsewhere, "one"]),
        (r#""formatter": {"value": "%REQ(A)%"}, "read": "end""#, ".read", [elsewhere, "one"]),
        (r#""cookie": {"name": "a"}, "read": "start""#, ".read", [elsewhere, "one"]),
        (
            r#""response_header": {"name": "a", "read": "end"}"#,
            ".response_header.read",
            ["a known key, one of `name`, `default_value`, but", "\"read\""],
        ),
        (r#""value": "%RESP(A)%", "read": "end""#, ".read", [nothing, "one"]),
        (r#""value": "%%REQ(A)%%", "read": "start""#, ".read", [nothing, "one"]),
        (r#""value": "%QUERY_PARAM(a)%", "read": "end""#, ".read", [nothing, "one"]),
        (
            r#""formatter": {"value": "%PROTOCOL%", "read": "end"}"#,
            ".formatter.read",
            [nothing, "one"],
        ),
    ] {
        check_refused(&tag(member), &format!("custom_tags[0]{at}"), &findings);
    }
    for member in [
        r#""request_header": {"name": "a", "read": "start"}"#,
        r#""header": {"name": "a", "default_value": "-", "read": "end"}"#,
        r#""formatter": {"value": "%REQ(A)%", "read": "end"}"#,
        r#""value": "a%REQ(A?B)%", "read": "end""#,
        r#""value": "%PATH(NQ)%", "read": "end""#,
        r#""value": "%REQ_WITHOUT_QUERY(A)%", "read": "start""#,
    ] {
        assert!(parse(&tag(member)).is_ok(), "{member}");
    }
}

#[test]
fn wrong_names_of_tags_are_refused_with_their_path() {
    let literal = r#""literal": {"value": "a"}"#;
    let set = "a tag that the filter does not set itself";
    for (tags, path, findings) in [
        (
            format!(r#"[{{"tag": "", {literal}}}]"#),
            "custom_tags[0].tag",
            ["a non-empty string", "found \"\""],
        ),
        (format!("[{{{literal}}}]"), "custom_tags[0].tag", ["a value, which is required", "none"]),
        (
            format!(r#"[{{"tag": "url.path", {literal}}}]"#),
            "custom_tags[0].tag",
            [set, "found \"url.path\""],
        ),
        (
            format!(r#"[{{"tag": "a", {literal}}}, {{"tag": "a", {literal}}}]"#),
            "custom_tags[1].tag",
            ["a tag that no other entry has", "found \"a\", which is the tag of custom_tags[0]"],
        ),
        (
            format!(r#"{{"url.path": {{{literal}}}}}"#),
            "custom_tags.url.path",
            [set, "found \"url.path\""],
        ),
        (
            r#"{"a": {"header": {"name": "cookie"}}}"#.to_owned(),
            "custom_tags.a.header.name",
            [SECRET, "found \"cookie\""],
        ),
        (
            r#"{"a": {"environment": {"defaultValue": "b"}}}"#.to_owned(),
            "customTags.a.environment.name",
            ["a value, which is required", "none"],
        ),
        (
            format!(r#"{{"a": {{"tag": null, {literal}}}}}"#),
            "customTags.a.tag",
            ["a string", "found null"],
        ),
        (r#"{"a": 1}"#.to_owned(), "customTags.a", ["an object", "found a number"]),
        (r#""a""#.to_owned(), "customTags", ["an array, or an object by name", "found \"a\""]),
        (
            format!(r#"{{"a": {{"tag": "b", {literal}}}}}"#),
            "custom_tags.a.tag",
            ["no `tag` (the name of the entry is the tag)", "found \"b\""],
        ),
        (
            format!(r#"{{"a": {{{literal}}}, "a": {{{literal}}}}}"#),
            "customTags.a",
            ["the key once", "it twice"],
        ),
        (
            r#"[], "custom_tags": []"#.to_owned(),
            "custom_tags",
            ["the key once, in one spelling", "it twice"],
        ),
    ] {
        check_refused(&format!(r#"{{"customTags": {tags}}}"#), path, &findings);
    }
}

/// The tags that Istio adds at waypoints: `buildWaypointSourceTags` in `pilot/pkg/networking/core/tracing.go`.
#[test]
fn istios_waypoint_tags_are_accepted_unchanged() {
    let fields = [
        ("workload", "workload"),
        ("namespace", "namespace"),
        ("cluster_id", "cluster"),
        ("canonical_service", "service"),
        ("canonical_revision", "revision"),
        ("app", "app"),
        ("app_version", "version"),
        ("workload_type", "type"),
        ("instance_name", "name"),
    ];
    let ends = [("destination", "upstream"), ("source", "downstream")];
    let tags: Vec<_> = ends
        .iter()
        .flat_map(|(end, peer)| {
            fields.map(|(name, field)| {
                format!(
                    r#"{{"tag": "istio.{end}_{name}",
                        "value": "%FILTER_STATE({peer}_peer_obj:FIELD:{field})%"}}"#
                )
            })
        })
        .collect();
    let config = parse(&format!(r#"{{"custom_tags": [{}]}}"#, tags.join(","))).unwrap();
    let sources = config.span.tags.properties.sources();
    assert_eq!(sources.len(), 18);
    let workload = r#"string((has(filter_state.upstream_peer_obj)&&has(filter_state.upstream_peer_obj.workload)?filter_state.upstream_peer_obj.workload:""))"#;
    assert_eq!(sources[0], PropertySource::Cel(workload.to_owned()));
}
