//! The module's log.

use std::fmt;

/// A line that the module logged, or wrote to stdout (level info) or stderr (level error).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub(crate) level: LogLevel,
    pub message: String,
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}: {}", self.level, self.message)
    }
}

/// Level of a log line, as the ABI numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl LogLevel {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        let levels =
            [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Critical];
        levels.get(number as usize).copied()
    }
}
