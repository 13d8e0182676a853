//! The callbacks of proxy-wasm's ABI 0.2.1 that Envoy calls, and the contexts that they are for.
//!
//! <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>
//!
//! Envoy calls every callback that a module exports, for every request, and a call that does nothing
//! costs as much as reading a header. So only those are here that do something. What the host asks
//! of a context that is not known is left undone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::MaybeUninit;

use super::{Root, Stream};

/// The contexts of this VM. No callback is called while another runs, but for the allocator.
struct Contexts {
    /// A few: one for each configuration.
    roots: Vec<(u32, Root)>,
    streams: HashMap<u32, Stream, BuildHasherDefault<IdHasher>>,
}

impl Contexts {
    fn root(&mut self, id: u32) -> Option<&mut Root> {
        self.roots.iter_mut().find(|(known, _)| *known == id).map(|(_, root)| root)
    }
}

/// Spreads context ids, which count up, over a table; nobody else chooses them.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(GOLDEN_RATIO);
    }
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = const {
        let streams = HashMap::with_hasher(BuildHasherDefault::new());
        RefCell::new(Contexts { roots: Vec::new(), streams })
    };
}

fn with_root<T>(id: u32, call: impl FnOnce(&mut Root) -> T) -> Option<T> {
    CONTEXTS.with(|contexts| contexts.try_borrow_mut().ok()?.root(id).map(call))
}

fn with_stream(id: u32, call: impl FnOnce(&mut Stream)) {
    CONTEXTS.with(|contexts| {
        if let Ok(mut contexts) = contexts.try_borrow_mut() {
            contexts.streams.get_mut(&id).map(call);
        }
    });
}

unsafe extern "C" {
    fn __wasm_call_ctors();
}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // The linker's own: runs what initializes the C library.
    unsafe { __wasm_call_ctors() };
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Gives the host memory for what it hands over; whoever gets that frees it as a vector of this
/// length and capacity.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut MaybeUninit<u8> {
    Box::into_raw(Box::<[u8]>::new_uninit_slice(size)).cast()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root_id: u32, _vm_configuration_size: usize) -> u32 {
    TRUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(id: u32, root_id: u32) {
    CONTEXTS.with(|contexts| {
        let Ok(mut contexts) = contexts.try_borrow_mut() else {
            return;
        };
        if root_id == NO_ROOT {
            contexts.roots.push((id, Root::default()));
        } else if let Some(stream) = contexts.root(root_id).map(|root| root.stream()) {
            contexts.streams.insert(id, stream);
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root_id: u32, size: usize) -> u32 {
    u32::from(with_root(root_id, |root| root.on_configure(size)).unwrap_or_default())
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root_id: u32) {
    with_root(root_id, Root::on_tick);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    root_id: u32,
    _token: u32,
    _headers: usize,
    _body_size: usize,
    _trailers: usize,
) {
    with_root(root_id, Root::on_http_call_response);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(id: u32, _headers: usize, _end_of_stream: u32) -> u32 {
    with_stream(id, Stream::on_request_headers);
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(id: u32, _headers: usize, _end_of_stream: u32) -> u32 {
    with_stream(id, Stream::on_response_headers);
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(id: u32) {
    with_stream(id, Stream::on_log);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(id: u32) {
    CONTEXTS.with(|contexts| {
        if let Ok(mut contexts) = contexts.try_borrow_mut()
            && contexts.streams.remove(&id).is_none()
        {
            contexts.roots.retain(|(known, _)| *known != id);
        }
    });
}

const TRUE: u32 = 1;
/// Envoy goes on with the request: the only answer that this filter gives.
const CONTINUE: u32 = 0;
/// The parent of a root context.
const NO_ROOT: u32 = 0;
/// 2^64 over the golden ratio: neighbours land far apart (Knuth, volume 3, section 6.4).
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
