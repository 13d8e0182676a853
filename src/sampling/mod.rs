//! Whether a request is traced: rules, the parent's decision, ratios, limits, trust, and late export.

pub mod cidr;
pub mod decision;
pub mod late;
pub mod limit;
pub mod matching;
pub mod ratio;
pub mod regex;
pub mod rules;
pub mod token;
pub mod trust;
