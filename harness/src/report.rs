//! What `sidespan replay` prints: a line a case, below it what was wrong, and at the end how many
//! passed.

use std::fmt::Write as _;
use std::path::Path;

use crate::host::LogLine;
use crate::replay::CaseResult;

/// Counts of all cases so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub passed: usize,
    pub failed: usize,
}

impl Report {
    /// Counts the cases of a scenario, and gives what is printed for them.
    pub fn add(&mut self, scenario: &Path, results: &[CaseResult]) -> String {
        let mut text = String::new();
        for result in results {
            match result.failure {
                Some(_) => self.failed += 1,
                None => self.passed += 1,
            }
            text += &case(scenario, result);
        }
        text
    }

    /// The last line.
    pub fn summary(&self) -> String {
        format!("{} passed, {} failed\n", self.passed, self.failed)
    }
}

fn case(scenario: &Path, result: &CaseResult) -> String {
    let mark = if result.failure.is_some() { "FAIL" } else { "ok  " };
    let mut text = format!("{mark} {}: {}", scenario.display(), result.name);
    if let Some(instructions) = result.instructions {
        let _ = write!(
            text,
            " ({} instructions, {} in ticks)",
            instructions.requests, instructions.ticks
        );
    }
    text.push('\n');
    for line in result.failure.iter().flat_map(|failure| failure.lines()) {
        let _ = writeln!(text, "     {line}");
    }
    text
}

/// A log as part of what was wrong.
pub fn log_text(log: &[LogLine]) -> String {
    if log.is_empty() {
        return "log: nothing".into();
    }
    let lines =
        log.iter().map(|line| format!("log: {:?}: {}", line.level, line.message).to_string());
    lines.collect::<Vec<_>>().join("\n")
}
