use super::*;
use crate::config::testing::{check_refused, parse};

fn exporter(member: &str) -> String {
    format!(r#"{{"exporter": {{"otlp": {{"cluster": "c", {member}}}}}}}"#)
}

fn zipkin(members: &str) -> String {
    format!(r#"{{"exporter": {{"zipkin": {{{members}}}}}}}"#)
}

#[test]
fn defaults_are_those_of_opentelemetry_and_the_collector() {
    let config = parse(r#"{"exporter": {"otlp": {"cluster": "c"}}}"#).unwrap();
    let expected = ExporterSettings {
        protocol: Protocol::OtlpHttp,
        cluster: "c".to_owned(),
        authority: "c".to_owned(),
        path: "/v1/traces".to_owned(),
        timeout: Duration::from_secs(10),
        headers: vec![],
        gzip: false,
        limits: QueueLimits {
            max_queue_spans: 2048,
            max_queue_bytes: 8 << 20,
            max_batch_spans: 512,
            max_batch_bytes: 2 << 20,
        },
        retry: RetryPolicy {
            initial_interval: Duration::from_secs(1),
            max_interval: Duration::from_secs(30),
            max_elapsed_time: Duration::from_secs(300),
        },
        interval: Duration::from_secs(1),
    };
    assert_eq!(config.exporter, Some(expected.clone()));
    let config = parse(&exporter(r#""protocol": "grpc""#)).unwrap();
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export".to_owned();
    let grpc = ExporterSettings { protocol: Protocol::OtlpGrpc, path, ..expected.clone() };
    assert_eq!(config.exporter, Some(grpc));
    let config = parse(r#"{"exporter": {"zipkin": {"cluster": "c"}}}"#).unwrap();
    let path = "/api/v2/spans".to_owned();
    let zipkin = ExporterSettings { protocol: Protocol::Zipkin, path, ..expected.clone() };
    assert_eq!(config.exporter, Some(zipkin));
    for (compression, gzip) in [("gzip", true), ("none", false)] {
        let config = parse(&exporter(&format!(r#""compression": "{compression}""#))).unwrap();
        assert_eq!(config.exporter, Some(ExporterSettings { gzip, ..expected.clone() }));
    }
}

#[test]
fn values_come_from_the_environment() {
    let config = parse(&exporter(
        r#""headers": [{"name": "X-Pod", "environment": {"name": "POD_NAME"}},
                       {"name": "x-b", "environment": {"name": "NONE", "default_value": "d"}},
                       {"name": "x-c", "literal": {"value": "l"}}]"#,
    ));
    let headers = config.unwrap().exporter.unwrap().headers;
    let expected = [("x-pod", "checkout-1"), ("x-b", "d"), ("x-c", "l")];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn the_authority_is_the_cluster_if_that_is_a_valid_host() {
    for (cluster, expected) in [
        ("otel-collector", "otel-collector"),
        ("10.0.0.1:4318", "10.0.0.1:4318"),
        ("outbound|4318||otel.obs.svc.cluster.local", "otel.obs.svc.cluster.local:4318"),
        ("outbound|4318|v1|otel", "otel:4318"),
        ("a/b c", "otlp"),
        ("a|b", "otlp"),
    ] {
        let json = format!(r#"{{"exporter": {{"otlp": {{"cluster": "{cluster}"}}}}}}"#);
        assert_eq!(parse(&json).unwrap().exporter.unwrap().authority, expected);
    }
}

#[test]
fn wrong_receivers_are_refused_with_their_path() {
    let either = "`otlp` or `zipkin`";
    let path = "a path that begins with /, without spaces";
    for (json, at, findings) in [
        (r#"{"exporter": {}}"#.to_owned(), "", [either, "neither"]),
        (
            r#"{"exporter": {"otlp": {"cluster": "a"}, "zipkin": {"cluster": "b"}}}"#.to_owned(),
            "",
            [either, "both"],
        ),
        (
            r#"{"exporter": {"otlp": {}}}"#.to_owned(),
            ".otlp.cluster",
            ["a value, which is required", "none"],
        ),
        (
            r#"{"exporter": {"otlp": {"cluster": ""}}}"#.to_owned(),
            ".otlp.cluster",
            ["a non-empty string", "found \"\""],
        ),
        (
            zipkin(r#""cluster": "c", "protocol": "grpc""#),
            ".zipkin.protocol",
            [
                "a known key, one of `cluster`, `path`, `timeout_ms`, `compression`, `headers`",
                "found \"protocol\"",
            ],
        ),
        (zipkin(r#""cluster": "c", "path": "v2""#), ".zipkin.path", [path, "found \"v2\""]),
        (exporter(r#""path": "v1""#), ".otlp.path", [path, "found \"v1\""]),
        (exporter(r#""path": "/v 1""#), ".otlp.path", [path, "found \"/v 1\""]),
        (
            exporter(r#""protocol": "grpc", "path": "/a""#),
            ".otlp.path",
            ["none, since the protocol `grpc` has its own", "found \"/a\""],
        ),
        (
            exporter(r#""protocol": "grpc", "compression": "gzip""#),
            ".otlp.compression",
            ["`none`, since the protocol is `grpc`", "found \"gzip\""],
        ),
        (
            exporter(r#""compression": "zstd""#),
            ".otlp.compression",
            ["one of `none`, `gzip`", "found \"zstd\""],
        ),
        (
            exporter(r#""protocol": "http/json""#),
            ".otlp.protocol",
            ["one of `http/protobuf`, `grpc`", "found \"http/json\""],
        ),
        (exporter(r#""timeout_ms": 0"#), ".otlp.timeout_ms", ["from 1 up", "found 0"]),
        (exporter(r#""timeout_ms": 1.5"#), ".otlp.timeout_ms", ["a whole number", "found 1.5"]),
    ] {
        check_refused(&json, &format!("exporter{at}"), &findings);
    }
}

#[test]
fn wrong_headers_are_refused_and_no_value_is_shown() {
    let set = "a header that neither the exporter nor another entry sets";
    let either = "`literal` or `environment`";
    let not_shown = "found something else, which is not shown";
    for (headers, at, findings) in [
        (
            r#"[{"name": "a", "environment": {"name": "NONE"}}]"#,
            "[0].environment.name",
            ["an environment variable of the VM, or a default_value", "found \"NONE\""],
        ),
        (
            r#"[{"name": "a", "literal": {"value": "secret\n"}}]"#,
            "[0].literal.value",
            ["a value without control characters", "found a control character, such as a newline"],
        ),
        (
            r#"[{"name": "Content-Type", "literal": {"value": "a"}}]"#,
            "[0].name",
            [set, "found \"content-type\""],
        ),
        (r#"[{"name": ":path", "literal": {"value": "a"}}]"#, "[0].name", [set, "found \":path\""]),
        (
            r#"[{"name": "a", "literal": {"value": "a"}}, {"name": "A", "literal": {"value": ""}}]"#,
            "[1].name",
            [set, "found \"a\""],
        ),
        (
            r#"[{"name": "a: secret", "literal": {"value": "a"}}]"#,
            "[0].name",
            ["the name of a header", "found other characters, which are not shown"],
        ),
        (r#"[{"name": "a", "literal": "secret"}]"#, "[0].literal", ["an object", "a string"]),
        (r#"[{"name": "a", "literal": {"value": 5678}}]"#, "[0].literal.value", ["", not_shown]),
        (
            r#"[{"name": "a", "literal": {}}]"#,
            "[0].literal.value",
            ["a value, which is required", "found none"],
        ),
        (r#"[{"name": "a", "literal": {"value": null}}]"#, "[0].literal.value", ["", not_shown]),
        (
            r#"[{"name": "a", "environment": "secret"}]"#,
            "[0].environment",
            ["an object", "a string"],
        ),
        (
            r#"[{"name": "a", "environment": {"name": "A", "defaultValue": 5678}}]"#,
            "[0].environment.defaultValue",
            ["a string", not_shown],
        ),
        (r#"["a: secret"]"#, "[0]", ["an object", "found a string"]),
        (r#""a=secret""#, "", ["an array", "found a string"]),
        (r#"{"a": "secret"}"#, "", ["an array", "found an object"]),
        (r#"[{"name": "a"}]"#, "[0]", [either, "neither"]),
        (
            r#"[{"name": "a", "literal": {"value": "secret"}, "environment": {"name": "A"}}]"#,
            "[0]",
            [either, "both"],
        ),
    ] {
        let json = exporter(&format!(r#""headers": {headers}"#));
        let error = check_refused(&json, &format!("exporter.otlp.headers{at}"), &findings);
        assert!(!error.contains("secret") && !error.contains("5678"), "{error}");
    }
}
