//! HTTP messages: header lines and edits of them, URLs, gRPC, and Envoy's addresses and response flags.
//!
//! HTTP semantics are those of RFC 9110, URLs those of RFC 3986.

pub(crate) mod address;
pub(crate) mod digits;
pub(crate) mod edits;
pub(crate) mod grpc;
pub(crate) mod head;
pub mod path;
pub(crate) mod redaction;
pub(crate) mod response_flags;
pub mod url;
