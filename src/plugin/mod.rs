//! The side that Envoy calls: proxy-wasm contexts around the core.
//!
//! <https://github.com/proxy-wasm/proxy-wasm-rust-sdk>
//!
//! No callback panics, pauses or answers a request: a panic would take the VM of a worker, and all
//! its requests, with it.

mod acceptance;
mod environment;
mod exporter;
mod host;
mod ids;
mod limits;
mod metrics;
mod node;
mod properties;
mod root;
mod shared;
mod stream;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use proxy_wasm::types::{LogLevel, MapType};
use talc::TalckWasm;

use self::acceptance::PluginName;

use self::ids::IdGenerator;
use self::metrics::Metrics;
use self::properties::{PropertyList, integer};
use self::root::Root;
use self::stream::{Late, Stream};
use crate::config::Config;
use crate::export::exporter::Exporter;
use crate::export::queue::Batch;
use crate::export::tally::{Tally, Totals};
use crate::filter::{self, PendingSpan, RequestFacts, on_request_headers};
use crate::http::grpc;
use crate::http::head::{Head, pairs};
use crate::propagation::response::When;
use crate::sampling::conditions::Direction;
use crate::sampling::decision::DecisionKind;
use crate::sampling::export_on::RequestEnd;
use crate::sampling::held_heads::HeldHeads;
use crate::sampling::limit::BurstShare;
use crate::span::resource::{ResourceVariables, resource};
use crate::span::tags::EndFacts;
use crate::span::tags::source::Input;
use crate::span::{self, ActiveSpan, StreamFacts};

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
    gateway: bool,
    /// A rule asks for the direction.
    needs_direction: bool,
    stream_facts: PropertyList<11>,
    ending_facts: PropertyList<2>,
    held_heads: Option<HeldHeads>,
    /// Root contexts that hold it; without one, only streams that began before still use it.
    roots: Cell<u32>,
    /// Envoy uses it: it is none that is tried, or configured at the same time as another.
    has_begun: Cell<bool>,
    state: RefCell<State>,
}

/// What changes with every request.
struct State {
    ids: IdGenerator,
    tally: Tally,
    exporter: Option<Exporter>,
    metrics: Metrics,
    /// When it was last looked whether the upstream got this filter's context.
    checked_unix_nanos: u64,
    /// The next request is one to look at.
    is_check_due: bool,
}

impl Plugin {
    fn new(name: PluginName, config: Config) -> Self {
        let ids = IdGenerator::seeded();
        let resource = resource(&config.resource, &resource_variables(), &node::node());
        let exporter = config
            .exporter
            .clone()
            .map(|settings| Exporter::new(settings, config.propagation.clone(), &resource));
        let tally = Tally::new(config.rules.iter().count());
        let metrics = Metrics::define(&config.rules);
        let mut state =
            State { ids, tally, exporter, metrics, checked_unix_nanos: 0, is_check_due: false };
        state.publish();
        let held_heads = config.export_on.as_ref().map(|export_on| {
            let max_chars = config.span.attribute_limits.value_length as usize;
            HeldHeads::new(export_on.max_held_bytes, max_chars, config.span.tags.request_headers())
        });
        let of_tags = config.span.tags.properties.paths().to_vec();
        Self {
            name,
            gateway: node::is_gateway(),
            needs_direction: config.rules.needs_direction() || config.trust.needs_direction(),
            stream_facts: PropertyList::new(STREAM_FACTS, of_tags),
            ending_facts: PropertyList::new(ENDING_FACTS, Vec::new()),
            held_heads,
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

    /// Hands over what this configuration has not exported to the newest one that exports to the same
    /// place; without such a one, counts it as dropped.
    fn retire(&self) {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        if let Some(exporter) = &mut state.exporter {
            let all = exporter.take_all();
            let heirs = root::registered();
            let left = heirs.iter().fold(all, |batches, heir| heir.take_over(exporter, batches));
            exporter.abandon(&left);
            exporter::log(exporter);
        }
        state.publish();
    }

    /// Takes over the batches of another exporter. Returns them where this configuration exports to
    /// another place, or nothing.
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

    /// Decides on the request, tells the upstream, and starts the span where there is one. A
    /// request whose headers the host does not hand over goes on as it is.
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
            direction: self.needs_direction.then(|| self.read_direction()),
            source_address: &source_address,
            unix_seconds: if needed.time { host::now() / NANOS_PER_SECOND } else { 0 },
        };
        let fresh = state.ids.fresh();
        let outcome = on_request_headers(&self.config, &head, facts, fresh, &mut limits::take);
        state.tally.decided(&outcome.summary);
        let is_ignored = outcome.summary.kind == DecisionKind::Ignore;
        outcome.edits.iter().for_each(host::edit_request_header);
        if state.is_check_due && !is_ignored && self.config.propagation.writes_contexts() {
            state.is_check_due = false;
            stream.upstream = Some(Box::new(stream::trace_headers()));
        }
        if let Some(context) = outcome.log_context {
            for (path, value) in context.properties() {
                host::set_property(path, &value);
            }
        }
        stream.hides_context = self.config.response.when != When::Always
            && outcome.response_context.is_none()
            && !is_ignored;
        stream.response_context = outcome.response_context;
        match outcome.span {
            PendingSpan::None => {}
            PendingSpan::Recorded(recording) => {
                let now = host::now();
                let span =
                    ActiveSpan::start(&self.config.span, &head, end_of_stream, &recording, now);
                stream.span = Some(Box::new(span));
            }
            PendingSpan::Late(recording) => {
                let Some(head) = self.held_heads.as_ref().and_then(|held| held.hold(&head)) else {
                    state.tally.late_not_held += 1;
                    return;
                };
                stream.late = Some(Box::new(Late {
                    recording: *recording,
                    head,
                    end_of_stream,
                    start_unix_nanos: host::now(),
                    first_byte_unix_nanos: None,
                }));
            }
        }
    }

    /// Compares the context that went upstream with the one that this filter wrote.
    #[inline(never)]
    fn on_upstream_known(&self, written: &[(Vec<u8>, Vec<u8>)]) {
        if stream::trace_headers() == written {
            return;
        }
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.tally.contexts_overwritten += 1;
        }
        if limits::may_log("overwritten", self.name.as_str()) {
            host::log(LogLevel::Warn, OVERWRITTEN);
        }
    }

    /// Makes a span of a request that was not sampled, where it ended as `export_on` says and the
    /// limits allow for it.
    fn on_late_end(&self, late: &Late) {
        let Some(export_on) = &self.config.export_on else {
            return;
        };
        let ending_facts = export_on.needs_response().then(|| self.ending_facts.read());
        let [status, flags] = match &ending_facts {
            Some(facts) => facts.values(),
            None => Default::default(),
        };
        let (mut status, flags) =
            (u16::try_from(integer(status)).unwrap_or_default(), integer(flags));
        // Envoy's own answer to what says that it is gRPC has the status in gRPC's terms.
        let may_hide = status == 200 && flags != 0 && !export_on.status.is_empty();
        // The head is read again only where that is of use: most requests end well.
        let is_grpc =
            (may_hide || !export_on.grpc_status.is_empty()) && span::is_grpc(&late.head.head());
        let grpc_status = is_grpc.then(grpc_status).flatten();
        if let Some(code) = grpc_status.filter(|_| may_hide) {
            let details = host::property("response\0code_details").unwrap_or_default();
            if !span::is_of_upstream(&details) {
                status = grpc::http_status_of_local_reply(code);
            }
        }
        let end = RequestEnd {
            status,
            flags,
            grpc_status,
            duration_nanos: host::now().saturating_sub(late.start_unix_nanos),
        };
        let Some(reason) = export_on.matching(&end) else {
            return;
        };
        let of_all = self.config.limit.as_ref().map(|limit| (limit, BurstShare::ExceptReserve));
        let permitted = export_on
            .limit
            .take(reason, &mut |limit| limits::take([Some((limit, BurstShare::Full)), of_all]));
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.tally.ended_late(permitted);
        }
        if !permitted {
            return;
        }
        let (recording, start) = (&late.recording, late.start_unix_nanos);
        let head = late.head.head();
        let span =
            ActiveSpan::start(&self.config.span, &head, late.end_of_stream, recording, start);
        let mut span = Box::new(span);
        span.export_on(reason.key());
        if let Some(unix_nanos) = late.first_byte_unix_nanos {
            span.response_started(unix_nanos);
        }
        self.on_end(span);
    }

    fn on_end(&self, mut span: Box<ActiveSpan>) {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        let end_unix_nanos = host::now();
        let facts = self.stream_facts.read();
        let [
            direction,
            source_address,
            protocol,
            status,
            flags,
            code_details,
            route_name,
            upstream_cluster,
            upstream_address,
            attempts,
            response_body_bytes,
        ] = facts.values();
        let request_body_bytes = span
            .request_body_bytes()
            .or_else(|| Some(integer(&host::property("request\0size").ok()?)));
        let grpc_status = span.is_grpc().then(grpc_status).flatten();
        let answered_in_http = span.is_grpc()
            && grpc_status.is_none()
            && span::is_of_upstream(code_details)
            && !response_is_grpc();
        let direction = self.direction(integer(direction));
        let stream_facts = StreamFacts {
            direction,
            source_address,
            protocol,
            status: u16::try_from(integer(status)).unwrap_or_default(),
            flags: integer(flags),
            code_details,
            route_name,
            upstream_cluster,
            upstream_address,
            attempts: integer(attempts),
            request_body_bytes: request_body_bytes.unwrap_or_default(),
            response_body_bytes: integer(response_body_bytes),
            grpc_status,
            answered_in_http,
            end_unix_nanos,
        };
        if self.config.span.tags.needs_end_facts() {
            let properties = self.config.span.tags.properties.values(direction, &facts.of_tags());
            self.add_tags_at_end(&mut span, &properties);
        }
        let finished = span.finish(stream_facts);
        state.tally.attributes_dropped += u64::from(finished.dropped);
        state.tally.attributes_truncated += u64::from(finished.truncated);
        if let Some(exporter) = &mut state.exporter
            && let Some(period) = exporter.push(&finished.bytes)
        {
            host::set_tick_period(period);
        }
        if self.roots.get() == 0 {
            drop(state);
            self.retire();
        }
    }

    /// Adds the tags that say how the request ended, or what became of its headers.
    #[inline(never)]
    fn add_tags_at_end(&self, span: &mut ActiveSpan, properties: &[&[u8]]) {
        let tags = &self.config.span.tags;
        let read = |input, map| {
            tags.needs(input).then(|| host::headers(map).ok()).flatten().unwrap_or_default()
        };
        let response = read(Input::ResponseHeaders, MapType::HttpResponseHeaders);
        let trailers = read(Input::ResponseTrailers, MapType::HttpResponseTrailers);
        let tag_facts = EndFacts {
            response: &Head::new(pairs(&response)),
            trailers: &Head::new(pairs(&trailers)),
            properties,
        };
        span.add_tags(tags, &tag_facts);
    }

    /// The listener's direction. It is read from the request, not from the root context, which
    /// listeners of both directions may share.
    fn read_direction(&self) -> Direction {
        let bytes = host::property(&LISTENER_DIRECTION.replace('.', "\0"));
        self.direction(bytes.map(|bytes| integer(&bytes)).unwrap_or_default())
    }

    fn direction(&self, listener_direction: u64) -> Direction {
        if listener_direction == OUTBOUND && !self.gateway {
            Direction::Outbound
        } else {
            Direction::Inbound
        }
    }
}

impl State {
    fn tick(&mut self) {
        let now = host::now();
        if now.saturating_sub(self.checked_unix_nanos) >= CHECK_NANOS {
            (self.checked_unix_nanos, self.is_check_due) = (now, true);
        }
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

/// Reads the variables that say the resource.
fn resource_variables() -> ResourceVariables {
    let variables = ResourceVariables::read(&environment::variable);
    if let Err(error) = &variables.attributes
        && limits::may_log("resource", "")
    {
        host::log(LogLevel::Warn, &["sidespan: ", error].concat());
    }
    variables
}

/// Returns the status that a gRPC response says. `response.grpc_status` is not asked: where there is
/// no status, as in an answer that was cut short or one of gRPC-Web, Envoy makes one up from HTTP's,
/// and 200 is `UNKNOWN`.
fn grpc_status() -> Option<u64> {
    let said = |path| host::property(path).ok().filter(|status| !status.is_empty());
    let status = GRPC_STATUS.into_iter().find_map(said)?;
    Some(grpc::status(&status))
}

/// Tells whether the response says that it is one of gRPC's.
fn response_is_grpc() -> bool {
    let content_type = host::property("response\0headers\0content-type");
    content_type.is_ok_and(|content_type| grpc::is_grpc(&content_type))
}

/// Where a status is: an answer that is nothing but a status has it in its head.
const GRPC_STATUS: [&str; 2] =
    ["response\0trailers\0grpc-status", "response\0headers\0grpc-status"];

/// Envoy's attributes that a span is made of.
const STREAM_FACTS: [&str; 11] = [
    LISTENER_DIRECTION,
    "source.address",
    "request.protocol",
    RESPONSE_CODE,
    RESPONSE_FLAGS,
    "response.code_details",
    "xds.route_name",
    "xds.cluster_name",
    "upstream.address",
    "upstream.request_attempt_count",
    "response.size",
];
/// Those that say whether a request is exported late.
const ENDING_FACTS: [&str; 2] = [RESPONSE_CODE, RESPONSE_FLAGS];
/// An attribute of the listener: Envoy's `TrafficDirection`.
const LISTENER_DIRECTION: &str = "xds.listener_direction";
const RESPONSE_CODE: &str = "response.code";
const RESPONSE_FLAGS: &str = "response.flags";
const OUTBOUND: u64 = 2;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How long between two requests whose context is compared.
const CHECK_NANOS: u64 = NANOS_PER_SECOND;

const OVERWRITTEN: &str = "sidespan: the upstream gets another trace context than the one that \
    this filter wrote, so traces are broken: switch Envoy's own tracing off (`tracing` of the HTTP \
    connection manager; in Istio a Telemetry with `tracing: [{disableSpanReporting: true}]`)";

/// How often metrics are published where there is no exporter with an interval of its own.
const PUBLISH_PERIOD: Duration = Duration::from_secs(1);
