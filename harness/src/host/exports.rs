//! The callbacks that a module exports. All are optional: Envoy calls only those that it finds.

use anyhow::{anyhow, ensure};
use wasmtime::{Instance, Store, TypedFunc, WasmParams, WasmResults};

use super::state::State;
use super::stream::Phase;

/// All callbacks that this host calls, and the module's allocator.
pub(crate) struct Exports {
    pub(crate) initialize: Callback<(), ()>,
    pub(crate) allocate: Option<TypedFunc<u32, u32>>,
    pub(crate) context_create: Callback<(u32, u32), ()>,
    pub(crate) vm_start: Callback<(u32, u32), u32>,
    pub(crate) configure: Callback<(u32, u32), u32>,
    pub(crate) tick: Callback<u32, ()>,
    pub(crate) queue_ready: Callback<(u32, u32), ()>,
    pub(crate) http_call_response: Callback<(u32, u32, u32, u32, u32), ()>,
    pub(crate) grpc_receive: Callback<(u32, u32, u32), ()>,
    pub(crate) grpc_close: Callback<(u32, u32, u32), ()>,
    pub(crate) log: Callback<u32, ()>,
    pub(crate) done: Callback<u32, u32>,
    pub(crate) delete: Callback<u32, ()>,
    request_headers: MessageCallback,
    request_body: MessageCallback,
    request_trailers: MessageCallback,
    response_headers: MessageCallback,
    response_body: MessageCallback,
    response_trailers: MessageCallback,
}

impl Exports {
    /// Finds the callbacks. An export with a callback's name but other types is an error.
    pub(crate) fn find(store: &mut Store<State>, instance: &Instance) -> anyhow::Result<Self> {
        let abi = "proxy_abi_version_0_2_1";
        ensure!(
            instance.get_func(&mut *store, abi).is_some(),
            "expected the export {abi}, but found none"
        );
        let mut finder = Finder { store, instance };
        let initialize = finder.callback("_initialize")?;
        Ok(Self {
            initialize: if initialize.is_absent() {
                finder.callback("_start")?
            } else {
                initialize
            },
            allocate: match finder.function("proxy_on_memory_allocate")? {
                Some(allocate) => Some(allocate),
                None => finder.function("malloc")?,
            },
            context_create: finder.callback("proxy_on_context_create")?,
            vm_start: finder.callback("proxy_on_vm_start")?,
            configure: finder.callback("proxy_on_configure")?,
            tick: finder.callback("proxy_on_tick")?,
            queue_ready: finder.callback("proxy_on_queue_ready")?,
            http_call_response: finder.callback("proxy_on_http_call_response")?,
            grpc_receive: finder.callback("proxy_on_grpc_receive")?,
            grpc_close: finder.callback("proxy_on_grpc_close")?,
            log: finder.callback("proxy_on_log")?,
            done: finder.callback("proxy_on_done")?,
            delete: finder.callback("proxy_on_delete")?,
            request_headers: MessageCallback::WithEndOfStream(
                finder.callback("proxy_on_request_headers")?,
            ),
            request_body: MessageCallback::WithEndOfStream(
                finder.callback("proxy_on_request_body")?,
            ),
            request_trailers: MessageCallback::Trailers(
                finder.callback("proxy_on_request_trailers")?,
            ),
            response_headers: MessageCallback::WithEndOfStream(
                finder.callback("proxy_on_response_headers")?,
            ),
            response_body: MessageCallback::WithEndOfStream(
                finder.callback("proxy_on_response_body")?,
            ),
            response_trailers: MessageCallback::Trailers(
                finder.callback("proxy_on_response_trailers")?,
            ),
        })
    }
}

impl Phase {
    /// Returns the callback that gets a part of a message in this phase.
    pub(crate) fn callback(self, exports: &Exports) -> &MessageCallback {
        match self {
            Self::RequestBody => &exports.request_body,
            Self::RequestTrailers => &exports.request_trailers,
            Self::ResponseHeaders => &exports.response_headers,
            Self::ResponseBody => &exports.response_body,
            Self::ResponseTrailers => &exports.response_trailers,
            Self::Created | Self::RequestHeaders | Self::Log => &exports.request_headers,
        }
    }
}

/// A callback that may be absent.
pub(crate) struct Callback<P, R>(Option<TypedFunc<P, R>>);

impl<P: WasmParams, R: WasmResults> Callback<P, R> {
    /// Calls the callback; `None` if the module does not export it.
    pub(crate) fn call(
        &self,
        store: &mut Store<State>,
        arguments: P,
    ) -> wasmtime::Result<Option<R>> {
        self.0.as_ref().map(|function| function.call(store, arguments)).transpose()
    }

    fn is_absent(&self) -> bool {
        self.0.is_none()
    }
}

/// A callback for a part of a message. It gets the context, the size of the part, and `end_of_stream`,
/// which callbacks for trailers do not have.
pub(crate) enum MessageCallback {
    WithEndOfStream(Callback<(u32, u32, u32), u32>),
    Trailers(Callback<(u32, u32), u32>),
}

impl MessageCallback {
    pub(crate) fn call(
        &self,
        store: &mut Store<State>,
        (context, size, end_of_stream): (u32, u32, u32),
    ) -> wasmtime::Result<Option<u32>> {
        match self {
            Self::WithEndOfStream(callback) => callback.call(store, (context, size, end_of_stream)),
            Self::Trailers(callback) => callback.call(store, (context, size)),
        }
    }
}

struct Finder<'a> {
    store: &'a mut Store<State>,
    instance: &'a Instance,
}

impl Finder<'_> {
    fn callback<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &str,
    ) -> anyhow::Result<Callback<P, R>> {
        self.function(name).map(Callback)
    }

    fn function<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &str,
    ) -> anyhow::Result<Option<TypedFunc<P, R>>> {
        let Some(function) = self.instance.get_func(&mut *self.store, name) else {
            return Ok(None);
        };
        let typed = function.typed(&*self.store);
        typed.map(Some).map_err(|error| {
            anyhow!("expected {name} with the types of the ABI, but found {error:#}")
        })
    }
}
