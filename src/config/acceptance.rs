//! Whether an invalid configuration is refused, or accepted without any effect.
//!
//! Envoy tries a configuration in a VM of its own before its workers get it
//! (`WasmHandleBase::canary`, proxy-wasm-cpp-host `src/wasm.cc`). To refuse is safe where Envoy keeps
//! a former configuration, or does not start at all. It is an outage where a proxy gets the filter by
//! extension config discovery, as with Istio's WasmPlugin, and has no former configuration: Envoy
//! then answers every request with 500.
//!
//! Envoy does not try a configuration again after a successful try, so its workers must accept it too. To
//! agree on that, its VMs share two numbers, under [`in_force_key`] and [`accepted_key`].

use std::hash::{DefaultHasher, Hash, Hasher};

/// What to do with an invalid configuration if no former one is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidPolicy {
    /// Accept it: requests pass unchanged and are not traced.
    Bypass,
    Refuse,
}

impl InvalidPolicy {
    /// Reads the policy from the variable [`POLICY_VARIABLE`], `bypass` or `refuse`. Without it, proxies
    /// that Istio or Envoy Gateway manages bypass, and all others refuse.
    pub(crate) fn new(variable: Option<&str>, is_managed: bool) -> Self {
        match variable {
            Some("bypass") => Self::Bypass,
            Some("refuse") => Self::Refuse,
            _ if is_managed => Self::Bypass,
            _ => Self::Refuse,
        }
    }

    /// Tells whether to accept an invalid configuration. `was_accepted` says that another VM accepted
    /// it, and `roots_in_force` in how many root contexts a valid configuration is in force.
    pub(crate) fn accepts(self, was_accepted: bool, roots_in_force: Option<u64>) -> bool {
        was_accepted || (self == Self::Bypass && roots_in_force.unwrap_or_default() == 0)
    }
}

/// Returns what is logged about an invalid configuration that was accepted. `has_former` says that a former
/// one stays in force.
pub(crate) fn log_message(error: &str, has_former: bool) -> String {
    let effect = match has_former {
        true => "the former configuration stays in force: ",
        false => "requests pass unchanged and are not traced: ",
    };
    ["sidespan: configuration rejected, ", effect, error].concat()
}

/// Returns the key under which VMs share the number of root contexts in which a valid configuration of a
/// plugin is in force.
pub(crate) fn in_force_key(plugin: &str) -> String {
    ["sidespan.in_force.", plugin].concat()
}

/// Returns the key under which VMs share that an invalid configuration was accepted.
///
/// The environment is a part of it. For Envoy, a VM with another environment is another VM, in which it
/// tries the configuration again: Istio writes the plugin's resource version into the environment.
pub(crate) fn accepted_key(
    plugin: &str,
    configuration: &[u8],
    environment: impl Iterator<Item: Hash>,
) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(configuration);
    environment.for_each(|variable| variable.hash(&mut hasher));
    ["sidespan.taken.", plugin, "/", &hasher.finish().to_string()].concat()
}

/// The variable of the VM's environment that chooses the policy.
pub(crate) const POLICY_VARIABLE: &str = "SIDESPAN_INVALID_CONFIGURATION";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_proxies_bypass_unless_a_variable_says_otherwise() {
        use InvalidPolicy::{Bypass, Refuse};
        for (variable, is_managed, expected) in [
            (None, false, Refuse),
            (None, true, Bypass),
            (Some("bypass"), false, Bypass),
            (Some("refuse"), true, Refuse),
            (Some(""), true, Bypass),
            (Some("Bypass"), false, Refuse),
        ] {
            assert_eq!(InvalidPolicy::new(variable, is_managed), expected, "{variable:?}");
        }
    }

    #[test]
    fn an_invalid_configuration_is_accepted_where_nothing_is_in_force() {
        for (policy, was_accepted, roots_in_force, expected) in [
            (InvalidPolicy::Bypass, false, None, true),
            (InvalidPolicy::Bypass, false, Some(0), true),
            (InvalidPolicy::Bypass, false, Some(1), false),
            (InvalidPolicy::Refuse, false, None, false),
            // Workers follow the VM in which Envoy tried it.
            (InvalidPolicy::Bypass, true, Some(1), true),
            (InvalidPolicy::Refuse, true, None, true),
        ] {
            assert_eq!(
                policy.accepts(was_accepted, roots_in_force),
                expected,
                "{policy:?} {was_accepted} {roots_in_force:?}"
            );
        }
    }

    #[test]
    fn the_message_says_what_is_in_force_and_why() {
        for (has_former, expected) in [
            (true, "the former configuration stays in force: x: expected y"),
            (false, "requests pass unchanged and are not traced: x: expected y"),
        ] {
            let expected = format!("sidespan: configuration rejected, {expected}");
            assert_eq!(log_message("x: expected y", has_former), expected);
        }
    }

    #[test]
    fn keys_tell_plugins_configurations_and_environments_apart() {
        let key = |plugin, configuration: &str, version| {
            accepted_key(plugin, configuration.as_bytes(), [("VERSION", version)].into_iter())
        };
        assert_eq!(key("a/b", "{", "1"), key("a/b", "{", "1"));
        for other in [key("a/c", "{", "1"), key("a/b", "{{", "1"), key("a/b", "{", "2")] {
            assert_ne!(key("a/b", "{", "1"), other);
        }
        assert_ne!(in_force_key("a/b"), in_force_key("a/c"));
    }
}
