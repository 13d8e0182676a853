//! The side that Envoy calls: proxy-wasm contexts around the core.
//!
//! No callback panics, pauses or answers a request: a panic would take the VM of a worker, and all
//! its requests, with it.

mod abi;
mod allocator;
mod copies;
mod exporter;
mod host;
mod ids;
mod limits;
mod metrics;
mod node;
mod properties;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use self::exporter::Exporter;
use self::host::{Bytes, HeaderMap, LogLevel};
use self::ids::IdGenerator;
use self::metrics::{Metrics, Tally};
use self::properties::{PropertyList, integer};
use crate::config::Config;
use crate::context::Context;
use crate::grpc;
use crate::head::Head;
use crate::late::Ending;
use crate::queue::Batch;
use crate::request::{self, Known, on_request_headers};
use crate::resource::resource;
use crate::response::ResponseHeader;
use crate::rules::Direction;
use crate::span::{self, ActiveSpan, Recording, StreamFacts};
use crate::tags::Facts;
use crate::tags::source::Phase;

/// One configuration of the filter in one worker.
struct Plugin {
    config: Config,
    gateway: bool,
    /// A rule asks for the direction.
    asks_direction: bool,
    stream_facts: PropertyList<11>,
    ending_facts: PropertyList<2>,
    state: RefCell<State>,
}

/// What changes with every request.
struct State {
    ids: IdGenerator,
    tally: Tally,
    exporter: Option<Exporter>,
}

/// One plugin of Envoy's: a configuration, once there is one.
#[derive(Default)]
struct Root {
    plugin: Option<Rc<Plugin>>,
    metrics: Option<Metrics>,
}

impl Root {
    fn on_configure(&mut self, size: usize) -> bool {
        if size == 0 {
            return self.configure(b"");
        }
        match host::configuration(size) {
            Ok(json) => self.configure(json.as_slice()),
            Err(host::Failure(status)) => {
                let message =
                    format!("sidespan: the configuration cannot be read: status {status}");
                host::log(LogLevel::Error, &message);
                false
            }
        }
    }

    fn on_tick(&mut self) {
        let Some(plugin) = self.plugin.clone() else {
            return;
        };
        if let Ok(mut state) = plugin.state.try_borrow_mut() {
            if let Some(exporter) = &mut state.exporter {
                exporter.tick();
            }
            self.publish(&mut state);
        }
    }

    /// Envoy gave up this configuration: what it had not exported goes to the first of `heirs` that
    /// exports to the same place, or is booked as dropped.
    fn delete<'a>(mut self, heirs: impl Iterator<Item = &'a mut Root>) {
        let Some(plugin) = self.plugin.take() else {
            return;
        };
        // Envoy keeps the timer of a root context that is gone.
        host::set_tick_period(Duration::ZERO);
        let Ok(mut state) = plugin.state.try_borrow_mut() else {
            return;
        };
        if let Some(exporter) = &mut state.exporter {
            let all = exporter.take_all();
            let left = heirs.fold(all, |batches, heir| heir.take_over(exporter, batches));
            exporter.abandon(&left);
        }
        self.publish(&mut state);
    }

    fn on_http_call_response(&mut self, token: u32, body_size: usize, trailers: usize) {
        if let Some(plugin) = &self.plugin
            && let Ok(mut state) = plugin.state.try_borrow_mut()
            && let Some(exporter) = &mut state.exporter
        {
            exporter.answered(token, body_size, trailers);
        }
    }

    fn stream(&self) -> Stream {
        Stream { plugin: self.plugin.clone(), span: None, late: None, answer: None }
    }

    fn configure(&mut self, json: &[u8]) -> bool {
        let config = match Config::parse(json, &host::environment) {
            Ok(config) => config,
            Err(error) => {
                let message = format!("sidespan: configuration refused: {error}");
                host::log(LogLevel::Error, &message);
                return false;
            }
        };
        let service_name = config.service_name.as_deref();
        let resource = resource(service_name, &config.resource_attributes, &node::node());
        let exporter = config.exporter.clone().map(|settings| Exporter::new(settings, &resource));
        let tally = Tally::new(config.rules.iter().count());
        let mut state = State { ids: IdGenerator::seeded(), tally, exporter };
        host::set_tick_period(state.exporter.as_ref().map_or(PUBLISH_PERIOD, Exporter::interval));
        self.metrics = Some(Metrics::define(&config.rules));
        self.publish(&mut state);
        self.plugin = Some(Rc::new(Plugin {
            gateway: node::is_gateway(),
            asks_direction: config.rules.ask_direction() || config.propagation.ask_direction(),
            stream_facts: PropertyList::compile([
                LISTENER_DIRECTION,
                "source.address",
                "request.protocol",
                "response.code",
                "response.flags",
                "response.code_details",
                "xds.route_name",
                "xds.cluster_name",
                "upstream.address",
                "upstream.request_attempt_count",
                "response.size",
            ]),
            ending_facts: PropertyList::compile(["response.code", "response.flags"]),
            config,
            state: RefCell::new(state),
        }));
        true
    }

    /// Takes batches of another exporter over, or gives them back where this configuration exports to
    /// another place, or nothing.
    fn take_over(&mut self, of: &Exporter, batches: Vec<Batch>) -> Vec<Batch> {
        let Some(plugin) = self.plugin.clone() else {
            return batches;
        };
        if let Ok(mut state) = plugin.state.try_borrow_mut()
            && let Some(exporter) = &mut state.exporter
            && exporter.destination() == of.destination()
        {
            exporter.take_over(batches);
            self.publish(&mut state);
            return Vec::new();
        }
        batches
    }

    fn publish(&mut self, state: &mut State) {
        let State { tally, exporter, .. } = state;
        let (books, mut none) = Default::default();
        let (books, exports) = match exporter {
            Some(exporter) => (exporter.books(), &mut exporter.tally),
            None => (books, &mut none),
        };
        if let Some(metrics) = &mut self.metrics {
            metrics.publish(&books, exports, tally);
        }
    }
}

/// One request.
struct Stream {
    plugin: Option<Rc<Plugin>>,
    span: Option<ActiveSpan>,
    /// What a span is made of, should the request end as `export_on` says.
    late: Option<Box<Late>>,
    /// What the client is told.
    answer: Option<Box<Context>>,
}

/// A request that is not sampled and may be exported late.
struct Late {
    recording: Recording<'static>,
    /// The headers as they came, serialized: others may change them meanwhile.
    headers: Bytes,
    end_of_stream: bool,
    start_unix_nanos: u64,
    first_byte_unix_nanos: Option<u64>,
}

impl Stream {
    fn on_request_headers(&mut self, end_of_stream: bool) {
        if let Some(plugin) = self.plugin.clone() {
            plugin.on_request(end_of_stream, self);
        }
    }

    fn on_response_headers(&mut self) {
        if let (Some(plugin), Some(context)) = (&self.plugin, self.answer.take()) {
            for header in plugin.config.response.headers(&context) {
                // A header that the host refuses is missing from the response.
                let ResponseHeader { name, value, replace } = &header;
                let _ = host::put_header(HeaderMap::Response, name, value, *replace);
            }
        }
        if let Some(span) = &mut self.span {
            span.response_started(host::now());
        } else if let Some(late) = &mut self.late {
            late.first_byte_unix_nanos.get_or_insert_with(host::now);
        }
    }

    fn on_log(&mut self) {
        let Some(plugin) = &self.plugin else {
            return;
        };
        if let Some(span) = self.span.take() {
            plugin.on_end(span);
        } else if let Some(late) = self.late.take() {
            plugin.on_late_end(&late);
        }
    }
}

impl Plugin {
    /// Decides on the request, tells the upstream, and starts the span where there is one. A
    /// request whose headers the host does not hand over goes on as it is.
    fn on_request(&self, end_of_stream: bool, stream: &mut Stream) {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        let Ok(headers) = host::headers(HeaderMap::Request) else {
            return;
        };
        let head = Head::new(host::pairs(headers.as_slice()));
        let asks = request::asks(&self.config, &head);
        let read_address = || host::property("source\0address").ok();
        let source_address = asks.source_address.then(read_address).flatten().unwrap_or_default();
        let known = Known {
            direction: self.asks_direction.then(|| self.read_direction()),
            source_address: source_address.as_slice(),
            unix_seconds: if asks.time { host::now() / NANOS_PER_SECOND } else { 0 },
        };
        let fresh = state.ids.fresh();
        let outcome =
            on_request_headers(&self.config, &head, known, fresh, &mut |it| limits::take(it));
        state.tally.decided(&outcome);
        for edit in &outcome.edits {
            // An edit that the host refuses leaves that header as it came.
            let _ = host::edit_request_header(edit);
        }
        stream.answer = outcome.answer;
        if let Some(recording) = outcome.recording {
            let now = host::now();
            let span = ActiveSpan::start(&self.config, &head, end_of_stream, &recording, now);
            stream.span = Some(span);
        } else if let Some(recording) = outcome.late {
            let start_unix_nanos = host::now();
            let (recording, first_byte_unix_nanos) = (*recording, None);
            drop(head);
            let late =
                Late { recording, headers, end_of_stream, start_unix_nanos, first_byte_unix_nanos };
            stream.late = Some(Box::new(late));
        }
    }

    /// Makes a span of a request that was not sampled, where it ended as `export_on` says and the
    /// limits allow for it.
    fn on_late_end(&self, late: &Late) {
        let Some(export_on) = &self.config.export_on else {
            return;
        };
        // Taken apart again only where that is of use: most requests end well.
        let head = || Head::new(host::pairs(late.headers.as_slice()));
        let ending_facts = export_on.asks_response().then(|| self.ending_facts.read());
        let [status, flags] = match &ending_facts {
            Some(facts) => facts.values(),
            None => Default::default(),
        };
        let is_grpc = !export_on.grpc_status.is_empty() && span::is_grpc(&head());
        let ending = Ending {
            status: u16::try_from(integer(status)).unwrap_or_default(),
            flags: integer(flags),
            grpc_status: is_grpc.then(grpc_status).flatten(),
            duration_nanos: host::now().saturating_sub(late.start_unix_nanos),
        };
        let Some(condition) = export_on.holds(&ending) else {
            return;
        };
        let permitted =
            [&export_on.limit, &self.config.limit].into_iter().flatten().all(limits::take);
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.tally.ended_late(permitted);
        }
        if !permitted {
            return;
        }
        let (recording, start) = (&late.recording, late.start_unix_nanos);
        let mut span =
            ActiveSpan::start(&self.config, &head(), late.end_of_stream, recording, start);
        span.export_on(condition);
        if let Some(unix_nanos) = late.first_byte_unix_nanos {
            span.response_started(unix_nanos);
        }
        self.on_end(span);
    }

    fn on_end(&self, mut span: ActiveSpan) {
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
            .or_else(|| Some(integer(host::property("request\0size").ok()?.as_slice())));
        let grpc_status = span.is_grpc().then(grpc_status).flatten();
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
            end_unix_nanos,
        };
        if self.config.tags.ask_at_end() {
            self.add_tags_at_end(&mut span, direction);
        }
        let finished = span.finish(stream_facts);
        state.tally.attributes_dropped += u64::from(finished.dropped);
        state.tally.attributes_truncated += u64::from(finished.truncated);
        if let Some(exporter) = &mut state.exporter {
            exporter.push(&finished.bytes);
        }
    }

    /// Adds the tags that say how the request ended, or what became of its headers.
    #[inline(never)]
    fn add_tags_at_end(&self, span: &mut ActiveSpan, direction: Direction) {
        let tags = &self.config.tags;
        let read = |phase, map| {
            tags.asks(phase).then(|| host::headers(map).ok()).flatten().unwrap_or_default()
        };
        let response = read(Phase::Response, HeaderMap::Response);
        let trailers = read(Phase::Trailers, HeaderMap::ResponseTrailers);
        let mut read_properties = Vec::new();
        for path in tags.properties.paths(direction) {
            read_properties.push(host::property(path).unwrap_or_default());
        }
        let mut properties = Vec::new();
        for value in &read_properties {
            properties.push(value.as_slice());
        }
        let tag_facts = Facts {
            response: &Head::new(host::pairs(response.as_slice())),
            trailers: &Head::new(host::pairs(trailers.as_slice())),
            properties: &properties,
        };
        span.add_tags(tags, &tag_facts);
    }

    /// The listener's direction. It is read from the request, not from the root context, which
    /// listeners of both directions may share.
    fn read_direction(&self) -> Direction {
        let bytes = host::property(&LISTENER_DIRECTION.replace('.', "\0"));
        self.direction(bytes.map(|bytes| integer(bytes.as_slice())).unwrap_or_default())
    }

    fn direction(&self, listener_direction: u64) -> Direction {
        if listener_direction == OUTBOUND && !self.gateway {
            Direction::Outbound
        } else {
            Direction::Inbound
        }
    }
}

/// Returns the status that a gRPC response says. `response.grpc_status` is not asked: where there is
/// no status, as in an answer that was cut short or one of gRPC-Web, Envoy makes one up from HTTP's,
/// and 200 is `UNKNOWN`.
fn grpc_status() -> Option<u64> {
    let said = |path| host::property(path).ok().filter(|status| !status.as_slice().is_empty());
    let status = GRPC_STATUS.into_iter().find_map(said)?;
    Some(grpc::status(status.as_slice()))
}

/// Where a status is: an answer that is nothing but a status has it in its head.
const GRPC_STATUS: [&str; 2] =
    ["response\0trailers\0grpc-status", "response\0headers\0grpc-status"];

/// An attribute of the listener: Envoy's `TrafficDirection`.
const LISTENER_DIRECTION: &str = "xds.listener_direction";
const OUTBOUND: u64 = 2;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How often metrics are published where there is no exporter with an interval of its own.
const PUBLISH_PERIOD: Duration = Duration::from_secs(1);
