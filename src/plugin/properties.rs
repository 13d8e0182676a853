//! Several attributes of Envoy's in one hostcall.
//!
//! For each property that it returns, Envoy calls this module's allocator, which costs more than the
//! property. Its foreign functions `expr_create` and `expr_evaluate`
//! (`source/extensions/common/wasm/foreign.cc`) evaluate a CEL expression. A list of attributes is such
//! an expression, and is returned at once. An Envoy that is built without its CEL parser lacks these
//! functions; the properties are then read one by one.
//!
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md>

use std::cell::Cell;

use once_cell::unsync::OnceCell;
use proxy_wasm::types::Bytes;

use super::host::{self, Failure};
use crate::http::head::pairs;
use crate::span::cel;

/// A list of attributes that are read together: `N` that every span needs, and those of tags.
pub(super) struct PropertyList<const N: usize> {
    /// Named as in CEL: `response.code`.
    own: [&'static str; N],
    /// Paths, with a zero byte between their parts, and whether they are in the list.
    of_tags: Vec<(String, bool)>,
    /// All attributes. It fails if one of `own` is absent; most requests have them all.
    plain: Expression,
    /// All attributes, each with a test that it is present. It costs half as much again.
    guarded: Expression,
    /// The same without those of tags: some of their paths fail in spite of the test.
    own_guarded: Expression,
}

/// The values of a [`PropertyList`], as the host encodes them; absent ones are empty.
pub(super) struct Values<const N: usize> {
    list: Bytes,
    /// The values one by one, if the list could not be read.
    own: Option<[Bytes; N]>,
    /// For each attribute of a tag, its value if it is not in the list.
    of_tags: Vec<Option<Bytes>>,
}

/// A CEL expression. The host compiles it before its first use.
struct Expression {
    text: String,
    token: OnceCell<Bytes>,
    /// The host failed to compile it. It is not tried again.
    is_refused: Cell<bool>,
}

impl<const N: usize> PropertyList<N> {
    pub(super) fn new(own: [&'static str; N], of_tags: Vec<String>) -> Self {
        let list = |items: &[String]| Expression {
            text: format!("[{}]", items.join(",")),
            token: OnceCell::new(),
            is_refused: Cell::new(false),
        };
        let guarded_tags = of_tags.iter().filter_map(|path| cel::value_or_empty(path));
        let guarded = |name: &str| cel::value_or_empty(&name.replace('.', "\0"));
        let guarded_own = own.map(|name| guarded(name).unwrap_or_else(|| name.to_owned()));
        let with_tags = |own: &[String]| -> Vec<_> {
            own.iter().cloned().chain(guarded_tags.clone()).collect()
        };
        Self {
            plain: list(&with_tags(&own.map(str::to_owned))),
            guarded: list(&with_tags(&guarded_own)),
            own_guarded: list(&guarded_own),
            own,
            of_tags: of_tags
                .iter()
                .map(|path| (path.clone(), cel::value_or_empty(path).is_some()))
                .collect(),
        }
    }

    /// Reads the attributes of the current stream.
    pub(super) fn read(&self) -> Values<N> {
        let all = [&self.plain, &self.guarded].into_iter().find_map(Expression::evaluate);
        let read = |path: &str| host::property(path).unwrap_or_default();
        if let Some(list) = all {
            let of_tag = |(path, is_listed): &(String, bool)| (!is_listed).then(|| read(path));
            return Values { list, own: None, of_tags: self.of_tags.iter().map(of_tag).collect() };
        }
        let of_tags = self.of_tags.iter().map(|(path, _)| Some(read(path))).collect();
        let own_guarded = if self.of_tags.is_empty() { None } else { self.own_guarded.evaluate() };
        match own_guarded {
            Some(list) => Values { list, own: None, of_tags },
            None => {
                let own = Some(self.own.map(|name| read(&name.replace('.', "\0"))));
                Values { list: Bytes::new(), own, of_tags }
            }
        }
    }
}

impl<const N: usize> Values<N> {
    /// Returns the values of the attributes that every span needs, in their order.
    pub(super) fn values(&self) -> [&[u8]; N] {
        let mut values: [&[u8]; N] = [&[]; N];
        match &self.own {
            // Envoy encodes a list as a header map whose names are the values.
            None => {
                for (value, (found, _)) in values.iter_mut().zip(pairs(&self.list)) {
                    *value = found;
                }
            }
            Some(each) => {
                for (value, found) in values.iter_mut().zip(each) {
                    *value = found;
                }
            }
        }
        values
    }

    /// Returns the values of the attributes of tags, in their order.
    pub(super) fn of_tags(&self) -> Vec<&[u8]> {
        let mut listed = pairs(&self.list).into_iter().skip(N).map(|(value, _)| value);
        let value = |single: &'_ Option<Bytes>| match single {
            Some(_) => None,
            None => listed.next(),
        };
        let from_list: Vec<_> = self.of_tags.iter().map(value).collect();
        let singles = self.of_tags.iter().map(|single| single.as_deref());
        singles
            .zip(from_list)
            .map(|(single, listed)| single.or(listed).unwrap_or_default())
            .collect()
    }
}

impl Expression {
    /// Returns its value for the current stream; none if it fails, or the host has no CEL.
    fn evaluate(&self) -> Option<Bytes> {
        if self.is_refused.get() {
            return None;
        }
        let compile = || host::call_foreign("expr_create", self.text.as_bytes());
        let token: Result<_, Failure> = self.token.get_or_try_init(compile);
        self.is_refused.set(token.is_err());
        host::call_foreign("expr_evaluate", token.ok()?).ok()
    }
}
