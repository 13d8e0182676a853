//! The output of `sidespan replay`: a line for each case, the failure below it, and the number of
//! cases that passed.

use std::fmt::Write as _;
use std::path::Path;

use super::case::CaseResult;

/// Counts of all cases so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub(crate) passed: usize,
    pub failed: usize,
}

impl Report {
    /// Counts the cases of a scenario, and returns the text to print for them.
    pub fn add(&mut self, scenario: &Path, results: &[CaseResult]) -> String {
        let mut text = String::new();
        for result in results {
            match result.failure {
                Some(_) => self.failed += 1,
                None => self.passed += 1,
            }
            text += &format_case(scenario, result);
        }
        text
    }

    /// Returns the last line to print.
    pub fn summary(&self) -> String {
        format!("{} passed, {} failed\n", self.passed, self.failed)
    }
}

fn format_case(scenario: &Path, result: &CaseResult) -> String {
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
