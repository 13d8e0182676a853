//! The callbacks of proxy-wasm's ABI 0.2.1 that Envoy calls, and the contexts that they are for.
//!
//! <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>
//!
//! Envoy calls every callback that a module exports, for every request, and a call that does nothing
//! costs as much as reading a header. So only those are here that do something. What the host asks
//! of a context that is not known is left undone.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use super::{Root, Stream};

/// The contexts of this VM. No callback is called while another runs, but for the allocator.
struct Contexts {
    /// A few: one for each configuration.
    roots: Vec<(u32, Root)>,
    /// By their ids, ascending. Envoy counts them up, so that a new one is the last; requests under
    /// way are few enough for the others to move by one when one ends.
    streams: Vec<(u32, Box<Stream>)>,
}

impl Contexts {
    fn root(&mut self, id: u32) -> Option<&mut Root> {
        self.roots.iter_mut().find(|(known, _)| *known == id).map(|(_, root)| root)
    }

    fn place(&self, id: u32) -> Result<usize, usize> {
        self.streams.binary_search_by_key(&id, |(known, _)| *known)
    }

    fn create_stream(&mut self, id: u32, root_id: u32) {
        if let Err(place) = self.place(id)
            && let Some(stream) = self.root(root_id).map(|root| root.stream())
        {
            self.streams.insert(place, (id, Box::new(stream)));
        }
    }

    fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        let place = self.place(id).ok()?;
        self.streams.get_mut(place).map(|(_, stream)| &mut **stream)
    }

    fn delete(&mut self, id: u32) {
        match self.place(id) {
            Ok(place) => drop(self.streams.remove(place)),
            Err(_) => self.delete_root(id),
        }
    }

    /// What a configuration that goes has not exported, another takes over: the one that came last.
    fn delete_root(&mut self, id: u32) {
        let Some(place) = self.roots.iter().position(|(known, _)| *known == id) else {
            return;
        };
        let (_, root) = self.roots.remove(place);
        root.delete(self.roots.iter_mut().rev().map(|(_, heir)| heir));
    }
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> =
        const { RefCell::new(Contexts { roots: Vec::new(), streams: Vec::new() }) };
}

fn with_root<T>(id: u32, call: impl FnOnce(&mut Root) -> T) -> Option<T> {
    CONTEXTS.with(|contexts| contexts.try_borrow_mut().ok()?.root(id).map(call))
}

fn with_stream(id: u32, call: impl FnOnce(&mut Stream)) {
    CONTEXTS.with(|contexts| {
        if let Ok(mut contexts) = contexts.try_borrow_mut() {
            contexts.stream(id).map(call);
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
        } else {
            contexts.create_stream(id, root_id);
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
    token: u32,
    _headers: usize,
    body_size: usize,
    trailers: usize,
) {
    with_root(root_id, |root| root.on_http_call_response(token, body_size, trailers));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(id: u32, _headers: usize, end_of_stream: u32) -> u32 {
    with_stream(id, |stream| stream.on_request_headers(end_of_stream != 0));
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
        if let Ok(mut contexts) = contexts.try_borrow_mut() {
            contexts.delete(id);
        }
    });
}

const TRUE: u32 = 1;
/// Envoy goes on with the request: the only answer that this filter gives.
const CONTINUE: u32 = 0;
/// The parent of a root context.
const NO_ROOT: u32 = 0;
