//! The environment of the VM: the variables that `vm_config.environment_variables` names.

/// Returns a variable; none if it is not UTF-8.
pub(super) fn variable(name: &str) -> Option<String> {
    // The standard library panics on names that no variable can have.
    let is_possible = !name.is_empty() && !name.contains(['=', '\0']);
    if is_possible { std::env::var(name).ok() } else { None }
}
