//! The reasons for which a request that was not sampled is exported late.

/// The condition for which a request is exported late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportReason {
    /// The first digit of the status.
    StatusClass(u16),
    GrpcStatus,
    ResponseFlags,
    Reset,
    Duration,
}

impl ExportReason {
    /// Returns the condition's key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::StatusClass(_) => "status",
            Self::GrpcStatus => "grpc_status",
            Self::ResponseFlags => "response_flags",
            Self::Reset => "resets",
            Self::Duration => "min_duration_ms",
        }
    }
}
