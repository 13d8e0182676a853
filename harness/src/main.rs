//! The command line of the harness: `sidespan replay`, `sidespan explain`, `sidespan token`.

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use sidespan_harness::explain::Explainer;
use sidespan_harness::host::Module;
use sidespan_harness::plugin::Plugin;
use sidespan_harness::replay::{Replay, Report};
use sidespan_harness::scenario::Timestamp;
use sidespan_harness::token::Token;

/// Run the sidespan filter without Envoy
#[derive(Parser)]
#[command(name = "sidespan", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Replay(ReplayArguments),
    Explain(ExplainArguments),
    Token(TokenArguments),
}

/// Send the requests of scenarios through the filter, and compare the results with the expected ones
///
/// Exit status: 0 if all cases pass, 1 if a case fails, 2 if a scenario or the module is unusable.
#[derive(Args)]
#[command(after_long_help = REPLAY_EXAMPLE)]
struct ReplayArguments {
    /// The filter's module
    #[arg(long, default_value = "target/sidespan.wasm", value_name = "FILE")]
    module: PathBuf,
    /// Print how many WebAssembly instructions each case executes
    #[arg(long)]
    fuel: bool,
    /// Scenario files
    #[arg(required = true, value_name = "SCENARIO.yaml")]
    scenarios: Vec<PathBuf>,
}

/// Explain what the filter does with requests: the headers that it changes, its decision, and the
/// spans that it exports
///
/// Reads requests from standard input, one a line, as JSON. Between two requests the clock moves by a
/// few seconds. Exit status: 0, or 2 if a request, the configuration or the module is unusable.
#[derive(Args)]
#[command(after_long_help = EXPLAIN_EXAMPLE)]
struct ExplainArguments {
    /// The filter's module
    #[arg(long, default_value = "target/sidespan.wasm", value_name = "FILE")]
    module: PathBuf,
    /// File with an Istio WasmPlugin or the bare configuration, YAML or JSON [default: no
    /// configuration]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seed of the filter's random ids
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Time of the first request, or `now` [default: 2026-01-01T00:00:00Z]
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Timestamp>,
    /// Environment variable to pass on to the filter; can be repeated
    #[arg(long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Print each explanation as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Mint a signed debug token, which a sampling rule can require in a header, and print it
///
/// Exit status: 0, or 2 if the key is missing or too short, or another argument is invalid.
#[derive(Args)]
#[command(after_long_help = TOKEN_EXAMPLE)]
struct TokenArguments {
    /// Id of the key in the rule
    #[arg(long, value_name = "ID")]
    key_id: String,
    /// Environment variable that holds the key, at least 32 bytes
    #[arg(long, value_name = "VARIABLE")]
    key_env: String,
    /// How long the token is valid; the filter rejects tokens that are valid for longer than the
    /// rule's `max_ttl_s`
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = ttl)]
    ttl: u64,
    /// Prefix of the paths for which the token is valid [default: every path]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PREFIX")]
    path_prefix: String,
    /// Time from which `--ttl` counts, such as 2026-01-01T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Replay(arguments) => Ok(replay(&arguments)),
        Command::Explain(arguments) => explain(&arguments),
        Command::Token(arguments) => mint_token(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::from(UNUSABLE)
    })
}

fn mint_token(arguments: &TokenArguments) -> anyhow::Result<ExitCode> {
    let variable = &arguments.key_env;
    let key = std::env::var_os(variable).with_context(|| {
        format!("expected a key in the environment variable {variable}, but found none")
    })?;
    let Timestamp(now_ns) = arguments.at.unwrap_or_else(now);
    let token = Token {
        key_id: &arguments.key_id,
        expires_unix_seconds: now_ns / 1_000_000_000 + arguments.ttl,
        path_prefix: &arguments.path_prefix,
    };
    print(&format!("{}\n", token.mint(key.as_encoded_bytes())?));
    Ok(ExitCode::SUCCESS)
}

/// Parses a duration from one second to 365 days, such as `600`, `10m` or `1h30m`, to seconds.
fn ttl(text: &str) -> Result<u64, String> {
    let seconds = text.parse::<u64>().ok().or_else(|| {
        let span = text.parse::<jiff::Span>().ok()?;
        let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
        u64::try_from(duration.as_secs()).ok()
    });
    seconds.filter(|seconds| (1..=MAX_TTL_SECONDS).contains(seconds)).ok_or_else(|| {
        "expected a duration from 1 second to 365 days, such as 600, 10m, 1h30m or 1d".to_owned()
    })
}

/// Parses an RFC 3339 time, or `now`.
fn time(text: &str) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(now());
    }
    let time = Timestamp::deserialize(text.into_deserializer());
    time.map_err(|error: serde::de::value::Error| error.to_string())
}

fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX))
}

fn explain(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let module = Module::load(&arguments.module, false)?;
    let mut plugin = arguments.config.as_deref().map(Plugin::read).transpose()?.unwrap_or_default();
    for variable in &arguments.env {
        let value = std::env::var(variable).with_context(|| {
            format!("--env {variable}: expected a variable that is set to UTF-8 text")
        })?;
        plugin.environment.retain(|(name, _)| name != variable);
        plugin.environment.push((variable.clone(), value));
    }
    let time = arguments.time.unwrap_or_default();
    let mut explainer = Explainer::start(&module, plugin, arguments.seed, time)?;
    let mut output = std::io::stdout().lock();
    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        let explanation = line.map_err(Into::into).and_then(|line| explainer.explain(&line));
        let explanation = explanation.with_context(|| format!("line {}", index + 1))?;
        let written = if arguments.json {
            writeln!(output, "{}", explanation.to_json())
        } else {
            writeln!(output, "{}", explanation.to_text())
        };
        if written.is_err() {
            // The reader closed the pipe, as in `| head`.
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn replay(arguments: &ReplayArguments) -> ExitCode {
    let module = match Module::load(&arguments.module, arguments.fuel) {
        Ok(module) => module,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::from(UNUSABLE);
        }
    };
    let (mut report, mut is_unusable) = (Report::default(), false);
    for scenario in &arguments.scenarios {
        let replay = Replay::read(scenario).map_err(anyhow::Error::from);
        match replay.and_then(|replay| replay.run(&module)) {
            Ok(results) => print(&report.add(scenario, &results)),
            Err(error) => {
                eprintln!("{error:#}");
                is_unusable = true;
            }
        }
    }
    print(&report.summary());
    match (is_unusable, report.failed) {
        (true, _) => ExitCode::from(UNUSABLE),
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::FAILURE,
    }
}

/// Prints to standard output, and ignores that its reader closed the pipe, as in `| head`.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

const UNUSABLE: u8 = 2;
const MAX_TTL_SECONDS: u64 = 365 * 24 * 60 * 60;

const TOKEN_EXAMPLE: &str = r#"For this rule:

  - name: debug
    match:
      headers:
      - name: x-debug-token
        token: {keys: [{id: ops, environment: {name: DEBUG_KEY}}], max_ttl_s: 3600}
    decision: force

  $ export DEBUG_KEY=$(openssl rand -base64 32)
  $ curl -H "x-debug-token: $(sidespan token --key-id ops --key-env DEBUG_KEY)" http://shop/cart

Until the token expires, its holder can force requests to be traced, and do nothing else with it."#;

const REPLAY_EXAMPLE: &str = r#"A scenario:

  plugin: plugin.yaml           # an Istio WasmPlugin or the bare configuration; or: config: {…}
  node: {id: sidecar~a, cluster: checkout, metadata: {NAMESPACE: shop}}
  environment: {POD_NAME: checkout-1}
  clusters: [otel-collector]    # clusters that exist; default: every name exists
  cel: true                     # whether Envoy has its CEL parser
  seed: 7
  time: "2026-01-01T00:00:00Z"
  cases:
    - name: debug header forces a trace
      direction: inbound        # inbound, outbound, unspecified
      clock_ms: 250             # moves the clock before the request
      repeat: 1
      flush: true               # moves the clock after the request until all spans are exported
      collector: {status: 200, delay_ms: 0}
      request:
        {method: GET, scheme: http, authority: shop, path: "/cart?x=1", protocol: HTTP/1.1,
         source_address: "10.0.0.9:4242", uri_san_peer_certificate: spiffe://td/ns/shop/sa/web,
         uri_san_local_certificate: spiffe://td/ns/shop/sa/cart, route_name: cart,
         cluster_name: carts, headers: {x-debug-trace: "true"}, body: text, trailers: {x-sum: "1"}}
      response:
        {status: 503, flags: "UF,URX", code_details: via_upstream, attempts: 2,
         upstream_address: "10.0.0.8:80", upstream_uri_san_peer_certificate: spiffe://td/db,
         upstream_uri_san_local_certificate: spiffe://td/ns/shop/sa/cart, duration_ms: 12,
         backend_latency_ms: 9, headers: {server: db}, body: text, trailers: {grpc-status: "14"}}
      properties:               # more of Envoy's attributes; brackets around a part with a dot
        metadata.filter_metadata[envoy.lb].canary: true
        xds.cluster_name: null  # removes the attribute
      expect:
        upstream:               # all header lines, or: unchanged
          - {name: x-debug-trace, value: "true"}
          - {name: traceparent, value: "00-${trace}-${span}-01"}
        client: unchanged
        spans:
          - name: GET
            kind: SERVER
            trace_id: ${trace}  # hex digits: any the first time, the same from then on
            span_id: ${span}
            status: {code: ERROR}
            attributes: {url.path: /cart, http.response.status_code: 503}
        metrics: {sidespan_spans_exported_total: 1}
        log: []
        calls: [{cluster: otel-collector, headers: {":path": /v1/traces}}]

Instead of `cases`, a scenario can have `configuration_error: TEXT`: the filter must refuse the
configuration, and log an error that contains TEXT. A header value that is not text is written as
`{name: x-raw, value_hex: "ff00"}`."#;

const EXPLAIN_EXAMPLE: &str = r#"A request has the keys of `request` in a scenario (`sidespan replay --help`), and `direction` and
`response`, all optional:

  {"path": "/cart", "direction": "inbound", "headers": [["b3", "0"]], "response": {"status": 503}}

The output shows changed headers only. With --json it has all header lines:

  {"decision": "parent", "rule": null, "over_limit": [], "upstream": [{"name": "b3", "value": "0"}],
   "client": [], "counted": {}, "spans": []}

In requests and in JSON output, a header value that is not text is
`{"name": "x-raw", "value_hex": "ff00"}`."#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_a_number_of_seconds_or_a_duration() {
        for (text, seconds) in
            [("600", 600), ("10m", 600), ("1h30m", 5_400), ("1d", 86_400), ("2d12h", 216_000)]
        {
            assert_eq!(ttl(text), Ok(seconds), "{text}");
        }
        for text in ["", "0", "-1", "1", "366d", "1 month", "day"] {
            assert_eq!(ttl(text).is_ok(), text == "1", "{text}");
        }
    }

    #[test]
    fn version_names_the_program() {
        let version = Cli::try_parse_from(["sidespan", "--version"]).err().map(|it| it.to_string());
        assert_eq!(version, Some(concat!("sidespan ", env!("CARGO_PKG_VERSION"), "\n").to_owned()));
    }
}
