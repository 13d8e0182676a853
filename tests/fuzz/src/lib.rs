//! Functions that the fuzz targets share: any bytes as header lines, and a check of a format.

use sidespan::fuzzing::Config;
use sidespan::fuzzing::Context;
use sidespan::fuzzing::Head;
use sidespan::fuzzing::Propagation;
use sidespan::fuzzing::{Edits, HeaderEdit};

type Line<'a> = (&'a [u8], &'a [u8]);

/// Makes header lines of the input: each of its lines is the value of the next of `names`, which repeat.
pub fn lines<'a>(names: &[&'a str], input: &'a [u8]) -> Vec<Line<'a>> {
    let values = input.split(|byte| *byte == b'\n');
    names.iter().map(|name| name.as_bytes()).cycle().zip(values).collect()
}

/// Extracts a context in one format, injects it, and extracts it again: both contexts must be equal,
/// and a second injection must change nothing.
pub fn round_trip(format: &str, names: &[&str], input: &[u8]) {
    let config =
        format!(r#"{{"propagation": {{"extract": ["{format}"], "inject": ["{format}"]}}}}"#);
    let propagation = Config::parse(config.as_bytes(), &|_| None).unwrap().propagation;
    let received = lines(names, input);
    let Some((context, edits)) = pass_on(&propagation, &received) else {
        return;
    };
    let sent = applied(&received, &edits);
    let sent: Vec<_> = sent.iter().map(|(name, value)| (&**name, &**value)).collect();
    let (again, edits) = pass_on(&propagation, &sent).unwrap();
    assert_eq!(again, context);
    assert_eq!(edits, []);
}

/// Returns the context of a request, and the edits that inject it.
fn pass_on(
    propagation: &Propagation,
    lines: &[Line<'_>],
) -> Option<(Context, Vec<HeaderEdit<'static>>)> {
    let head = Head::new(lines.to_vec());
    let incoming = propagation.extract(&head);
    let context = incoming.parent?;
    let mut edits = Edits::of(&head);
    propagation.inject(&context, &incoming, &mut edits);
    Some((context, edits.finish()))
}

/// Returns header lines after the edits.
pub fn applied(lines: &[Line<'_>], edits: &[HeaderEdit<'_>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut lines: Vec<_> =
        lines.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    for edit in edits {
        let name = match edit {
            HeaderEdit::Add { name, .. } | HeaderEdit::Set { name, .. } => *name,
            HeaderEdit::Remove { name } => name,
        };
        lines.retain(|(known, _)| known != name.as_bytes());
        if let HeaderEdit::Add { value, .. } | HeaderEdit::Set { value, .. } = edit {
            lines.push((name.as_bytes().to_vec(), value.clone()));
        }
    }
    lines
}
