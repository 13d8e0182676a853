//! The harness as its users see it: one binary, since each would link wasmtime again.

mod abi;
mod configured_again;
mod cost;
mod differences;
mod explain;
mod faults;
mod held;
mod hostcalls;
mod lengths;
mod memory;
mod module;
mod passing;
mod refusals;
mod scenarios;
mod token;
mod traffic;
