//! One VM of a module: the callbacks that Envoy makes, in its order.

use wasmtime::Store;

use super::calls::{Call, CallAnswer, GrpcStream, Request};
use super::exports::Exports;
use super::faults::Faults;
use super::state::{LogLine, Settings, State};
use super::stream::{Intervention, Message, Phase, Stream, StreamInfo};

/// A running VM with its root context.
pub struct Vm {
    store: Store<State>,
    exports: Exports,
    metered: bool,
    next_context: u32,
}

impl Vm {
    /// Starts the VM of a fresh instance, and configures the plugin.
    pub(super) fn start(
        store: Store<State>,
        exports: Exports,
        metered: bool,
        settings: &Settings,
    ) -> Result<Self, StartFailure> {
        let mut vm = Self { store, exports, metered, next_context: ROOT_CONTEXT + 1 };
        match vm.boot(settings) {
            Ok(true) => Ok(vm),
            Ok(false) => Err(StartFailure { fault: None, log: vm.take_log() }),
            Err(fault) => Err(StartFailure { fault: Some(fault), log: vm.take_log() }),
        }
    }

    /// Lets a request begin: a context, then its headers, body and trailers. Gives the context.
    pub fn request(&mut self, mut info: StreamInfo, request: Message) -> Result<u32, Fault> {
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

    /// Lets the response to a request arrive; it replaces none.
    pub fn response(&mut self, context: u32, response: Message) -> Result<(), Fault> {
        let sizes = [response.headers.len(), response.body.len(), response.trailers.len()];
        if let Some(stream) = self.store.data_mut().streams.get_mut(&context) {
            stream.response = Some(response);
        }
        self.message(context, sizes, &RESPONSE_STEPS)
    }

    /// Ends a stream: on_log, on_done, on_delete. Gives what became of it.
    pub fn finish(&mut self, context: u32) -> Result<Option<Stream>, Fault> {
        let now = self.now_ns();
        if let Some(stream) = self.store.data_mut().streams.get_mut(&context) {
            stream.info.duration_ns = Some(now.saturating_sub(stream.info.started_ns));
            stream.phase = Phase::Log;
        }
        self.call(context, "proxy_on_log", |exports, store| exports.log.call(store, context))?;
        // Envoy waits for `proxy_done` where a root context asks for it, not where a stream does.
        self.call(context, "proxy_on_done", |exports, store| exports.done.call(store, context))?;
        self.call(context, "proxy_on_delete", |exports, store| {
            exports.delete.call(store, context)
        })?;
        Ok(self.store.data_mut().streams.remove(&context))
    }

    /// Configures the root context, whether it has a configuration or not; false where the module
    /// refuses it.
    pub fn configure(&mut self, configuration: &[u8]) -> Result<bool, Fault> {
        self.store.data_mut().configuration = Some(configuration.to_vec());
        let configured = self.call(ROOT_CONTEXT, "proxy_on_configure", |exports, store| {
            exports.configure.call(store, (ROOT_CONTEXT, configuration.len() as u32))
        })?;
        self.store.data_mut().configuration = None;
        Ok(configured != Some(0))
    }

    /// Moves the clock by so much, without a tick.
    pub fn advance(&mut self, by_ns: u64) {
        let state = self.store.data_mut();
        state.now_ns = state.now_ns.saturating_add(by_ns);
    }

    /// Lets hostcalls fail from now on; none without faults.
    pub fn set_faults(&mut self, faults: Faults) {
        self.store.data_mut().faults = faults;
    }

    /// Says which clusters calls may go to from now on; `None`: any.
    pub fn set_clusters(&mut self, clusters: Option<&[String]>) {
        self.store.data_mut().calls.set_clusters(clusters);
    }

    pub fn now_ns(&self) -> u64 {
        self.store.data().now_ns
    }

    /// When the next tick is due; `None` where the module asked for none.
    pub fn next_tick_ns(&self) -> Option<u64> {
        let state = self.store.data();
        (state.tick_period_ms > 0).then_some(state.next_tick_ns)
    }

    /// Fires a tick now, and lets the next one be due a period later.
    pub fn tick(&mut self) -> Result<(), Fault> {
        let state = self.store.data_mut();
        state.next_tick_ns = state.now_ns + u64::from(state.tick_period_ms) * 1_000_000;
        self.call(ROOT_CONTEXT, "proxy_on_tick", |exports, store| {
            exports.tick.call(store, ROOT_CONTEXT)
        })?;
        self.announce_queues()
    }

    /// Takes the calls that were sent since the last time.
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.store.data_mut().calls.made)
    }

    /// Answers a call, in the root context: to Envoy every call is the root context's.
    pub fn answer(&mut self, call: &Call, answer: CallAnswer) -> Result<(), Fault> {
        let (context, token) = (ROOT_CONTEXT, call.token);
        let sizes =
            (answer.headers.len() as u32, answer.body.len() as u32, answer.trailers.len() as u32);
        let grpc_status = answer.grpc_status;
        self.store.data_mut().answer = Some(answer);
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
        self.store.data_mut().answer = None;
        self.announce_queues()
    }

    /// gRPC streams that the module opened, by token.
    pub fn grpc_streams(&self) -> impl Iterator<Item = (u32, &GrpcStream)> {
        self.store.data().calls.streams.iter().map(|(token, stream)| (*token, stream))
    }

    /// Takes what was logged since the last time.
    pub fn take_log(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.store.data_mut().log)
    }

    /// Value of a metric; `None` where the module defined none of that name.
    pub fn metric(&self, name: &str) -> Option<i64> {
        self.store.data().metrics.value(name)
    }

    /// Names of all metrics.
    pub fn metric_names(&self) -> impl Iterator<Item = &str> {
        self.store.data().metrics.names()
    }

    /// Size of the linear memory in bytes.
    pub fn memory_size(&self) -> usize {
        self.store.data().memory.map_or(0, |memory| memory.data_size(&self.store))
    }

    /// Instructions executed so far; `None` where the module is not metered.
    pub fn instructions(&self) -> Option<u64> {
        if !self.metered {
            return None;
        }
        self.store.get_fuel().ok().map(|left| u64::MAX - left)
    }

    /// Runs the start sequence; false where the module refuses its configuration.
    fn boot(&mut self, settings: &Settings) -> Result<bool, Fault> {
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

    /// Hands a message over: headers, then body and trailers where there are any.
    fn message(&mut self, context: u32, sizes: [usize; 3], steps: &[Step; 3]) -> Result<(), Fault> {
        for (index, (size, step)) in sizes.into_iter().zip(steps).enumerate() {
            if index > 0 && size == 0 {
                continue;
            }
            let end = u32::from(sizes.iter().skip(index + 1).all(|&size| size == 0));
            self.set_phase(context, step.phase);
            let action = self.call(context, step.callback, |exports, store| {
                step.phase.callback(exports).call(store, (context, size as u32, end))
            })?;
            if let Some(action) = action.filter(|&action| action != CONTINUE) {
                let intervention = Intervention::Paused { callback: step.callback, action };
                self.intervene(context, intervention);
            }
        }
        Ok(())
    }

    fn set_phase(&mut self, context: u32, phase: Phase) {
        if let Some(stream) = self.store.data_mut().streams.get_mut(&context) {
            stream.phase = phase;
        }
    }

    fn intervene(&mut self, context: u32, intervention: Intervention) {
        if let Some(stream) = self.store.data_mut().streams.get_mut(&context) {
            stream.interventions.push(intervention);
        }
    }

    /// Tells the root context of shared queues that got something.
    fn announce_queues(&mut self) -> Result<(), Fault> {
        while let Some(queue) = self.store.data_mut().queues.ready.pop_front() {
            self.call(ROOT_CONTEXT, "proxy_on_queue_ready", |exports, store| {
                exports.queue_ready.call(store, (ROOT_CONTEXT, queue))
            })?;
        }
        Ok(())
    }

    /// Makes one callback in a context; a trap becomes a [`Fault`].
    fn call<T>(
        &mut self,
        context: u32,
        callback: &'static str,
        call: impl FnOnce(&Exports, &mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        self.store.data_mut().effective_context = context;
        call(&self.exports, &mut self.store)
            .map_err(|error| Fault { callback, message: root_cause(&error) })
    }
}

/// One part of a message and the callback that gets it.
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

/// A VM that did not start: the configuration was refused, or a callback trapped.
#[derive(Debug)]
pub struct StartFailure {
    pub fault: Option<Fault>,
    pub log: Vec<LogLine>,
}

/// A trap. Envoy does not use the VM again; nor should the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub callback: &'static str,
    pub message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} trapped: {}", self.callback, self.message)
    }
}

impl std::error::Error for Fault {}

/// The reason of a trap, without the frames of a module that has no names.
fn root_cause(error: &wasmtime::Error) -> String {
    error.chain().last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Envoy's first context; streams come after it.
pub(super) const ROOT_CONTEXT: u32 = 1;
const CONTINUE: u32 = 0;
