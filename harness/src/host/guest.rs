//! The module's linear memory as hostcalls see it, and the status that they answer with.
//!
//! Values go to the module as Envoy hands them over: in memory that the module's own
//! `proxy_on_memory_allocate` (or `malloc`) reserved, with address and size written where the
//! call asked for them. <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>

use wasmtime::Caller;

use super::state::State;

/// Status of a hostcall, as the ABI numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    SerializationFailure = 3,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
}

/// Why a hostcall did not do what it was asked for.
pub enum Refusal {
    /// The module gets this status and goes on.
    Status(Status),
    /// The module is stopped: it trapped in the allocation that the host asked it for.
    Trap(wasmtime::Error),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// What a hostcall gives its caller in [`Guest`].
pub type Answer<T = ()> = Result<T, Refusal>;

/// Makes a hostcall, and turns its answer into the status that the module sees.
pub fn status(call: impl FnOnce() -> Answer) -> wasmtime::Result<u32> {
    match call() {
        Ok(()) => Ok(Status::Ok as u32),
        Err(Refusal::Status(status)) => Ok(status as u32),
        Err(Refusal::Trap(trap)) => Err(trap),
    }
}

/// The calling module: its memory and what the host keeps for it.
pub struct Guest<'a> {
    caller: Caller<'a, State>,
}

impl<'a> Guest<'a> {
    pub fn new(caller: Caller<'a, State>) -> Self {
        Self { caller }
    }

    pub fn state(&mut self) -> &mut State {
        self.caller.data_mut()
    }

    /// Splits into memory and state, so that a call can read the one into the other.
    pub fn split(&mut self) -> Answer<(&mut [u8], &mut State)> {
        let memory = self.caller.data().memory.ok_or(Status::InvalidMemoryAccess)?;
        Ok(memory.data_and_store_mut(&mut self.caller))
    }

    pub fn write_u32(&mut self, at: u32, value: u32) -> Answer {
        self.write(at, &value.to_le_bytes())
    }

    pub fn write_u64(&mut self, at: u32, value: u64) -> Answer {
        self.write(at, &value.to_le_bytes())
    }

    pub fn write(&mut self, at: u32, bytes: &[u8]) -> Answer {
        let (memory, _) = self.split()?;
        slice_mut(memory, at, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Fills memory of the module from a function of the state.
    pub fn fill(&mut self, at: u32, size: u32, fill: impl FnOnce(&mut State, &mut [u8])) -> Answer {
        let (memory, state) = self.split()?;
        fill(state, slice_mut(memory, at, size as usize)?);
        Ok(())
    }

    /// Hands bytes over in memory that the module allocates; nothing is allocated for none.
    pub fn give(&mut self, bytes: &[u8], return_data: u32, return_size: u32) -> Answer {
        let size = u32::try_from(bytes.len()).map_err(|_| Status::BadArgument)?;
        let mut address = 0;
        if size > 0 {
            let allocate = self.caller.data().allocate.clone().ok_or(Status::InternalFailure)?;
            address = allocate.call(&mut self.caller, size).map_err(Refusal::Trap)?;
            self.write(address, bytes)?;
        }
        self.write_u32(return_data, address)?;
        self.write_u32(return_size, size)
    }
}

/// The part of memory at an address, or `InvalidMemoryAccess`.
pub fn slice(memory: &[u8], at: u32, size: u32) -> Answer<&[u8]> {
    let end = (at as usize).checked_add(size as usize);
    let part = end.and_then(|end| memory.get(at as usize..end));
    Ok(part.ok_or(Status::InvalidMemoryAccess)?)
}

fn slice_mut(memory: &mut [u8], at: u32, size: usize) -> Answer<&mut [u8]> {
    let end = (at as usize).checked_add(size);
    let part = end.and_then(|end| memory.get_mut(at as usize..end));
    Ok(part.ok_or(Status::InvalidMemoryAccess)?)
}
