//! Decides, propagates, tags and exports spans for one Envoy.
