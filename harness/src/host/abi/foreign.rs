//! Foreign functions: the ones of Envoy's that a tracing filter needs
//! (`source/extensions/common/wasm/foreign.cc`).

use std::io::Read as _;

use flate2::Compression;
use flate2::read::ZlibEncoder;
use wasmtime::{Caller, Linker};

use crate::host::cel::Expression;
use crate::host::guest::{Guest, HostcallResult, slice, to_status};
use crate::host::properties;
use crate::host::state::State;
use crate::host::status::Status;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    hostcalls! { linker,
        proxy_call_foreign_function |
            guest, name: u32, name_size: u32, argument: u32, argument_size: u32, data: u32, size: u32
        | {
            let result = {
                let (memory, state) = guest.memory_and_state()?;
                let argument = slice(memory, argument, argument_size)?;
                match slice(memory, name, name_size)? {
                    b"clear_route_cache" => Vec::new(),
                    b"compress" => compress(argument),
                    b"expr_create" => create_expression(state, argument)?,
                    b"expr_delete" => delete_expression(state, argument)?,
                    b"expr_evaluate" => evaluate_expression(state, argument)?,
                    _ => return Err(Status::NotFound.into()),
                }
            };
            guest.return_bytes(&result, data, size)
        };
    }
    Ok(())
}

/// Compiles a CEL expression and returns its token. Without a CEL parser Envoy does not have the
/// function.
fn create_expression(state: &mut State, text: &[u8]) -> Result<Vec<u8>, Status> {
    let expressions = state.expressions.as_mut().ok_or(Status::NotFound)?;
    let expression = str::from_utf8(text).ok().and_then(Expression::parse);
    let token = expressions.len() as u32;
    expressions.push(Some(expression.ok_or(Status::BadArgument)?));
    Ok(token.to_le_bytes().to_vec())
}

/// Deletes the expression with a token.
fn delete_expression(state: &mut State, token: &[u8]) -> Result<Vec<u8>, Status> {
    let expressions = state.expressions.as_mut().ok_or(Status::NotFound)?;
    let token = token.try_into().map(u32::from_le_bytes).map_err(|_| Status::BadArgument)?;
    if let Some(expression) = expressions.get_mut(token as usize) {
        *expression = None;
    }
    Ok(Vec::new())
}

/// Evaluates the expression with a token for the stream of the effective context.
fn evaluate_expression(state: &State, token: &[u8]) -> Result<Vec<u8>, Status> {
    let expressions = state.expressions.as_ref().ok_or(Status::NotFound)?;
    let token = token.try_into().map(u32::from_le_bytes).map_err(|_| Status::BadArgument)?;
    let expression = expressions.get(token as usize).and_then(Option::as_ref);
    let expression = expression.ok_or(Status::NotFound)?;
    let read = |path: &str| properties::attribute(&state.node, state.stream(), path);
    expression.evaluate(&read)?.serialize()
}

/// Compresses bytes in zlib's format, at the level that Envoy uses.
fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    let read = ZlibEncoder::new(bytes, Compression::default()).read_to_end(&mut compressed);
    read.expect("bytes are read from memory");
    compressed
}
