//! The module as its hostcalls see it: its linear memory and the host's state for it.
//!
//! The host returns data as Envoy does: it copies them to memory that the module's own
//! `proxy_on_memory_allocate` (or `malloc`) reserved, and writes their address and size where the
//! hostcall asked for them. <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>

use wasmtime::Caller;

use super::state::State;
use super::status::Status;

/// Result of the code behind a hostcall.
pub(crate) type HostcallResult<T = ()> = Result<T, HostcallError>;

/// Why a hostcall failed.
pub(crate) enum HostcallError {
    /// The hostcall returns this status, and the module goes on.
    Status(Status),
    /// The module trapped in the allocation that the host asked for, and stops.
    Trap(wasmtime::Error),
}

impl From<Status> for HostcallError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Runs the body of a hostcall, and converts its result to the status that the module sees.
pub(crate) fn to_status(body: impl FnOnce() -> HostcallResult) -> wasmtime::Result<u32> {
    match body() {
        Ok(()) => Ok(Status::Ok as u32),
        Err(HostcallError::Status(status)) => Ok(status as u32),
        Err(HostcallError::Trap(trap)) => Err(trap),
    }
}

/// The calling module.
pub(crate) struct Guest<'a> {
    caller: Caller<'a, State>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(caller: Caller<'a, State>) -> Self {
        Self { caller }
    }

    pub(crate) fn state(&mut self) -> &mut State {
        self.caller.data_mut()
    }

    /// Borrows memory and state at the same time, to read from one into the other.
    pub(crate) fn memory_and_state(&mut self) -> HostcallResult<(&mut [u8], &mut State)> {
        let memory = self.caller.data().memory.ok_or(Status::InvalidMemoryAccess)?;
        Ok(memory.data_and_store_mut(&mut self.caller))
    }

    pub(crate) fn write_u32(&mut self, address: u32, value: u32) -> HostcallResult {
        self.write(address, &value.to_le_bytes())
    }

    pub(crate) fn write_u64(&mut self, address: u32, value: u64) -> HostcallResult {
        self.write(address, &value.to_le_bytes())
    }

    pub(crate) fn write(&mut self, address: u32, bytes: &[u8]) -> HostcallResult {
        let (memory, _) = self.memory_and_state()?;
        slice_mut(memory, address, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Lets `fill` write `size` bytes of the module's memory.
    pub(crate) fn fill(
        &mut self,
        address: u32,
        size: u32,
        fill: impl FnOnce(&mut State, &mut [u8]),
    ) -> HostcallResult {
        let (memory, state) = self.memory_and_state()?;
        fill(state, slice_mut(memory, address, size as usize)?);
        Ok(())
    }

    /// Returns bytes to the module in memory that it allocates; for no bytes it allocates none.
    pub(crate) fn return_bytes(
        &mut self,
        bytes: &[u8],
        return_data: u32,
        return_size: u32,
    ) -> HostcallResult {
        let size = u32::try_from(bytes.len()).map_err(|_| Status::BadArgument)?;
        let mut address = 0;
        if size > 0 {
            let allocate = self.caller.data().allocate.clone().ok_or(Status::InternalFailure)?;
            address = allocate.call(&mut self.caller, size).map_err(HostcallError::Trap)?;
            self.write(address, bytes)?;
        }
        self.write_u32(return_data, address)?;
        self.write_u32(return_size, size)
    }
}

/// Returns the bytes at an address of the module's memory, or `InvalidMemoryAccess`.
pub(crate) fn slice(memory: &[u8], address: u32, size: u32) -> Result<&[u8], Status> {
    let end = (address as usize).checked_add(size as usize);
    let bytes = end.and_then(|end| memory.get(address as usize..end));
    bytes.ok_or(Status::InvalidMemoryAccess)
}

fn slice_mut(memory: &mut [u8], address: u32, size: usize) -> Result<&mut [u8], Status> {
    let end = (address as usize).checked_add(size);
    let bytes = end.and_then(|end| memory.get_mut(address as usize..end));
    bytes.ok_or(Status::InvalidMemoryAccess)
}
