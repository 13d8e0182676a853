//! The part of WASI that Envoy implements: environment, clock, randomness, and stdout and stderr, which
//! go to the log. There are no arguments and no files.

use rand_xoshiro::rand_core::Rng as _;
use wasmtime::{Caller, Linker};

use super::guest::{Guest, HostcallError, HostcallResult, slice};
use super::log::LogLevel;
use super::state::State;

/// Defines one import a line: its name, its arguments, and a body that returns WASI's error number.
macro_rules! wasi {
    ($linker:ident, $($name:ident |$guest:ident $(, $argument:ident: $type:ty)*| $body:expr;)*) => {
        for module in ["wasi_snapshot_preview1", "wasi_unstable"] {$(
            $linker.func_wrap(module, stringify!($name), |caller: Caller<'_, State> $(, $argument: $type)*| {
                let $guest = &mut Guest::new(caller);
                if let Some(status) = $guest.state().faults.next(stringify!($name)) {
                    return Ok(status);
                }
                to_errno(|| -> HostcallResult<u32> { $body })
            })?;
        )*}
    };
}

/// Links the functions that Envoy 1.36 has, with its results. Envoy 1.40 differs in poll_oneoff, which
/// succeeds without an event.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasi! { linker,
        args_sizes_get |guest, count: u32, size: u32| {
            guest.write_u32(count, 0)?;
            guest.write_u32(size, 0)?;
            Ok(SUCCESS)
        };
        args_get |guest, _pointers: u32, _text: u32| Ok(SUCCESS);
        environ_sizes_get |guest, count: u32, size: u32| {
            let environment = environment(guest.state());
            guest.write_u32(count, environment.len() as u32)?;
            guest.write_u32(size, environment.iter().map(Vec::len).sum::<usize>() as u32)?;
            Ok(SUCCESS)
        };
        environ_get |guest, pointers: u32, text: u32| {
            let (mut pointers, mut text) = (pointers, text);
            for variable in environment(guest.state()) {
                guest.write_u32(pointers, text)?;
                guest.write(text, &variable)?;
                pointers = pointers.wrapping_add(4);
                text = text.wrapping_add(variable.len() as u32);
            }
            Ok(SUCCESS)
        };
        clock_time_get |guest, clock: u32, _precision: u64, result: u32| {
            let now = guest.state().now_ns;
            match clock {
                REALTIME | MONOTONIC => guest.write_u64(result, now)?,
                _ => return Ok(NOTSUP),
            }
            Ok(SUCCESS)
        };
        random_get |guest, address: u32, size: u32| {
            if size > MAX_RANDOM_BYTES {
                return Ok(INVAL);
            }
            guest.fill(address, size, |state, bytes| state.random.fill_bytes(bytes))?;
            Ok(SUCCESS)
        };
        sched_yield |guest| Ok(SUCCESS);
        poll_oneoff |guest, _subscriptions: u32, _events: u32, _count: u32, _result: u32| Ok(NOSYS);
        fd_write |guest, fd: u32, vectors: u32, count: u32, result: u32| fd_write(guest, fd, vectors, count, result);
        fd_read |guest, _fd: u32, _vectors: u32, _count: u32, _result: u32| Ok(NOSYS);
        fd_seek |guest, _fd: u32, _offset: i64, _whence: u32, _result: u32| Ok(SUCCESS);
        fd_close |guest, _fd: u32| Ok(SUCCESS);
        fd_fdstat_get |guest, fd: u32, result: u32| {
            if !(STDOUT..=STDERR).contains(&fd) {
                return Ok(BADF);
            }
            // Its file type is unknown, and its only right is fd_write.
            guest.write_u64(result, 0)?;
            guest.write_u64(result.wrapping_add(8), 64)?;
            guest.write_u64(result.wrapping_add(16), 0)?;
            Ok(SUCCESS)
        };
        fd_fdstat_set_flags |guest, _fd: u32, _flags: u32| Ok(NOSYS);
        fd_prestat_get |guest, _fd: u32, _result: u32| Ok(BADF);
        fd_prestat_dir_name |guest, _fd: u32, _path: u32, _size: u32| Ok(NOSYS);
        path_open |
            guest, _fd: u32, _lookup: u32, _path: u32, _size: u32, _flags: u32,
            _rights: u64, _inherited: u64, _fd_flags: u32, _result: u32
        | Ok(NOENT);
    }
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        linker.func_wrap(module, "proc_exit", |code: u32| -> wasmtime::Result<()> {
            Err(wasmtime::Error::msg(format!("the module called proc_exit({code})")))
        })?;
    }
    Ok(())
}

/// Returns the environment variables as `NAME=value` with a NUL at the end.
fn environment(state: &State) -> Vec<Vec<u8>> {
    state.environment.iter().map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect()
}

fn fd_write(
    guest: &mut Guest,
    fd: u32,
    vectors: u32,
    count: u32,
    result: u32,
) -> HostcallResult<u32> {
    let level = match fd {
        STDOUT => LogLevel::Info,
        STDERR => LogLevel::Error,
        _ => return Ok(BADF),
    };
    let (memory, state) = guest.memory_and_state()?;
    let mut text = Vec::new();
    let vectors = slice(memory, vectors, count.saturating_mul(8))?;
    for &[a, b, c, d, e, f, g, h] in vectors.as_chunks().0 {
        let (address, size) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        text.extend_from_slice(slice(memory, address, size)?);
    }
    state.push_log(level, &text);
    guest.write_u32(result, text.len() as u32)?;
    Ok(SUCCESS)
}

/// Runs the body of a function, and converts its result to WASI's error number. The only status that
/// occurs here is that of an invalid pointer.
fn to_errno(body: impl FnOnce() -> HostcallResult<u32>) -> wasmtime::Result<u32> {
    match body() {
        Ok(number) => Ok(number),
        Err(HostcallError::Status(_)) => Ok(FAULT),
        Err(HostcallError::Trap(trap)) => Err(trap),
    }
}

const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;
/// `PROXY_WASM_HOST_WASI_RANDOM_GET_MAX_SIZE_BYTES` of proxy-wasm-cpp-host's `limits.h`.
const MAX_RANDOM_BYTES: u32 = 64 * 1024;

const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const FAULT: u32 = 21;
const INVAL: u32 = 28;
const NOENT: u32 = 44;
const NOSYS: u32 = 52;
const NOTSUP: u32 = 58;
