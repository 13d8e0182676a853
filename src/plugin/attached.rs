//! Ends requests: the root context reads Envoy's attributes for its configuration and records the span.

use std::rc::Rc;

use proxy_wasm::types::MapType;

use super::{Plugin, host, limits};
use crate::filter::late::LateRequest;
use crate::filter::stream_end::{END_ATTRIBUTES, stream_attributes, stream_facts};
use crate::http::head::{Head, pairs};
use crate::span::ActiveSpan;
use crate::span::property_list::{PropertyList, StreamReader, Values};
use crate::span::tags::source::Input;
use crate::span::tags::{EndFacts, Tags};

/// A configuration, and the attributes that a root context reads for it.
pub(super) struct Attached {
    pub plugin: Rc<Plugin>,
    of_stream: PropertyList<11>,
    of_end: PropertyList<2>,
}

impl Attached {
    pub(super) fn new(plugin: Rc<Plugin>) -> Self {
        let of_tags = plugin.config.span.tags.properties.sources();
        Self {
            of_stream: PropertyList::new(
                stream_attributes(plugin.config.span.privacy.omitted),
                of_tags,
            ),
            of_end: PropertyList::new(END_ATTRIBUTES, &[]),
            plugin,
        }
    }

    /// Makes the span of a request that was not sampled, if its end meets a condition of `export_on`
    /// and the limits permit it.
    pub(super) fn on_late_end(&self, late: &LateRequest) {
        let Plugin { config, state, .. } = &*self.plugin;
        let Some(export_on) = &config.export_on else {
            return;
        };
        let attributes = export_on.needs_response().then(|| self.of_end.read(STREAM));
        let values = attributes.as_ref().map(Values::values).unwrap_or_default();
        let Some(reason) = late.reason(export_on, values, host::now(), STREAM.property) else {
            return;
        };
        let is_permitted = late.take_permits(config, export_on, reason, &mut limits::take);
        if let Ok(mut state) = state.try_borrow_mut() {
            state.tally.ended_late(is_permitted);
        }
        if is_permitted {
            self.on_end(late.span(&config.span, reason));
        }
    }

    pub(super) fn on_end(&self, mut span: Box<ActiveSpan>) {
        let plugin = &*self.plugin;
        let Ok(mut state) = plugin.state.try_borrow_mut() else {
            return;
        };
        let end_unix_nanos = host::now();
        let attributes = self.of_stream.read(STREAM);
        let values = attributes.values();
        let facts = stream_facts(values, &span, plugin.is_gateway, end_unix_nanos, STREAM.property);
        let tags = &plugin.config.span.tags;
        if tags.needs_end_facts() {
            let properties = tags.properties.values(facts.direction, &attributes.of_tags());
            add_tags_at_end(tags, &mut span, &properties);
        }
        let (span, of_call) = span.finish(facts);
        state.record(&span);
        if let Some(span) = of_call {
            state.record(&span);
        }
        if plugin.roots.get() == 0 {
            drop(state);
            plugin.retire();
        }
    }
}

/// Adds the tags whose values are known when the request is over.
#[inline(never)]
fn add_tags_at_end(tags: &Tags, span: &mut ActiveSpan, properties: &[&[u8]]) {
    let read = |input, map| {
        tags.needs(input).then(|| host::headers(map).ok()).flatten().unwrap_or_default()
    };
    let response = read(Input::ResponseHeaders, MapType::HttpResponseHeaders);
    let trailers = read(Input::ResponseTrailers, MapType::HttpResponseTrailers);
    let tag_facts = EndFacts {
        response: &Head::new(pairs(&response)),
        trailers: &Head::new(pairs(&trailers)),
        is_grpc: span.is_grpc(),
        properties,
    };
    span.add_tags(tags, &tag_facts);
}

/// The hostcalls that read the current request.
const STREAM: StreamReader<'static> = StreamReader {
    call_foreign: &|name, argument| host::call_foreign(name, argument).ok(),
    property: &|path| host::property(path).ok(),
};
