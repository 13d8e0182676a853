//! `sidespan`: the command line of the harness.

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
use sidespan_harness::replay::Loaded;
use sidespan_harness::report::Report;
use sidespan_harness::scenario::Timestamp;
use sidespan_harness::token::Token;

/// Tries the sidespan filter without Envoy
#[derive(Parser)]
#[command(name = "sidespan", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Replay(Replay),
    Explain(Explain),
    Token(Mint),
}

/// Sends the requests of scenarios through the module, and compares what comes out, whole, with
/// what they expect
///
/// Exit status: 0 all as expected, 1 some case is not, 2 a scenario or the module cannot be used.
#[derive(Args)]
#[command(after_long_help = EXAMPLE)]
struct Replay {
    /// The filter
    #[arg(long, default_value = "target/sidespan.wasm", value_name = "FILE")]
    module: PathBuf,
    /// Print the WebAssembly instructions that each case executed
    #[arg(long)]
    fuel: bool,
    /// Scenario files
    #[arg(required = true, value_name = "SCENARIO.yaml")]
    scenarios: Vec<PathBuf>,
}

/// Says what the filter does with requests: what goes upstream, the decision, and the span that it
/// exports
///
/// Reads one request a line from standard input, as JSON. Between two of them the clock moves on by
/// a few seconds. Exit status: 0, or 2 where a request, the configuration or the module cannot be
/// used.
#[derive(Args)]
#[command(after_long_help = EXPLAIN_EXAMPLE)]
struct Explain {
    /// The filter
    #[arg(long, default_value = "target/sidespan.wasm", value_name = "FILE")]
    module: PathBuf,
    /// An Istio WasmPlugin or the bare configuration, YAML or JSON; without it there is none
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seed of the ids that the filter makes
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Time of the first request, such as 2026-01-01T00:00:00Z, which it is without this; or `now`
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Timestamp>,
    /// Environment variable that the filter gets as it is here; may come again
    #[arg(long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Answer with one line of JSON a request
    #[arg(long)]
    json: bool,
}

/// Mints a signed debug token, which a rule may ask for in a header, and prints it
///
/// Exit status: 0, or 2 where there is no key or none that will do.
#[derive(Args)]
#[command(after_long_help = TOKEN_EXAMPLE)]
struct Mint {
    /// Id of the key, as the rule has it
    #[arg(long, value_name = "ID")]
    key_id: String,
    /// Environment variable that holds the key, at least 32 bytes
    #[arg(long, value_name = "VARIABLE")]
    key_env: String,
    /// How long the token lives; at most the rule's `max_ttl_s` is of use
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = ttl)]
    ttl: u64,
    /// What the paths begin with that the token is for; every path without it
    #[arg(long, default_value = "", value_name = "PREFIX")]
    path_prefix: String,
    /// From when on the token lives, such as 2026-01-01T00:00:00Z; now without it
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Replay(arguments) => Ok(replay(&arguments)),
        Command::Explain(arguments) => explain(&arguments),
        Command::Token(arguments) => mint(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::from(UNUSABLE)
    })
}

fn mint(arguments: &Mint) -> anyhow::Result<ExitCode> {
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
    show(&format!("{}\n", token.mint(key.as_encoded_bytes())?));
    Ok(ExitCode::SUCCESS)
}

/// Reads a number of seconds, from 1 to a year: `600`, `10m`, `1h30m`.
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

/// Reads a time, or `now`.
fn time(text: &str) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(now());
    }
    let read = Timestamp::deserialize(text.into_deserializer());
    read.map_err(|error: serde::de::value::Error| error.to_string())
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn explain(arguments: &Explain) -> anyhow::Result<ExitCode> {
    let module = Module::load(&arguments.module, false)?;
    let mut plugin = arguments.config.as_deref().map(Plugin::read).transpose()?.unwrap_or_default();
    for variable in &arguments.env {
        let value = std::env::var(variable)
            .with_context(|| format!("--env {variable}: expected a variable that is text"))?;
        plugin.environment.retain(|(name, _)| name != variable);
        plugin.environment.push((variable.clone(), value));
    }
    let time = arguments.time.unwrap_or_default();
    let mut explainer = Explainer::start(&module, plugin, arguments.seed, time)?;
    let mut output = std::io::stdout().lock();
    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        let explained = line.map_err(Into::into).and_then(|line| explainer.explain(&line));
        let explanation = explained.with_context(|| format!("line {}", index + 1))?;
        let written = if arguments.json {
            writeln!(output, "{}", explanation.to_json())
        } else {
            writeln!(output, "{}", explanation.to_text())
        };
        if written.is_err() {
            // Who reads has read enough (`| head`).
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn replay(replay: &Replay) -> ExitCode {
    let module = match Module::load(&replay.module, replay.fuel) {
        Ok(module) => module,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::from(UNUSABLE);
        }
    };
    let (mut report, mut unusable) = (Report::default(), false);
    for scenario in &replay.scenarios {
        let loaded = Loaded::read(scenario).map_err(anyhow::Error::from);
        match loaded.and_then(|loaded| loaded.run(&module)) {
            Ok(results) => show(&report.add(scenario, &results)),
            Err(error) => {
                eprintln!("{error:#}");
                unusable = true;
            }
        }
    }
    show(&report.summary());
    match (unusable, report.failed) {
        (true, _) => ExitCode::from(UNUSABLE),
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::FAILURE,
    }
}

/// Prints to standard output, whose reader may have read enough and be gone (`| head`).
fn show(text: &str) {
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

Whoever holds the token may have requests traced until it expires, and nothing else."#;

const EXAMPLE: &str = r#"A scenario:

  plugin: plugin.yaml           # an Istio WasmPlugin or the bare configuration; or `config: {…}`
  node: {id: sidecar~a, cluster: checkout, metadata: {NAMESPACE: shop}}
  environment: {POD_NAME: checkout-1}
  clusters: [otel-collector]    # those that exist; without it every name does
  cel: true                     # whether Envoy has its CEL parser
  seed: 7
  time: "2026-01-01T00:00:00Z"
  cases:
    - name: debug header forces a trace
      direction: inbound        # inbound, outbound, unspecified
      clock_ms: 250             # moves the clock first
      repeat: 1
      flush: true               # moves the clock afterwards until the spans are exported
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
      properties:               # more of Envoy's attributes; a part with a dot is in brackets
        metadata.filter_metadata[envoy.lb].canary: true
        xds.cluster_name: null  # not there
      expect:
        upstream:               # all header lines, or: unchanged
          - {name: x-debug-trace, value: "true"}
          - {name: traceparent, value: "00-${trace}-${span}-01"}
        client: unchanged
        spans:
          - name: GET
            kind: SERVER
            trace_id: ${trace}  # a run of hex digits, the same wherever the name comes again
            span_id: ${span}
            status: {code: ERROR}
            attributes: {url.path: /cart, http.response.status_code: 503}
        metrics: {sidespan_spans_exported_total: 1}
        log: []
        calls: [{cluster: otel-collector, headers: {":path": /v1/traces}}]

Instead of `cases`, `configuration_error: TEXT` says what the filter must log while it refuses
the configuration. A header value that is not text is written as
`{name: x-raw, value_hex: "ff00"}`."#;

const EXPLAIN_EXAMPLE: &str = r#"A request has the keys that `request` has in a scenario, with `direction` and
`response` beside them, all optional:

  {"path": "/cart", "direction": "inbound", "headers": [["b3", "0"]], "response": {"status": 503}}

What is printed is what changed. With --json it is all header lines:

  {"decision": "parent", "rule": null, "over_limit": [], "upstream": [{"name": "b3", "value": "0"}],
   "client": [], "counted": {}, "spans": []}

A header value that is not text is `{"name": "x-raw", "value_hex": "ff00"}`, in both."#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_for_seconds_or_a_duration() {
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
    fn the_version_is_of_the_program() {
        let version = Cli::try_parse_from(["sidespan", "--version"]).err().map(|it| it.to_string());
        assert_eq!(version, Some(concat!("sidespan ", env!("CARGO_PKG_VERSION"), "\n").to_owned()));
    }
}
