//! All scenarios of the project pass.

use std::path::{Path, PathBuf};

use sidespan_harness::replay::Replay;

use crate::module;

#[test]
fn every_scenario_passes() {
    let mut failures = Vec::new();
    let scenarios = scenarios(module::checkout());
    assert!(scenarios.len() > 10, "{scenarios:?}");
    for scenario in scenarios {
        let results = Replay::read(&scenario)
            .map_err(anyhow::Error::from)
            .and_then(|replay| replay.run(module::load()));
        match results {
            Ok(results) => failures.extend(results.into_iter().filter_map(|result| {
                let failure = result.failure?;
                Some(format!("{}: {}\n{failure}", scenario.display(), result.name))
            })),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Returns the scenarios of the examples, and all files in `tests/scenarios`.
fn scenarios(checkout: &Path) -> Vec<PathBuf> {
    let examples = entries(&checkout.join("examples"));
    let examples =
        examples.iter().flat_map(|folder| entries(folder)).filter(|file| is_scenario(file));
    examples.chain(entries(&checkout.join("tests/scenarios"))).collect()
}

fn is_scenario(file: &Path) -> bool {
    file.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.ends_with("scenario.yaml"))
}

/// Returns the files in a folder, sorted; none if it does not exist.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
