//! Tests of the filter's module in the harness, and of the harness itself. They are one binary, because
//! each binary would link wasmtime again.

mod abi;
mod attribute_values;
mod cost;
mod explain;
mod faults;
mod hostcalls;
mod late_spans;
mod memory;
mod module;
mod reconfiguration;
mod scenario_errors;
mod scenario_failures;
mod scenario_features;
mod scenarios;
mod token;
mod traffic;
