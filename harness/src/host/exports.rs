//! The callbacks that a module exports. Envoy calls those alone, so all are optional.

use anyhow::{anyhow, ensure};
use wasmtime::{Instance, Store, TypedFunc, WasmParams, WasmResults};

use super::state::State;
use super::stream::Phase;

/// All callbacks that this host makes.
pub struct Exports {
    pub initialize: Callback<(), ()>,
    pub allocate: Option<TypedFunc<u32, u32>>,
    pub context_create: Callback<(u32, u32), ()>,
    pub vm_start: Callback<(u32, u32), u32>,
    pub configure: Callback<(u32, u32), u32>,
    pub tick: Callback<u32, ()>,
    pub queue_ready: Callback<(u32, u32), ()>,
    pub http_call_response: Callback<(u32, u32, u32, u32, u32), ()>,
    pub grpc_receive: Callback<(u32, u32, u32), ()>,
    pub grpc_close: Callback<(u32, u32, u32), ()>,
    pub log: Callback<u32, ()>,
    pub done: Callback<u32, u32>,
    pub delete: Callback<u32, ()>,
    request_headers: MessageCallback,
    request_body: MessageCallback,
    request_trailers: MessageCallback,
    response_headers: MessageCallback,
    response_body: MessageCallback,
    response_trailers: MessageCallback,
}

impl Exports {
    /// Looks the callbacks up; an export of one of their names with other types is refused.
    pub fn find(store: &mut Store<State>, instance: &Instance) -> anyhow::Result<Self> {
        let abi = "proxy_abi_version_0_2_1";
        ensure!(
            instance.get_func(&mut *store, abi).is_some(),
            "expected the export {abi}, but found none"
        );
        let mut find = Finder { store, instance };
        let initialize = find.callback("_initialize")?;
        Ok(Self {
            initialize: if initialize.is_absent() { find.callback("_start")? } else { initialize },
            allocate: match find.function("proxy_on_memory_allocate")? {
                Some(allocate) => Some(allocate),
                None => find.function("malloc")?,
            },
            context_create: find.callback("proxy_on_context_create")?,
            vm_start: find.callback("proxy_on_vm_start")?,
            configure: find.callback("proxy_on_configure")?,
            tick: find.callback("proxy_on_tick")?,
            queue_ready: find.callback("proxy_on_queue_ready")?,
            http_call_response: find.callback("proxy_on_http_call_response")?,
            grpc_receive: find.callback("proxy_on_grpc_receive")?,
            grpc_close: find.callback("proxy_on_grpc_close")?,
            log: find.callback("proxy_on_log")?,
            done: find.callback("proxy_on_done")?,
            delete: find.callback("proxy_on_delete")?,
            request_headers: MessageCallback::WithEnd(find.callback("proxy_on_request_headers")?),
            request_body: MessageCallback::WithEnd(find.callback("proxy_on_request_body")?),
            request_trailers: MessageCallback::Trailers(
                find.callback("proxy_on_request_trailers")?,
            ),
            response_headers: MessageCallback::WithEnd(find.callback("proxy_on_response_headers")?),
            response_body: MessageCallback::WithEnd(find.callback("proxy_on_response_body")?),
            response_trailers: MessageCallback::Trailers(
                find.callback("proxy_on_response_trailers")?,
            ),
        })
    }
}

impl Phase {
    /// The callback that a message is handed to in this phase.
    pub fn callback(self, exports: &Exports) -> &MessageCallback {
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
pub struct Callback<P, R>(Option<TypedFunc<P, R>>);

impl<P: WasmParams, R: WasmResults> Callback<P, R> {
    /// Calls it; `None` where the module does not export it.
    pub fn call(&self, store: &mut Store<State>, arguments: P) -> wasmtime::Result<Option<R>> {
        self.0.as_ref().map(|function| function.call(store, arguments)).transpose()
    }

    fn is_absent(&self) -> bool {
        self.0.is_none()
    }
}

/// A callback that takes context, size and whether the stream ends here; with trailers it ends.
pub enum MessageCallback {
    WithEnd(Callback<(u32, u32, u32), u32>),
    Trailers(Callback<(u32, u32), u32>),
}

impl MessageCallback {
    pub fn call(
        &self,
        store: &mut Store<State>,
        (context, size, end): (u32, u32, u32),
    ) -> wasmtime::Result<Option<u32>> {
        match self {
            Self::WithEnd(callback) => callback.call(store, (context, size, end)),
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
