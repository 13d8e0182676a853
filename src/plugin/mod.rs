//! The side that Envoy calls: proxy-wasm contexts around the core.
//!
//! No callback panics, pauses or answers a request: a panic would take the VM of a worker, and all
//! its requests, with it.

mod exporter;
mod host;
mod ids;
mod metrics;
mod node;

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use self::exporter::Exporter;
use self::host::LogLevel;
use self::ids::IdGenerator;
use self::metrics::{Metrics, Tally};
use crate::config::Config;
use crate::request::on_request_headers;
use crate::resource::resource;
use crate::rules::Direction;
use crate::span::{ActiveSpan, RequestFacts, ResponseFacts};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// One configuration of the filter in one worker.
struct Plugin {
    config: Config,
    gateway: bool,
    /// A rule asks for the direction.
    asks_direction: bool,
    state: RefCell<State>,
}

/// What changes with every request.
struct State {
    ids: IdGenerator,
    tally: Tally,
    exporter: Option<Exporter>,
}

#[derive(Default)]
struct Root {
    plugin: Option<Rc<Plugin>>,
    metrics: Option<Metrics>,
}

impl Root {
    fn configure(&mut self, json: &[u8]) -> bool {
        let config = match Config::parse(json, &|name| std::env::var(name).ok()) {
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
        let state = State { ids: IdGenerator::seeded(), tally: Tally::default(), exporter };
        host::set_tick_period(state.exporter.as_ref().map_or(PUBLISH_PERIOD, Exporter::interval));
        self.metrics = Some(Metrics::define());
        self.plugin = Some(Rc::new(Plugin {
            gateway: node::is_gateway(),
            asks_direction: config.rules.ask_direction(),
            config,
            state: RefCell::new(state),
        }));
        true
    }

    fn publish(&mut self, state: &State) {
        let books = state.exporter.as_ref().map(Exporter::books).unwrap_or_default();
        if let Some(metrics) = &mut self.metrics {
            metrics.publish(books, &state.tally);
        }
    }
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        _token: u32,
        _headers: usize,
        _body: usize,
        _trailers: usize,
    ) {
        let Some(plugin) = self.plugin.clone() else {
            return;
        };
        if let Ok(mut state) = plugin.state.try_borrow_mut()
            && let Some(exporter) = &mut state.exporter
        {
            exporter.answered();
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let json = host::configuration(size);
        self.configure(json.as_ref().map(host::Bytes::as_slice).unwrap_or_default())
    }

    fn on_tick(&mut self) {
        let Some(plugin) = self.plugin.clone() else {
            return;
        };
        if let Ok(mut state) = plugin.state.try_borrow_mut() {
            if let Some(exporter) = &mut state.exporter {
                exporter.tick();
            }
            self.publish(&state);
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { plugin: self.plugin.clone(), span: None }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One request.
struct Stream {
    plugin: Option<Rc<Plugin>>,
    span: Option<ActiveSpan>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        if let Some(plugin) = &self.plugin {
            self.span = plugin.on_request();
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        if let (Some(plugin), Some(span)) = (&self.plugin, self.span.take()) {
            plugin.on_end(span);
        }
    }
}

impl Plugin {
    /// Decides on the request, tells the upstream, and starts the span where there is one. A
    /// request whose headers the host does not hand over goes on as it is.
    fn on_request(&self) -> Option<ActiveSpan> {
        let mut state = self.state.try_borrow_mut().ok()?;
        let serialized = host::request_headers().ok()?;
        let head = host::head(serialized.as_slice());
        let direction = self.asks_direction.then(|| self.direction());
        let outcome = on_request_headers(&self.config, &head, direction, state.ids.fresh());
        state.tally.decided(outcome.kind);
        state.tally.invalid_contexts += u64::from(outcome.invalid_contexts);
        for edit in &outcome.edits {
            // An edit that the host refuses leaves that header as it came.
            let _ = host::edit_request_header(edit);
        }
        let recording = outcome.recording?;
        let source_address = host::property("source\0address");
        let protocol = host::property("request\0protocol");
        let facts = RequestFacts {
            direction: direction.unwrap_or_else(|| self.direction()),
            source_address: slice(&source_address),
            protocol: slice(&protocol),
            start_unix_nanos: host::now(),
        };
        Some(ActiveSpan::start(&self.config, &head, &recording, facts))
    }

    fn on_end(&self, span: ActiveSpan) {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        let code_details = host::property("response\0code_details");
        let upstream_address = span.is_client().then(|| host::property("upstream\0address"));
        let finished = span.finish(ResponseFacts {
            status: host::integer_property("response\0code")
                .and_then(|code| u16::try_from(code).ok())
                .unwrap_or_default(),
            flags: host::integer_property("response\0flags").unwrap_or_default(),
            code_details: slice(&code_details),
            upstream_address: upstream_address.as_ref().map(slice).unwrap_or_default(),
            end_unix_nanos: host::now(),
        });
        state.tally.attributes_truncated += u64::from(finished.truncated);
        if let Some(exporter) = &mut state.exporter {
            exporter.push(&finished.bytes);
        }
    }

    /// The listener's direction. It is read from the request, not from the root context, which
    /// listeners of both directions may share.
    fn direction(&self) -> Direction {
        const OUTBOUND: u64 = 2;
        match host::integer_property("xds\0listener_direction") {
            Some(OUTBOUND) if !self.gateway => Direction::Outbound,
            _ => Direction::Inbound,
        }
    }
}

fn slice(bytes: &Result<host::Bytes, host::Failure>) -> &[u8] {
    bytes.as_ref().map(host::Bytes::as_slice).unwrap_or_default()
}

/// How often metrics are published where there is no exporter with an interval of its own.
const PUBLISH_PERIOD: std::time::Duration = std::time::Duration::from_secs(1);
