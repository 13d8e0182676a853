//! HTTP messages: header lines and edits of them, URLs, gRPC, and Envoy's addresses and response flags.
//!
//! HTTP semantics are those of RFC 9110, URLs those of RFC 3986.

pub mod address;
pub mod digits;
pub mod edits;
pub mod grpc;
pub mod head;
pub mod path;
pub mod redaction;
pub mod response_flags;
pub mod url;
