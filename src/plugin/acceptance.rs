//! The numbers that decide whether an invalid configuration is accepted: see
//! [`crate::config::acceptance`].

use super::{environment, host, shared};
use crate::config::acceptance::{InvalidPolicy, POLICY_VARIABLE, accepted_key, in_force_key};
use crate::span::node::{NODE_ID, is_managed};

/// The name of an Envoy plugin: `name/root_id`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PluginName(String);

impl PluginName {
    /// Reads the name of the plugin that is being configured.
    pub(super) fn read() -> Self {
        Self([host::text("plugin_name"), host::text("plugin_root_id")].join("/"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether to accept an invalid configuration. If so, notes it in the shared data for the other
    /// VMs.
    pub(super) fn accepts_invalid(&self, configuration: &[u8]) -> bool {
        let accepted_key = accepted_key(&self.0, configuration, std::env::vars_os());
        let was_accepted = shared::number(&accepted_key).is_some();
        let roots_in_force = shared::number(&in_force_key(&self.0));
        let is_managed = is_managed(&host::text(NODE_ID), &host::text("plugin_vm_id"));
        let policy =
            InvalidPolicy::new(environment::variable(POLICY_VARIABLE).as_deref(), is_managed);
        let is_accepted = policy.accepts(was_accepted, roots_in_force);
        if is_accepted && !was_accepted {
            shared::update(&accepted_key, |_| Some(1));
        }
        is_accepted
    }

    /// Counts a root context in which a valid configuration is in force.
    pub(super) fn begins(&self) {
        shared::update(&in_force_key(&self.0), |roots| Some(roots.unwrap_or_default() + 1));
    }

    /// Counts such a root context as gone.
    pub(super) fn ends(&self) {
        shared::update(&in_force_key(&self.0), |roots| roots.map(|roots| roots.saturating_sub(1)));
    }
}
