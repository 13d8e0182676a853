//! `sidespan`: the command line of the harness.

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use sidespan_harness::explain::Explainer;
use sidespan_harness::host::Module;
use sidespan_harness::plugin::Plugin;
use sidespan_harness::replay::Loaded;
use sidespan_harness::report::Report;

/// Tries the sidespan filter without Envoy
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Replay(Replay),
    Explain(Explain),
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
    /// Answer with one line of JSON a request
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Replay(arguments) => replay(&arguments),
        Command::Explain(arguments) => explain(&arguments).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::from(UNUSABLE)
        }),
    }
}

fn explain(arguments: &Explain) -> anyhow::Result<ExitCode> {
    let module = Module::load(&arguments.module, false)?;
    let plugin = arguments.config.as_deref().map(Plugin::read).transpose()?.unwrap_or_default();
    let mut explainer = Explainer::start(&module, plugin, arguments.seed)?;
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
        metrics: {sidespan.spans_exported: 1}
        log: []
        calls: [{cluster: otel-collector, headers: {":path": /v1/traces}}]

Instead of `cases`, `configuration_error: TEXT` says what the filter must log while it refuses
the configuration. A header value that is not text is written as
`{name: x-raw, value_hex: "ff00"}`."#;

const EXPLAIN_EXAMPLE: &str = r#"A request has the keys that `request` has in a scenario, with `direction` and
`response` beside them, all optional:

  {"path": "/cart", "direction": "inbound", "headers": [["b3", "0"]], "response": {"status": 503}}

What is printed is what changed. With --json it is all header lines:

  {"decision": "parent", "upstream": [{"name": "b3", "value": "0"}], "client": [], "counted": {},
   "spans": []}

A header value that is not text is `{"name": "x-raw", "value_hex": "ff00"}`, in both."#;
