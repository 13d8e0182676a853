//! Edits of headers. [`Edits`] collects those of a request: only those that change a header, since each
//! costs a hostcall.

use std::borrow::Cow;

use crate::http::head::Head;

/// One edit for the host to make. A name is a constant, or comes from the configuration, or is the
/// client's spelling of a name to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderEdit<'n> {
    /// Adds a line.
    Add { name: &'n str, value: Vec<u8> },
    /// Replaces all lines of that name by one.
    Set { name: &'n str, value: Vec<u8> },
    /// Removes all lines of that name.
    Remove { name: Cow<'n, str> },
}

/// Collects the edits of one head.
#[derive(Debug)]
pub struct Edits<'h, 'n> {
    head: &'h Head<'h>,
    edits: Vec<HeaderEdit<'n>>,
}

impl<'h, 'n> Edits<'h, 'n> {
    pub fn of(head: &'h Head<'h>) -> Self {
        Self { head, edits: Vec::new() }
    }

    /// Returns the head as it came, without the edits.
    pub fn head(&self) -> &'h Head<'h> {
        self.head
    }

    /// Makes `value` the only line of that name.
    #[inline(never)]
    pub fn set(&mut self, name: &'n str, value: &[u8]) {
        let mut lines = self.head.all(name);
        match (lines.next(), lines.next()) {
            (None, _) => self.edits.push(HeaderEdit::Add { name, value: value.to_vec() }),
            (Some(only), None) if only == value => {}
            _ => self.edits.push(HeaderEdit::Set { name, value: value.to_vec() }),
        }
    }

    /// Removes all lines of that name.
    #[inline(never)]
    pub fn remove(&mut self, name: &'n str) {
        if self.head.first(name).is_some() {
            self.edits.push(HeaderEdit::Remove { name: Cow::Borrowed(name) });
        }
    }

    /// Removes all lines whose names match.
    #[inline(never)]
    pub fn remove_where(&mut self, is_match: impl Fn(&[u8]) -> bool) {
        let mut names: Vec<_> = self.head.names().filter(|name| is_match(name)).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let name = String::from_utf8_lossy(name).into_owned();
            self.edits.push(HeaderEdit::Remove { name: Cow::Owned(name) });
        }
    }

    /// Returns the edits in the order in which they were made.
    pub fn finish(self) -> Vec<HeaderEdit<'n>> {
        self.edits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[(&str, &str)], expected: &[HeaderEdit<'_>]) {
        let head = Head::new(lines.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect());
        let mut edits = Edits::of(&head);
        edits.set("a", b"1");
        edits.remove("b");
        assert_eq!(edits.finish(), expected);
    }

    #[test]
    fn lines_that_are_right_are_not_edited() {
        let add = HeaderEdit::Add { name: "a", value: b"1".to_vec() };
        let set = HeaderEdit::Set { name: "a", value: b"1".to_vec() };
        let remove = HeaderEdit::Remove { name: "b".into() };
        check(&[], std::slice::from_ref(&add));
        check(&[("a", "1")], &[]);
        check(&[("a", "2")], std::slice::from_ref(&set));
        check(&[("a", "1"), ("a", "1")], std::slice::from_ref(&set));
        check(&[("b", "")], &[add, remove]);
    }
}
