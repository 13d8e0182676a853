//! Several attributes of Envoy's in one hostcall.
//!
//! For each property that it returns, Envoy calls this module's allocator, which costs more than the
//! property. Its foreign functions `expr_create` and `expr_evaluate`
//! (`source/extensions/common/wasm/foreign.cc`) evaluate a CEL expression. A list of attributes is such
//! an expression, and is returned at once. An Envoy that is built without its CEL parser lacks these
//! functions; the properties are then read one by one.
//!
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md>

use std::cell::{Cell, RefCell};

use once_cell::unsync::OnceCell;

use crate::http::head::pairs;
use crate::span::cel;
use crate::span::tags::property::PropertySource;

/// The hostcalls that read the current stream. A call that fails returns `None`.
#[derive(Clone, Copy)]
pub(crate) struct StreamReader<'h> {
    pub call_foreign: &'h CallForeign<'h>,
    pub property: &'h ReadProperty<'h>,
}

/// Calls the foreign function of this name with an argument.
pub(crate) type CallForeign<'h> = dyn Fn(&str, &[u8]) -> Option<Vec<u8>> + 'h;

/// Reads a property. Its path has a zero byte between the parts.
pub(crate) type ReadProperty<'h> = dyn Fn(&str) -> Option<Vec<u8>> + 'h;

/// Attributes that are read together: `N` that every span needs, and what tags read beside them.
///
/// Envoy keeps compiled expressions for each root context, so that a list is used in one of them only.
pub(crate) struct PropertyList<const N: usize> {
    /// Named as in CEL: `response.code`.
    own: [&'static str; N],
    of_tags: Vec<TagProperty>,
    lists: RefCell<Lists>,
}

/// What a tag reads.
struct TagProperty {
    /// The path of an attribute, with a zero byte between its parts; none of a CEL expression.
    path: Option<String>,
    /// The value alone, with a test that an attribute is present; empty where CEL cannot test its path.
    alone: Expression,
    /// Whether the lists contain it. An expression that failed once is removed, because it would make the whole
    /// list fail.
    is_listed: Cell<bool>,
}

/// Lists of all attributes and expressions.
struct Lists {
    /// Fails if one of `own` is absent; most requests have all of them.
    plain: Expression,
    /// The same list, with a test that each attribute is present. It costs half as much again.
    guarded: Expression,
}

/// The values of a [`PropertyList`], as the host encodes them; absent ones are empty.
pub(crate) struct Values<const N: usize> {
    list: Vec<u8>,
    /// The values one by one, if the list could not be read.
    own: Option<[Vec<u8>; N]>,
    /// For each property of a tag, its value if it is not in the list.
    of_tags: Vec<Option<Vec<u8>>>,
}

/// A CEL expression. The host compiles it before its first use.
struct Expression {
    text: String,
    token: OnceCell<Vec<u8>>,
    /// The host failed to compile it. It is not tried again.
    is_refused: Cell<bool>,
}

impl<const N: usize> PropertyList<N> {
    pub(crate) fn new(own: [&'static str; N], of_tags: &[PropertySource]) -> Self {
        let of_tags: Vec<_> = of_tags.iter().map(TagProperty::new).collect();
        let lists = RefCell::new(Lists::new(&own, &of_tags));
        Self { own, of_tags, lists }
    }

    /// Reads the attributes of the current stream.
    pub(crate) fn read(&self, stream: StreamReader<'_>) -> Values<N> {
        let evaluate = || self.evaluate(stream);
        let list = evaluate().or_else(|| self.unlist_failing(stream).and_then(|()| evaluate()));
        let is_listed = |property: &TagProperty| list.is_some() && property.is_listed.get();
        let of_tag =
            |property| if is_listed(property) { None } else { Some(property.read(stream)) };
        let of_tags = self.of_tags.iter().map(of_tag).collect();
        let read_own = |name: &str| (stream.property)(&name.replace('.', "\0")).unwrap_or_default();
        let own = if list.is_some() { None } else { Some(self.own.map(read_own)) };
        Values { list: list.unwrap_or_default(), own, of_tags }
    }

    fn evaluate(&self, stream: StreamReader<'_>) -> Option<Vec<u8>> {
        let lists = self.lists.try_borrow().ok()?;
        lists.plain.evaluate(stream).or_else(|| lists.guarded.evaluate(stream))
    }

    /// Rebuilds the lists without the expressions that fail in the current stream. Returns `None` if none fails.
    #[inline(never)]
    fn unlist_failing(&self, stream: StreamReader<'_>) -> Option<()> {
        let mut has_failed = false;
        for property in self.of_tags.iter().filter(|property| property.is_listed.get()) {
            if property.alone.evaluate(stream).is_none() {
                property.is_listed.set(false);
                has_failed = true;
            }
        }
        let mut lists = self.lists.try_borrow_mut().ok()?;
        has_failed.then(|| *lists = Lists::new(&self.own, &self.of_tags))
    }
}

impl TagProperty {
    fn new(source: &PropertySource) -> Self {
        let (path, alone) = match source {
            PropertySource::Path(path) => {
                (Some(path.clone()), cel::value_or_empty(path).unwrap_or_default())
            }
            PropertySource::Cel(expression) => (None, expression.clone()),
        };
        let is_listed = Cell::new(!alone.is_empty());
        Self { path, alone: Expression::new(alone), is_listed }
    }

    /// Reads the value alone.
    fn read(&self, stream: StreamReader<'_>) -> Vec<u8> {
        let value = match &self.path {
            Some(path) => (stream.property)(path),
            None => self.alone.evaluate(stream),
        };
        value.unwrap_or_default()
    }
}

impl Lists {
    fn new(own_names: &[&str], of_tags: &[TagProperty]) -> Self {
        let list = |own: &dyn Fn(&str) -> Option<String>| {
            let own = own_names.iter().map(|name| own(name).unwrap_or_else(|| (*name).to_owned()));
            let of_tags = of_tags.iter().filter(|property| property.is_listed.get());
            let items: Vec<_> = own.chain(of_tags.map(|it| it.alone.text.clone())).collect();
            Expression::new(format!("[{}]", items.join(",")))
        };
        Self {
            plain: list(&|_| None),
            guarded: list(&|name| cel::value_or_empty(&name.replace('.', "\0"))),
        }
    }
}

impl<const N: usize> Values<N> {
    /// Returns the values of the attributes that every span needs, in their order.
    pub(crate) fn values(&self) -> [&[u8]; N] {
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

    /// Returns the values of what tags read, in their order.
    pub(crate) fn of_tags(&self) -> Vec<&[u8]> {
        let mut listed = pairs(&self.list).into_iter().skip(N).map(|(value, _)| value);
        let value = |single: &'_ Option<Vec<u8>>| match single {
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
    fn new(text: String) -> Self {
        Self { text, token: OnceCell::new(), is_refused: Cell::new(false) }
    }

    /// Returns its value for the current stream; none if it fails, or the host has no CEL.
    fn evaluate(&self, stream: StreamReader<'_>) -> Option<Vec<u8>> {
        if self.is_refused.get() {
            return None;
        }
        let compile = || (stream.call_foreign)(CREATE, self.text.as_bytes()).ok_or(());
        let token = self.token.get_or_try_init(compile);
        self.is_refused.set(token.is_err());
        (stream.call_foreign)(EVALUATE, token.ok()?)
    }
}

/// The foreign function that compiles a CEL expression, and returns its token.
pub(crate) const CREATE: &str = "expr_create";
/// The foreign function that evaluates the expression of a token.
const EVALUATE: &str = "expr_evaluate";
/// The foreign function that frees the expression of a token.
pub(crate) const DELETE: &str = "expr_delete";
/// What is logged where the host has no foreign function [`CREATE`].
pub(crate) const WITHOUT_CEL: &str =
    "sidespan: this Envoy is built without CEL: tags with `cel` are left out";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::testing::serialized;

    /// A host whose stream has these attributes, in the order of the lists' names.
    struct Host<'h> {
        present: &'h [(&'h str, &'h str)],
        has_cel: bool,
        /// What was called, without the calls that compile.
        calls: RefCell<Vec<String>>,
        compiled: RefCell<Vec<String>>,
    }

    impl<'h> Host<'h> {
        fn with(present: &'h [(&'h str, &'h str)]) -> Self {
            let (calls, compiled) = (RefCell::default(), RefCell::default());
            Self { present, has_cel: true, calls, compiled }
        }

        fn value(&self, name: &str) -> Option<Vec<u8>> {
            let (_, value) = self.present.iter().find(|(known, _)| *known == name)?;
            Some(value.as_bytes().to_vec())
        }

        /// Evaluates a name, or a name with a test that it is present.
        fn item(&self, item: &str) -> Option<Vec<u8>> {
            match item.split_once('?') {
                None => self.value(item),
                Some((_, value)) => Some(self.value(value.split(':').next()?).unwrap_or_default()),
            }
        }

        fn call_foreign(&self, name: &str, argument: &[u8]) -> Option<Vec<u8>> {
            let text = String::from_utf8(argument.to_vec()).unwrap();
            if name == CREATE {
                self.compiled.borrow_mut().push(text.clone());
                return (self.has_cel && !text.contains("refused")).then(|| argument.to_vec());
            }
            assert_eq!(name, EVALUATE);
            self.calls.borrow_mut().push(text.clone());
            match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                None => self.item(&text),
                Some(items) => {
                    let values: Option<Vec<_>> = items.split(',').map(|it| self.item(it)).collect();
                    let values = values?;
                    let pairs: Vec<_> = values.iter().map(|it| (it.as_slice(), &b""[..])).collect();
                    Some(serialized(&pairs))
                }
            }
        }

        /// Reads the list, and compares its values and the calls that it took.
        #[track_caller]
        fn check(&self, list: &PropertyList<2>, own: [&str; 2], of_tags: &[&str], calls: &[&str]) {
            self.calls.borrow_mut().clear();
            let values = list.read(StreamReader {
                call_foreign: &|name, argument| self.call_foreign(name, argument),
                property: &|path| {
                    self.calls.borrow_mut().push(path.replace('\0', "/"));
                    self.value(&path.replace('\0', "."))
                },
            });
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            assert_eq!(values.values().map(text), own);
            let found: Vec<_> = values.of_tags().into_iter().map(text).collect();
            assert_eq!(found, of_tags);
            assert_eq!(*self.calls.borrow(), calls);
        }
    }

    fn path(path: &str) -> PropertySource {
        PropertySource::Path(path.replace('.', "\0"))
    }

    fn cel(expression: &str) -> PropertySource {
        PropertySource::Cel(expression.to_owned())
    }

    const OWN: [&str; 2] = ["response.code", "upstream.address"];
    const CODE: (&str, &str) = ("response.code", "200");
    const UPSTREAM: (&str, &str) = ("upstream.address", "10.0.0.7:80");
    const PLAIN: &str = "[response.code,upstream.address]";
    const GUARDED_CODE: &str = "(has(response.code)?response.code:\"\")";
    const GUARDED_UPSTREAM: &str = "(has(upstream.address)?upstream.address:\"\")";

    #[test]
    fn one_call_reads_all_attributes_if_all_are_present() {
        let list = PropertyList::new(OWN, &[path("source.port"), cel("mine")]);
        let host = Host::with(&[CODE, UPSTREAM, ("source.port", "80"), ("mine", "a")]);
        let text = "[response.code,upstream.address,(has(source.port)?source.port:\"\"),mine]";
        for _ in 0..2 {
            host.check(&list, ["200", "10.0.0.7:80"], &["80", "a"], &[text]);
        }
        assert_eq!(*host.compiled.borrow(), [text], "an expression is compiled once");
    }

    #[test]
    fn a_second_list_is_read_if_an_attribute_is_absent() {
        let list = PropertyList::new(OWN, &[]);
        let guarded = format!("[{GUARDED_CODE},{GUARDED_UPSTREAM}]");
        for _ in 0..2 {
            Host::with(&[CODE]).check(&list, ["200", ""], &[], &[PLAIN, &guarded]);
        }
        let all = Host::with(&[CODE, UPSTREAM]);
        all.check(&list, ["200", "10.0.0.7:80"], &[], &[PLAIN]);
    }

    #[test]
    fn an_attribute_of_a_tag_may_be_absent() {
        let list = PropertyList::new(OWN, &[path("source.port")]);
        let text = "[response.code,upstream.address,(has(source.port)?source.port:\"\")]";
        Host::with(&[CODE, UPSTREAM]).check(&list, ["200", "10.0.0.7:80"], &[""], &[text]);
    }

    #[test]
    fn an_expression_that_fails_is_removed_from_the_lists() {
        let list = PropertyList::new(OWN, &[cel("fails"), cel("mine")]);
        let host = Host::with(&[CODE, UPSTREAM, ("mine", "a")]);
        let without = "[response.code,upstream.address,mine]";
        let (own, of_tags) = (["200", "10.0.0.7:80"], ["", "a"]);
        let plain = "[response.code,upstream.address,fails,mine]";
        let guarded = format!("[{GUARDED_CODE},{GUARDED_UPSTREAM},fails,mine]");
        let first = [plain, guarded.as_str(), "fails", "mine", without, "fails"];
        host.check(&list, own, &of_tags, &first);
        host.check(&list, own, &of_tags, &[without, "fails"]);
        let later = Host::with(&[CODE, UPSTREAM, ("mine", "a"), ("fails", "b")]);
        later.check(&list, own, &["b", "a"], &[without, "fails"]);
    }

    #[test]
    fn an_expression_that_the_host_refuses_is_compiled_once() {
        let list = PropertyList::new(OWN, &[cel("refused")]);
        let host = Host::with(&[CODE, UPSTREAM]);
        for _ in 0..3 {
            host.check(&list, ["200", "10.0.0.7:80"], &[""], &[PLAIN]);
        }
        assert_eq!(host.compiled.borrow().iter().filter(|text| *text == "refused").count(), 1);
    }

    #[test]
    fn a_path_that_cel_cannot_test_is_read_alone() {
        let list = PropertyList::new(OWN, &[path("plugin_name"), path("source.port")]);
        let host = Host::with(&[CODE, UPSTREAM, ("plugin_name", "p"), ("source.port", "80")]);
        let text = "[response.code,upstream.address,(has(source.port)?source.port:\"\")]";
        host.check(&list, ["200", "10.0.0.7:80"], &["p", "80"], &[text, "plugin_name"]);
    }

    #[test]
    fn without_cel_properties_are_read_one_by_one() {
        let list = PropertyList::new(OWN, &[path("source.port"), cel("mine")]);
        let host = Host { has_cel: false, ..Host::with(&[CODE, ("source.port", "80")]) };
        let calls = ["source/port", "response/code", "upstream/address"];
        host.check(&list, ["200", ""], &["80", ""], &calls);
        let compiled = host.compiled.borrow().len();
        host.check(&list, ["200", ""], &["80", ""], &calls);
        assert_eq!(host.compiled.borrow().len(), compiled, "a host without CEL is not asked again");
    }
}
