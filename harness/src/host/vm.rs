//! One VM of a module, and the callbacks that Envoy calls in it, in Envoy's order.

use wasmtime::Store;

use super::calls::{Call, CallResponse, Request};
use super::exports::Exports;
use super::faults::Faults;
use super::log::LogLine;
use super::state::{ROOT_CONTEXT, Settings, State};
use super::stream::{Intervention, Message, Phase, Stream, StreamInfo};

/// A running VM with its root context.
pub struct Vm {
    store: Store<State>,
    exports: Exports,
    metered: bool,
    next_context: u32,
}

impl Vm {
    /// Starts the VM of a new instance, and configures the plugin.
    pub(crate) fn start(
        store: Store<State>,
        exports: Exports,
        metered: bool,
        settings: &Settings,
    ) -> Result<Self, StartFailure> {
        let mut vm = Self { store, exports, metered, next_context: ROOT_CONTEXT + 1 };
        match vm.boot(settings) {
            Ok(true) => Ok(vm),
            Ok(false) => Err(StartFailure { trap: None, log: vm.take_log() }),
            Err(trap) => Err(StartFailure { trap: Some(trap), log: vm.take_log() }),
        }
    }

    /// Starts a request: creates its context, and hands headers, body and trailers over. Returns the
    /// context.
    pub fn request(&mut self, mut info: StreamInfo, request: Message) -> Result<u32, Trap> {
        let context = self.next_context;
        self.next_context += 1;
        info.started_ns = self.now_ns();
        let (body, trailers) = (request.body.len(), request.trailers.len());
        let headers = request.headers.len();
        self.store.data_mut().streams.insert(context, Stream::new(info, request));
        self.call(context, "proxy_on_context_create", |exports, store| {
            exports.context_create.call(store, (context, ROOT_CONTEXT))
        })?;
        self.message(context, [headers, body, trailers], &REQUEST_STEPS)?;
        Ok(context)
    }

    /// Hands the response to a request over.
    pub fn response(&mut self, context: u32, response: Message) -> Result<(), Trap> {
        let sizes = [response.headers.len(), response.body.len(), response.trailers.len()];
        if let Some(stream) = self.store.data_mut().streams.get_mut(&context) {
            stream.response = Some(response);
        }
        self.message(context, sizes, &RESPONSE_STEPS)
    }

    /// Ends a stream with on_log, on_done and on_delete, and returns it.
    pub fn finish(&mut self, context: u32) -> Result<Option<Stream>, Trap> {
        let now = self.now_ns();
        if let Some(stream) = self.store.data_mut().streams.get_mut(&context) {
            stream.info.duration_ns = Some(now.saturating_sub(stream.info.started_ns));
            stream.phase = Phase::Log;
        }
        self.call(context, "proxy_on_log", |exports, store| exports.log.call(store, context))?;
        // A result of false asks Envoy to wait for `proxy_done`; it does so only for root contexts.
        self.call(context, "proxy_on_done", |exports, store| exports.done.call(store, context))?;
        self.call(context, "proxy_on_delete", |exports, store| {
            exports.delete.call(store, context)
        })?;
        Ok(self.store.data_mut().streams.remove(&context))
    }

    /// Configures the root context, again if it has a configuration. Returns false if the module
    /// refuses the configuration.
    pub fn configure(&mut self, configuration: &[u8]) -> Result<bool, Trap> {
        self.store.data_mut().configuration = Some(configuration.to_vec());
        let configured = self.call(ROOT_CONTEXT, "proxy_on_configure", |exports, store| {
            exports.configure.call(store, (ROOT_CONTEXT, configuration.len() as u32))
        })?;
        self.store.data_mut().configuration = None;
        Ok(configured != Some(0))
    }

    /// Moves the clock, without a tick.
    pub fn advance(&mut self, by_ns: u64) {
        let state = self.store.data_mut();
        state.now_ns = state.now_ns.saturating_add(by_ns);
    }

    /// Sets which hostcalls fail from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.store.data_mut().faults = faults;
    }

    /// Sets the names of the clusters that exist from now on; `None`: every name does.
    pub fn set_clusters(&mut self, clusters: Option<&[String]>) {
        self.store.data_mut().calls.set_clusters(clusters);
    }

    pub fn now_ns(&self) -> u64 {
        self.store.data().now_ns
    }

    /// Returns when the next tick is due; `None` if the module set no tick period.
    pub fn next_tick_ns(&self) -> Option<u64> {
        let state = self.store.data();
        (state.tick_period_ms > 0).then_some(state.next_tick_ns)
    }

    /// Fires a tick now; the next one is due a period later.
    pub fn tick(&mut self) -> Result<(), Trap> {
        let state = self.store.data_mut();
        state.next_tick_ns = state.now_ns + u64::from(state.tick_period_ms) * 1_000_000;
        self.call(ROOT_CONTEXT, "proxy_on_tick", |exports, store| {
            exports.tick.call(store, ROOT_CONTEXT)
        })?;
        self.announce_queues()
    }

    /// Takes the calls that the module made since the last time.
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.store.data_mut().calls.new)
    }

    /// Responds to a call. The root context gets the response, as in Envoy, whichever context made the
    /// call.
    pub fn respond(&mut self, call: &Call, response: CallResponse) -> Result<(), Trap> {
        let (context, token) = (ROOT_CONTEXT, call.token);
        let sizes = (
            response.headers.len() as u32,
            response.body.len() as u32,
            response.trailers.len() as u32,
        );
        let grpc_status = response.grpc_status;
        self.store.data_mut().call_response = Some(response);
        match &call.request {
            Request::Http { .. } => {
                self.call(context, "proxy_on_http_call_response", |exports, store| {
                    exports
                        .http_call_response
                        .call(store, (context, token, sizes.0, sizes.1, sizes.2))
                })?;
            }
            Request::Grpc { .. } if grpc_status == 0 => {
                self.call(context, "proxy_on_grpc_receive", |exports, store| {
                    exports.grpc_receive.call(store, (context, token, sizes.1))
                })?;
            }
            Request::Grpc { .. } => {
                self.call(context, "proxy_on_grpc_close", |exports, store| {
                    exports.grpc_close.call(store, (context, token, grpc_status))
                })?;
            }
        }
        self.store.data_mut().call_response = None;
        self.announce_queues()
    }

    /// Takes the log since the last time.
    pub fn take_log(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.store.data_mut().log)
    }

    /// Returns the value of a metric by its Prometheus name; `None` if the module did not define it.
    pub fn metric(&self, name: &str) -> Option<i64> {
        self.store.data().metrics.value(name)
    }

    /// Iterates over the Prometheus names of all metrics.
    pub fn metric_names(&self) -> impl Iterator<Item = &str> {
        self.store.data().metrics.names()
    }

    /// Returns the size of the linear memory in bytes.
    pub fn memory_size(&self) -> usize {
        self.store.data().memory.map_or(0, |memory| memory.data_size(&self.store))
    }

    /// Returns how many instructions the VM has executed; `None` if the module is not metered.
    pub fn instructions(&self) -> Option<u64> {
        if !self.metered {
            return None;
        }
        self.store.get_fuel().ok().map(|left| u64::MAX - left)
    }

    /// Calls the callbacks of a start. Returns false if the module refuses its configuration.
    fn boot(&mut self, settings: &Settings) -> Result<bool, Trap> {
        self.call(0, "_initialize", |exports, store| exports.initialize.call(store, ()))?;
        self.call(ROOT_CONTEXT, "proxy_on_context_create", |exports, store| {
            exports.context_create.call(store, (ROOT_CONTEXT, 0))
        })?;
        let started = self.call(ROOT_CONTEXT, "proxy_on_vm_start", |exports, store| {
            exports.vm_start.call(store, (ROOT_CONTEXT, 0))
        })?;
        if started == Some(0) {
            return Ok(false);
        }
        self.configure(&settings.configuration)
    }

    /// Hands a message over: headers, then body and trailers unless they are empty.
    fn message(&mut self, context: u32, sizes: [usize; 3], steps: &[Step; 3]) -> Result<(), Trap> {
        for (index, (size, step)) in sizes.into_iter().zip(steps).enumerate() {
            if index > 0 && size == 0 {
                continue;
            }
            let end_of_stream = u32::from(sizes.iter().skip(index + 1).all(|&size| size == 0));
            self.set_phase(context, step.phase);
            let action = self.call(context, step.callback, |exports, store| {
                step.phase.callback(exports).call(store, (context, size as u32, end_of_stream))
            })?;
            if let Some(action) = action.filter(|&action| action != CONTINUE)
                && let Some(stream) = self.store.data_mut().streams.get_mut(&context)
            {
                let callback = step.callback;
                stream.interventions.push(Intervention::Paused { callback, action });
            }
        }
        Ok(())
    }

    fn set_phase(&mut self, context: u32, phase: Phase) {
        if let Some(stream) = self.store.data_mut().streams.get_mut(&context) {
            stream.phase = phase;
        }
    }

    /// Tells the root context about new items in shared queues.
    fn announce_queues(&mut self) -> Result<(), Trap> {
        while let Some(queue) = self.store.data_mut().queues.ready.pop_front() {
            self.call(ROOT_CONTEXT, "proxy_on_queue_ready", |exports, store| {
                exports.queue_ready.call(store, (ROOT_CONTEXT, queue))
            })?;
        }
        Ok(())
    }

    /// Calls one callback in a context.
    fn call<T>(
        &mut self,
        context: u32,
        callback: &'static str,
        call: impl FnOnce(&Exports, &mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, Trap> {
        self.store.data_mut().effective_context = context;
        call(&self.exports, &mut self.store)
            .map_err(|error| Trap { callback, message: root_cause(&error) })
    }
}

/// The phase of one part of a message, and the callback that gets the part.
struct Step {
    phase: Phase,
    callback: &'static str,
}

const REQUEST_STEPS: [Step; 3] = [
    Step { phase: Phase::RequestHeaders, callback: "proxy_on_request_headers" },
    Step { phase: Phase::RequestBody, callback: "proxy_on_request_body" },
    Step { phase: Phase::RequestTrailers, callback: "proxy_on_request_trailers" },
];

const RESPONSE_STEPS: [Step; 3] = [
    Step { phase: Phase::ResponseHeaders, callback: "proxy_on_response_headers" },
    Step { phase: Phase::ResponseBody, callback: "proxy_on_response_body" },
    Step { phase: Phase::ResponseTrailers, callback: "proxy_on_response_trailers" },
];

/// Why a VM did not start: a callback trapped, or the module refused its configuration.
#[derive(Debug)]
pub struct StartFailure {
    pub trap: Option<Trap>,
    pub log: Vec<LogLine>,
}

/// A callback trapped. Envoy does not use the VM again, and the caller must not either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    pub callback: &'static str,
    pub message: String,
}

impl std::fmt::Display for Trap {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} trapped: {}", self.callback, self.message)
    }
}

impl std::error::Error for Trap {}

/// Returns the cause of a trap without its backtrace, whose frames have no names.
fn root_cause(error: &wasmtime::Error) -> String {
    error.chain().last().map_or_else(|| error.to_string(), ToString::to_string)
}

const CONTINUE: u32 = 0;
