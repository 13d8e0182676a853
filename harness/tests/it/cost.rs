//! The cost of attacks, in WebAssembly instructions: requests with 60 KB of headers, each made to be slow
//! for one parser. An attacker must not be able to keep a worker busy with them.

use sidespan_harness::host::{Headers, Message, Module, Settings, StreamInfo};

use crate::module;

/// Envoy's default limit for the size of headers, names included.
const BYTES: usize = 60 * 1024;
/// Envoy's default limit is 100 lines, of which an ordinary request takes some.
const LINES: usize = 95;
/// Limit for attacks on one condition with a regular expression.
const MAX_REGEX_INSTRUCTIONS: u64 = 3_000_000;
/// Limit for all other attacks.
const MAX_INSTRUCTIONS: u64 = 4_000_000;

/// A configuration, and headers that are added to those of an ordinary request.
struct Attack {
    name: &'static str,
    configuration: &'static str,
    headers: Vec<(String, Vec<u8>)>,
}

/// Returns one header line that is as long as possible.
fn long(name: &str, part: &[u8]) -> Vec<(String, Vec<u8>)> {
    vec![(name.to_owned(), repeated(part, BYTES - name.len()))]
}

/// Returns as many lines as possible, each as long as the limit of bytes allows.
fn lines(name: &str, part: &[u8]) -> Vec<(String, Vec<u8>)> {
    let value = repeated(part, (BYTES / LINES).saturating_sub(name.len()).max(part.len()));
    vec![(name.to_owned(), value); LINES]
}

/// Returns as many lines as possible, each with this value.
fn short_lines(name: &str, value: &[u8]) -> Vec<(String, Vec<u8>)> {
    vec![(name.to_owned(), value.to_vec()); LINES]
}

fn repeated(part: &[u8], bytes: usize) -> Vec<u8> {
    part.iter().copied().cycle().take(bytes / part.len() * part.len()).collect()
}

const PARENT: (&str, &[u8]) =
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");

fn with_parent(mut headers: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    headers.insert(0, (PARENT.0.to_owned(), PARENT.1.to_vec()));
    headers
}

const BOTS: &str = r#""sampling": {"rules": [{"name": "bots", "decision": "drop", "match":
    {"headers": {"name": "user-agent", "regex": ".*(bot|crawler|spider).*"}}}]}"#;
const REPETITIONS: &str = r#""sampling": {"rules": [{"name": "r", "decision": "drop", "match":
    {"headers": {"name": "x", "regex": "(a{1,50}){1,8}b|.*a{1,50}c"}}}]}"#;
const CONDITIONS: &str = r#""sampling": {"rules": [{"name": "r", "decision": "drop", "match": {"headers": [
    {"name": "x", "contains": "aab", "ignore_case": true}, {"name": "x", "contains": "ab", "ignore_case": true},
    {"name": "x", "regex": ".*a.*b"}, {"name": "x", "exact": "a"}, {"name": "x", "suffix": "b"}]}}]}"#;
const PATHS: &str = r#""sampling": {"rules": [{"name": "r", "decision": "drop", "match":
    {"path": {"prefix": "/healthz"}}}]}"#;
const TAGS: &str = r#""custom_tags": [
    {"tag": "query", "query_parameter": {"name": "absent"}}, {"tag": "cookie", "cookie": {"name": "absent"}},
    {"tag": "baggage", "baggage": {"name": "absent"}}, {"tag": "header", "request_header": {"name": "x"}},
    {"tag": "query2", "query_parameter": {"name": "a"}}, {"tag": "cookie2", "cookie": {"name": "a"}},
    {"tag": "baggage2", "baggage": {"name": "a"}}, {"tag": "hash", "request_header": {"name": "x"}, "redact": "hash"},
    {"tag": "late", "value": "%REQ(X)%%REQ(Y)%"}]"#;
const PATH_PARTS: &str = r#""span": {"redact_path": [{"regex": "a|a.*b", "replacement": "x"},
    {"regex": "(a{1,50}){1,8}b", "replacement": "x"}, {"regex": "[^/]+@", "replacement": "x"}],
    "client_address": "masked"}, "custom_tags": [{"tag": "path", "request_header": {"name": ":path"}},
    {"tag": "clients", "request_header": {"name": "x-forwarded-for"}}]"#;
const BAGGAGE: &str = r#""propagation": {"baggage": {"max_members": 64, "max_bytes": 8192}}"#;
const ALL_FORMATS: &str = r#""propagation": {"extract": ["tracecontext", "b3", "jaeger", "xray", "ottrace",
    "datadog", "grpc-trace-bin", "gcp", "instana", "baggage"], "inject": ["tracecontext", "b3multi", "jaeger", "xray", "ottrace",
    "datadog", "grpc-trace-bin", "gcp", "instana"]}"#;
const TRUST: &str = r#""propagation": {"trust": "restart", "egress": [
    {"authority": {"regex": ".*a.*b"}, "action": "strip"}]}"#;
const TOKENS: &str = r#""sampling": {"rules": [{"name": "t", "decision": "force", "match": {"headers":
    {"name": "x", "token": {"keys": [{"id": "ops", "secret": "0123456789abcdef0123456789abcdef"}]}}}}]}"#;
const LATE: &str = r#""sampling": {"ratio": 0, "export_on": {"status": "5xx"}}"#;

fn attacks() -> Vec<Attack> {
    let attack = |name, configuration, headers| Attack { name, configuration, headers };
    let names = |prefix: &str| {
        let name = |number| (format!("{prefix}{number}{}", "a".repeat(600)), b"1".to_vec());
        (0..LINES).map(name).collect()
    };
    vec![
        attack("nothing", "", vec![]),
        attack("regex, long lines", BOTS, lines("user-agent", b"b")),
        attack("regex, one line", BOTS, long("user-agent", b"cra")),
        attack("regex, repetitions", REPETITIONS, long("x", b"a")),
        attack("five conditions", CONDITIONS, lines("x", b"a")),
        attack("five conditions, short lines", CONDITIONS, short_lines("x", b"a")),
        attack("tracestate, one key", "", with_parent(long("tracestate", b"a=1,"))),
        attack("tracestate, empty members", "", with_parent(long("tracestate", b",\t "))),
        attack("tracestate, lines", "", with_parent(lines("tracestate", b"a=1,"))),
        attack("tracestate, empty lines", "", with_parent(lines("tracestate", b",\t "))),
        attack("user agent, not UTF-8", "", long("user-agent", b"\xf0\x90\x28")),
        attack("query, parameters", TAGS, long(":path", b"/?a=%61&")),
        attack("query, encoded", TAGS, long(":path", b"/?%61%62%63")),
        attack("cookies", TAGS, long("cookie", b"a=1; ")),
        attack("cookies, lines", TAGS, lines("cookie", b"b=1;")),
        attack("baggage, members", TAGS, long("baggage", b"a=%61,")),
        attack("baggage, properties", TAGS, long("baggage", b"a=1;b=2;c, ")),
        attack("baggage, limits", BAGGAGE, long("baggage", b"a=1,")),
        attack("baggage, empty lines", BAGGAGE, lines("baggage", b", ")),
        attack("a tag's header", TAGS, long("x", b"\xff\"\\")),
        attack("a tag's lines", TAGS, lines("x", b"a")),
        attack("path, dots", PATHS, long(":path", b"/..")),
        attack("path, slashes", PATHS, long(":path", b"/")),
        attack("path, encoded", PATHS, long(":path", b"/%2e")),
        attack("path, redacted", "", long(":path", b"/?token=a&b=;")),
        attack("path, searched", PATH_PARTS, vec![(":path".to_owned(), repeated(b"/aac", 2_048))]),
        attack("path, one part", PATH_PARTS, vec![(":path".to_owned(), repeated(b"c", 2_048))]),
        attack(
            "path, many parts",
            PATH_PARTS,
            vec![(":path".to_owned(), repeated(b"/%61", 2_048))],
        ),
        attack("path, too long to search", PATH_PARTS, long(":path", b"/%61")),
        attack("addresses, masked", PATH_PARTS, long("x-forwarded-for", b"1.1.1.1, ")),
        attack("addresses, malformed", PATH_PARTS, long("x-forwarded-for", b";=:,")),
        attack("b3", ALL_FORMATS, long("b3", b"0123456789abcdef-")),
        attack("b3, lines", ALL_FORMATS, lines("x-b3-traceid", b"1")),
        attack("jaeger", ALL_FORMATS, long("uber-trace-id", b"1:1:1:1:")),
        attack("jaeger, encoded", ALL_FORMATS, long("uber-trace-id", b"%3a%31")),
        attack("xray", ALL_FORMATS, long("x-amzn-trace-id", b"Root=1-1;")),
        attack("xray, empty pairs", ALL_FORMATS, long("x-amzn-trace-id", b" ;=")),
        attack("xray, lines", ALL_FORMATS, lines("x-amzn-trace-id", b"A=1")),
        attack("datadog, tags", ALL_FORMATS, {
            let mut headers = long("x-datadog-tags", b"_dd.p.a=1,");
            headers.push(("x-datadog-trace-id".to_owned(), b"1".to_vec()));
            headers.push(("x-datadog-parent-id".to_owned(), b"1".to_vec()));
            headers
        }),
        attack("gcp", ALL_FORMATS, long("x-cloud-trace-context", b"1/1;")),
        attack("instana", ALL_FORMATS, long("x-instana-t", b"1")),
        attack("instana, level", ALL_FORMATS, long("x-instana-l", b"1,")),
        attack("grpc-trace-bin", ALL_FORMATS, long("grpc-trace-bin", b"AAAA")),
        attack("traceparent, lines", ALL_FORMATS, short_lines(PARENT.0, PARENT.1)),
        attack("other formats, removed", TRUST, lines("x_b3_traceid", b"1")),
        attack("names, looked through", TRUST, names("x-b3-")),
        attack("authority", TRUST, long(":authority", b"a.")),
        attack("authority, users", TRUST, long(":authority", b"a@:1")),
        attack("a token", TOKENS, long("x", b"AQAAAA")),
        attack("tokens, lines", TOKENS, lines("x", b"AQAA")),
        attack("names", "", names("x")),
        attack("forwarded", "", long("x-forwarded-for", b"1.1.1.1, ")),
        attack("held for a late span", LATE, lines("user-agent", b"a")),
    ]
}

/// Returns the instructions of one request, from its headers to its end.
fn cost(module: &Module, attack: &Attack) -> u64 {
    let separator = if attack.configuration.is_empty() { "" } else { ", " };
    let exporter = r#""exporter": {"otlp": {"cluster": "otel-collector"}}"#;
    let configuration = format!("{{{}{separator}{exporter}}}", attack.configuration);
    let settings = Settings { configuration: configuration.into(), ..Settings::default() };
    let mut vm = module.start(&settings).expect("an instance").expect("a configuration");
    let ordinary =
        [(":path", "/a"), (":method", "GET"), (":authority", "shop"), (":scheme", "http")];
    let is_attacked = |name: &str| attack.headers.iter().any(|(attacked, _)| attacked == name);
    let ordinary = ordinary.iter().filter(|(name, _)| !is_attacked(name));
    let mut headers = Headers::from_iter(ordinary.copied());
    attack.headers.iter().for_each(|(name, value)| headers.add(name, value.as_slice()));
    let before = vm.instructions().expect("a metered module");
    let request = Message { headers, ..Message::default() };
    let context = vm.request(StreamInfo::default(), request).expect("no trap");
    let headers = Headers::from_iter([(":status", "503")]);
    vm.response(context, Message { headers, ..Message::default() }).expect("no trap");
    vm.finish(context).expect("no trap");
    vm.instructions().expect("a metered module") - before
}

#[test]
fn no_attack_costs_more_than_the_limit() {
    let module = Module::load(&module::path(), true).expect("the module loads");
    let mut table = String::new();
    let mut over_limit = Vec::new();
    for attack in attacks() {
        let instructions = cost(&module, &attack);
        table += &format!("{instructions:>10}  {}\n", attack.name);
        let is_regex = attack.name.starts_with("regex");
        if instructions > if is_regex { MAX_REGEX_INSTRUCTIONS } else { MAX_INSTRUCTIONS } {
            over_limit.push(attack.name);
        }
    }
    println!("{table}");
    assert_eq!(over_limit, Vec::<&str>::new(), "too many instructions:\n{table}");
}
