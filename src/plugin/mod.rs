//! The side that Envoy calls: proxy-wasm contexts around the core.
//!
//! <https://github.com/proxy-wasm/proxy-wasm-rust-sdk>
//!
//! This room makes the hostcalls; what they are for is decided in the core. No callback panics, pauses
//! or answers a request: a panic would end the VM of a worker, with all its requests.

mod acceptance;
mod attached;
mod environment;
mod exporter;
mod host;
mod limits;
mod metrics;
mod root;
mod shared;
mod stream;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use proxy_wasm::types::{LogLevel, MapType};
use talc::TalckWasm;

use self::acceptance::PluginName;
use self::metrics::Metrics;
use self::root::Root;
use self::stream::Stream;
use crate::config::Config;
use crate::export::exporter::Exporter;
use crate::export::queue::Batch;
use crate::export::tally::{Tally, Totals};
use crate::filter::late::{self, LateRequest};
use crate::filter::overwrite_check::{self, OverwriteCheck};
use crate::filter::stream_end::{LISTENER_DIRECTION, direction};
use crate::filter::{self, PendingSpan, RequestFacts, on_request_headers};
use crate::http::head::{Head, pairs};
use crate::propagation::ids::IdGenerator;
use crate::sampling::decision::DecisionKind;
use crate::sampling::held_heads::HeldHeads;
use crate::span::ActiveSpan;
use crate::span::encoding::EncodedSpan;
use crate::span::node::{NODE_ID, is_gateway};
use crate::span::resource::{Node, ResourceVariables, resource};

// SAFETY: a VM has one thread.
#[global_allocator]
static ALLOCATOR: TalckWasm = unsafe { TalckWasm::new_global() };

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// One configuration of the filter in one worker.
struct Plugin {
    name: PluginName,
    config: Config,
    is_gateway: bool,
    /// Whether a condition needs the direction.
    needs_direction: bool,
    held_heads: Option<HeldHeads>,
    /// Number of root contexts that use it. If there are none, only streams that began earlier use it.
    roots: Cell<u32>,
    /// Whether Envoy uses it. A configuration that Envoy only tries, or replaces before the first tick, never
    /// begins.
    has_begun: Cell<bool>,
    state: RefCell<State>,
}

/// The part that requests change.
struct State {
    ids: IdGenerator,
    tally: Tally,
    exporter: Option<Exporter>,
    metrics: Metrics,
    overwrite_check: OverwriteCheck,
}

impl Plugin {
    fn new(name: PluginName, config: Config) -> Self {
        let ids = seeded_ids();
        let resource = resource(&config.resource, &resource_variables(), &Node::read(&host::text));
        let exporter = config
            .exporter
            .clone()
            .map(|settings| Exporter::new(settings, config.propagation.clone(), &resource));
        let tally = Tally::new(config.rules.iter().count());
        let metrics = Metrics::define(&config.rules);
        let overwrite_check = OverwriteCheck::default();
        let mut state = State { ids, tally, exporter, metrics, overwrite_check };
        state.publish();
        Self {
            name,
            is_gateway: is_gateway(&host::text(NODE_ID)),
            needs_direction: config.needs_direction(),
            held_heads: late::held_heads(&config),
            roots: Cell::new(0),
            has_begun: Cell::new(false),
            config,
            state: RefCell::new(state),
        }
    }

    /// Sets the timer of the root context.
    fn start_timer(&self) {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        match &mut state.exporter {
            Some(exporter) => host::set_tick_period(exporter.start()),
            None => host::set_tick_period(PUBLISH_PERIOD),
        }
    }

    /// Logs what is configured, once for all workers.
    fn log_start(&self) {
        let summary = self.config.summary();
        if limits::may_log("start", &summary) {
            let message = ["sidespan ", env!("CARGO_PKG_VERSION"), ": ", &summary].concat();
            host::log(LogLevel::Info, &message);
        }
    }

    /// Hands over all queued batches to the newest configuration that exports to the same destination.
    /// Without one, they are dropped and counted.
    fn retire(&self) {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        if let Some(exporter) = &mut state.exporter {
            let all = exporter.take_all();
            let others = root::registered();
            let left = others.iter().fold(all, |batches, other| other.take_over(exporter, batches));
            exporter.abandon(&left);
            exporter::log(exporter);
        }
        state.publish();
    }

    /// Takes over the batches of another exporter. Returns them if this configuration has another
    /// destination.
    fn take_over(&self, of: &Exporter, batches: Vec<Batch>) -> Vec<Batch> {
        if let Ok(mut state) = self.state.try_borrow_mut()
            && let Some(exporter) = &mut state.exporter
            && exporter.has_destination_of(of)
        {
            exporter.take_over(batches);
            state.publish();
            return Vec::new();
        }
        batches
    }

    /// Decides on the request, writes its trace headers, and starts its span, if any. A request stays
    /// as it is if the host does not return its headers.
    fn on_request(&self, end_of_stream: bool, stream: &mut Stream) {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        let Ok(headers) = host::headers(MapType::HttpRequestHeaders) else {
            return;
        };
        let head = Head::new(pairs(&headers));
        let needed = filter::needed_facts(&self.config, &head);
        let read_address = || host::property("source\0address").ok();
        let source_address = needed.source_address.then(read_address).flatten().unwrap_or_default();
        let facts = RequestFacts {
            direction: self.needs_direction.then(|| {
                let read = || host::property(LISTENER_DIRECTION).unwrap_or_default();
                let listener_direction = if self.is_gateway { Vec::new() } else { read() };
                direction(&listener_direction, self.is_gateway)
            }),
            source_address: &source_address,
            unix_seconds: if needed.time { host::now() / NANOS_PER_SECOND } else { 0 },
        };
        let fresh = state.ids.fresh(self.config.span.spawns_upstream_span);
        let outcome = on_request_headers(&self.config, &head, facts, fresh, &mut limits::take);
        state.tally.decided(&outcome.summary);
        let is_ignored = outcome.summary.kind == DecisionKind::Ignore;
        for edit in &outcome.edits {
            host::edit_header(MapType::HttpRequestHeaders, edit);
        }
        if !is_ignored && self.config.propagation.writes_contexts() && state.overwrite_check.take()
        {
            stream.written_headers = Some(Box::new(stream::trace_headers()));
        }
        if let Some(context) = outcome.log_context {
            for (path, value) in context.properties() {
                host::set_property(path, &value);
            }
        }
        stream.response_context = outcome.response_context;
        match outcome.span {
            PendingSpan::None => {}
            PendingSpan::Recorded(recording) => {
                let now = host::now();
                let span =
                    ActiveSpan::start(&self.config.span, &head, end_of_stream, &recording, now);
                stream.span = Some(span);
            }
            PendingSpan::Late(recording) => {
                let Some(head) = self.held_heads.as_ref().and_then(|held| held.hold(&head)) else {
                    state.tally.late_not_held += 1;
                    return;
                };
                stream.late = Some(Box::new(LateRequest {
                    recording: *recording,
                    head,
                    end_of_stream,
                    start_unix_nanos: host::now(),
                    first_byte_unix_nanos: None,
                }));
            }
        }
    }

    /// Compares the trace headers that the upstream got with those that this filter wrote.
    #[inline(never)]
    fn check_overwritten(&self, written: &[(Vec<u8>, Vec<u8>)]) {
        if stream::trace_headers() == written {
            return;
        }
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.tally.contexts_overwritten += 1;
        }
        if limits::may_log("overwritten", self.name.as_str()) {
            host::log(LogLevel::Warn, overwrite_check::WARNING);
        }
    }
}

impl State {
    /// Counts the dropped and the truncated attributes of a finished span, and queues it for export.
    fn record(&mut self, span: &EncodedSpan) {
        self.tally.attributes_dropped += u64::from(span.dropped);
        self.tally.attributes_truncated += u64::from(span.truncated);
        if let Some(exporter) = &mut self.exporter
            && let Some(period) = exporter.push(&span.bytes)
        {
            host::set_tick_period(period);
        }
    }

    fn tick(&mut self) {
        let now = host::now();
        self.overwrite_check.tick(now);
        let Self { exporter, ids, .. } = self;
        if let Some(exporter) = exporter {
            exporter::tick(exporter, ids, now);
        }
        self.publish();
    }

    fn on_response(&mut self, call_id: u32, body_size: usize, trailers: usize) {
        let Self { exporter, ids, .. } = self;
        if let Some(exporter) = exporter {
            exporter::on_response(exporter, ids, call_id, body_size, trailers);
        }
    }

    fn publish(&mut self) {
        let Self { tally, exporter, metrics, .. } = self;
        let totals = Totals {
            spans: exporter.as_ref().map(Exporter::counts).unwrap_or_default(),
            exports: exporter.as_ref().map(|exporter| &exporter.tally),
            requests: Some(tally),
        };
        metrics.publish(&totals);
        if let Some(exporter) = exporter {
            metrics.record(&mut exporter.tally);
        }
    }
}

/// Returns a generator with a seed of the host's randomness, or of its clock should that fail.
fn seeded_ids() -> IdGenerator {
    let mut seed = [0; 32];
    match getrandom::fill(&mut seed) {
        Ok(()) => IdGenerator::from_seed(seed),
        Err(_) => IdGenerator::seed_from_u64(host::now()),
    }
}

/// Reads the variables that describe the resource.
fn resource_variables() -> ResourceVariables {
    let variables = ResourceVariables::read(&environment::variable);
    if let Err(error) = &variables.attributes
        && limits::may_log("resource", "")
    {
        host::log(LogLevel::Warn, &["sidespan: ", error].concat());
    }
    variables
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How often metrics are published if no exporter sets an interval.
const PUBLISH_PERIOD: Duration = Duration::from_secs(1);
