//! Whether a configuration that is not valid is refused, or taken and then does nothing.
//!
//! Envoy tries a configuration in a VM of its own before its workers get it
//! (`WasmHandleBase::canary`, proxy-wasm-cpp-host `src/wasm.cc`). A refusal is safe where Envoy keeps
//! a former configuration, or does not start at all. It is an outage where a proxy gets the filter by
//! extension config discovery, as with Istio's WasmPlugin, and has no former configuration: Envoy
//! then answers every request with 500.

use std::hash::{DefaultHasher, Hasher};

use super::{environment, node, shared};

/// One plugin of Envoy's, by its name and root id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginName(String);

impl PluginName {
    /// Reads the name of the plugin that is being configured.
    pub fn read() -> Self {
        Self([node::text("plugin_name"), node::text("plugin_root_id")].join("/"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether a configuration that is not valid is taken.
    pub fn takes_invalid(&self, configuration: &[u8]) -> bool {
        // Envoy does not try again what it tried with success, so its workers must not refuse it.
        let taken_key = self.taken_key(configuration);
        if shared::number(&taken_key).is_some() {
            return true;
        }
        let is_in_force = shared::number(&self.in_force_key()).is_some_and(|roots| roots > 0);
        let is_taken = !is_in_force && bypasses();
        if is_taken {
            shared::update(&taken_key, |_| Some(1));
        }
        is_taken
    }

    /// Counts a root context in which a valid configuration is in force.
    pub fn begins(&self) {
        shared::update(&self.in_force_key(), |roots| Some(roots.unwrap_or_default() + 1));
    }

    /// Counts such a root context as gone.
    pub fn ends(&self) {
        shared::update(&self.in_force_key(), |roots| roots.map(|roots| roots.saturating_sub(1)));
    }

    fn in_force_key(&self) -> String {
        ["sidespan.in_force.", &self.0].concat()
    }

    fn taken_key(&self, configuration: &[u8]) -> String {
        // A VM with another environment is another one for Envoy, which tries the configuration there:
        // Istio puts the plugin's resource version into it.
        let mut hasher = DefaultHasher::new();
        hasher.write(configuration);
        environment::hash(&mut hasher);
        ["sidespan.taken.", &self.0, "/", &hasher.finish().to_string()].concat()
    }
}

/// Tells what to do where no former configuration is in force.
fn bypasses() -> bool {
    match environment::variable(VARIABLE).as_deref() {
        Some("bypass") => true,
        Some("refuse") => false,
        _ => node::is_managed(),
    }
}

/// The variable of the VM's environment that chooses: `bypass` or `refuse`. Without it, proxies that
/// Istio or Envoy Gateway configures bypass, and all others refuse.
const VARIABLE: &str = "SIDESPAN_INVALID_CONFIGURATION";
