//! Every scenario of the project passes.

use std::path::{Path, PathBuf};

use sidespan_harness::replay::Loaded;

use crate::module;

#[test]
fn every_scenario_passes() {
    // An example without a scenario is one that cannot be read.
    let folders =
        entries(&module::checkout().join("examples")).into_iter().filter(|entry| entry.is_dir());
    let mut scenarios: Vec<_> = folders.map(|folder| folder.join("scenario.yaml")).collect();
    assert!(!scenarios.is_empty(), "expected examples, but found none");
    let files = entries(&module::checkout().join("tests/scenarios")).into_iter();
    scenarios.extend(files.filter(|file| file.extension().is_some_and(|end| end == "yaml")));

    let module = module::load();
    let mut failures = Vec::new();
    for scenario in &scenarios {
        let results = Loaded::read(scenario)
            .map_err(anyhow::Error::from)
            .and_then(|loaded| loaded.run(module));
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

/// What is in a folder, by name; a folder that is not there is empty.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
