//! The environment of the VM: what `vm_config.environment_variables` names.

use std::hash::{Hash, Hasher};

/// Returns a variable, and none where it is not UTF-8.
pub fn variable(name: &str) -> Option<String> {
    // The standard library panics on names that no variable can have.
    let is_possible = !name.is_empty() && !name.contains(['=', '\0']);
    if is_possible { std::env::var(name).ok() } else { None }
}

/// Adds all variables to a hash.
pub fn hash(hasher: &mut impl Hasher) {
    std::env::vars_os().for_each(|variable| variable.hash(hasher));
}
