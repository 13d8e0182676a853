//! The root context: reads the configuration, and drives its exporter.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, Bytes, ContextType, LogLevel, MetricType};

use super::acceptance::PluginName;
use super::attached::Attached;
use super::host::Failure;
use super::stream::Stream;
use super::{Plugin, environment, host, limits, metrics};
use crate::config::{Config, acceptance};
use crate::export::statistics::{self, CONFIGURATION_REJECTED, CONFIGURED};
use crate::span::property_list;

/// A plugin in one worker.
#[derive(Default)]
pub(super) struct Root {
    configured: Option<Configured>,
    /// Whether a tick came since the configuration. In the VM in which Envoy tries a configuration, none comes.
    has_begun: bool,
}

/// A configuration that was accepted.
struct Configured {
    name: PluginName,
    text: Bytes,
    /// What is in force: this configuration or, if it is invalid, a former one.
    attached: Option<Rc<Attached>>,
    /// Why the configuration is invalid.
    error: Option<String>,
}

thread_local! {
    /// The configurations of this VM, oldest first.
    static PLUGINS: RefCell<Vec<Weak<Plugin>>> = const { RefCell::new(Vec::new()) };
}

impl Context for Root {
    fn on_http_call_response(&mut self, call_id: u32, _: usize, body_size: usize, trailers: usize) {
        if let Some(plugin) = self.plugin()
            && let Ok(mut state) = plugin.state.try_borrow_mut()
        {
            state.on_response(call_id, body_size, trailers);
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let text = match size {
            0 => Ok(Bytes::new()),
            size => host::buffer(BufferType::PluginConfiguration, size),
        };
        let Ok(text) = text else {
            host::log(LogLevel::Error, "sidespan: the configuration cannot be read");
            return false;
        };
        self.configure(text)
    }

    fn on_tick(&mut self) {
        if !self.has_begun {
            self.begin();
        }
        let Some(configured) = &self.configured else {
            return;
        };
        configured.log_error();
        if let Some(plugin) = configured.plugin()
            && let Ok(mut state) = plugin.state.try_borrow_mut()
        {
            state.tick();
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        let configured = self.configured.as_ref();
        Some(Box::new(Stream::new(configured.and_then(|configured| configured.attached.clone()))))
    }
}

impl Root {
    fn plugin(&self) -> Option<&Rc<Plugin>> {
        self.configured.as_ref()?.plugin()
    }

    /// Puts a configuration in force, and tells whether it was accepted.
    fn configure(&mut self, text: Bytes) -> bool {
        // Envoy configures a root context again for each listener that has the same configuration.
        if self.configured.as_ref().is_some_and(|configured| configured.text == text) {
            return true;
        }
        let name = PluginName::read();
        let (plugin, error) = match Config::parse_checked(&text, &environment::variable, &compiles)
        {
            Ok(config) => {
                let plugin = Rc::new(Plugin::new(name.clone(), config));
                register(&plugin);
                (Some(plugin), None)
            }
            Err(error) => {
                let error = error.to_string();
                if self.configured.is_some() || !name.accepts_invalid(&text) {
                    let message = ["sidespan: configuration refused: ", &error].concat();
                    host::log(LogLevel::Error, &message);
                    return false;
                }
                let is_former = |it: &Rc<Plugin>| it.name == name && it.has_begun.get();
                (registered().into_iter().find(is_former), Some(error))
            }
        };
        let attached = plugin.map(|plugin| Rc::new(Attached::new(plugin)));
        let configured = Configured { name, text, attached, error };
        configured.log_error();
        if let Some(plugin) = configured.plugin() {
            plugin.roots.set(plugin.roots.get() + 1);
        }
        self.end();
        self.configured = Some(configured);
        host::set_tick_period(AT_ONCE);
        true
    }

    /// Begins to use the configuration: publishes that it is in use, starts the timer, and logs its summary.
    fn begin(&mut self) {
        let Some(configured) = &self.configured else {
            return;
        };
        let Configured { name, error, .. } = configured;
        self.has_begun = true;
        metrics::add(MetricType::Gauge, &statistics::build_info(), 1);
        let rejected = statistics::metric_name(CONFIGURATION_REJECTED, &[]);
        metrics::add(MetricType::Gauge, &rejected, error.is_some().into());
        if error.is_none() {
            metrics::add(MetricType::Counter, &statistics::metric_name(CONFIGURED, &[]), 1);
        }
        match configured.plugin() {
            Some(plugin) => {
                plugin.has_begun.set(true);
                name.begins();
                plugin.start_timer();
                plugin.log_start();
            }
            None => host::set_tick_period(REJECTED_PERIOD),
        }
    }

    /// Ends the configuration: it is no longer counted, and its queued batches are handed over.
    fn end(&mut self) {
        let Some(configured) = self.configured.take() else {
            return;
        };
        let Configured { name, error, .. } = &configured;
        let has_begun = std::mem::take(&mut self.has_begun);
        if has_begun {
            let rejected = statistics::metric_name(CONFIGURATION_REJECTED, &[]);
            metrics::add(MetricType::Gauge, &rejected, -i64::from(error.is_some()));
            if configured.attached.is_some() {
                name.ends();
            }
        }
        if let Some(plugin) = configured.plugin() {
            plugin.roots.set(plugin.roots.get().saturating_sub(1));
            if plugin.roots.get() == 0 {
                plugin.retire();
            }
        }
        // Last, so that all is counted when this gauge says that the root context has ended.
        if has_begun {
            metrics::add(MetricType::Gauge, &statistics::build_info(), -1);
        }
    }
}

impl Configured {
    fn plugin(&self) -> Option<&Rc<Plugin>> {
        self.attached.as_ref().map(|attached| &attached.plugin)
    }

    /// Logs why the configuration is not in force, once a minute.
    fn log_error(&self) {
        let Some(error) = &self.error else {
            return;
        };
        if limits::may_log("rejected", self.name.as_str()) {
            let message = acceptance::log_message(error, self.attached.is_some());
            host::log(LogLevel::Error, &message);
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Envoy keeps the timer of a root context that was removed.
        host::set_tick_period(Duration::ZERO);
        self.end();
    }
}

/// Tells whether the host compiles a CEL expression. Without CEL, every expression is accepted, and its
/// tag has no value.
fn compiles(expression: &str) -> bool {
    match host::call_foreign(property_list::CREATE, expression.as_bytes()) {
        Ok(token) => {
            let _ = host::call_foreign(property_list::DELETE, &token);
            true
        }
        Err(failure) if failure == Failure::NOT_FOUND => {
            if limits::may_log("cel", "") {
                host::log(LogLevel::Warn, property_list::WITHOUT_CEL);
            }
            true
        }
        Err(_) => false,
    }
}

/// Registers a configuration of this VM, and drops the entries of removed ones.
fn register(plugin: &Rc<Plugin>) {
    PLUGINS.with(|plugins| {
        if let Ok(mut plugins) = plugins.try_borrow_mut() {
            plugins.retain(|other| other.strong_count() > 0);
            plugins.push(Rc::downgrade(plugin));
        }
    });
}

/// Returns the configurations of this VM that a root context holds, newest first.
pub(super) fn registered() -> Vec<Rc<Plugin>> {
    PLUGINS.with(|plugins| match plugins.try_borrow() {
        Ok(plugins) => {
            let held = plugins.iter().rev().filter_map(Weak::upgrade);
            held.filter(|plugin| plugin.roots.get() > 0).collect()
        }
        Err(_) => Vec::new(),
    })
}

/// Shortest period of Envoy's timer.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How often a root context tries to log its invalid configuration. The limit allows one line a minute.
const REJECTED_PERIOD: Duration = Duration::from_secs(10);
