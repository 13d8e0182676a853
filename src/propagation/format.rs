//! The wire formats of a trace context: one file each in `format/`, and the table of all of them.
//!
//! A new format takes a file with its [`FormatDefinition`], and here its `mod` line and its line in
//! the table. The configuration accepts its name, metrics count its invalid contexts, and its headers
//! are stripped with the others, without another edit.

mod b3;
mod datadog;
mod gcp;
mod grpc_trace_bin;
mod instana;
mod jaeger;
mod ottrace;
pub(crate) mod tracecontext;
mod xray;

use super::context::Context;
use super::extracted::Extracted;
use crate::http::edits::Edits;
use crate::http::head::Head;

/// Makes [`Format`] from the table below.
macro_rules! formats {
    ($($format:ident = $definition:path,)*) => {
        /// A wire format of a trace context.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Format {
            $($format,)*
        }

        impl Format {
            /// All formats, in the order of their discriminants.
            pub const ALL: [Self; [$(Self::$format,)*].len()] = [$(Self::$format,)*];
            /// The headers of all formats, format by format.
            pub const HEADERS: &[&[&str]] = &[$($definition.headers,)*];

            const fn definition(self) -> &'static FormatDefinition {
                match self {
                    $(Self::$format => &$definition,)*
                }
            }

            /// Reads the context that a request has in this format.
            pub fn extract(self, head: &Head<'_>) -> Extracted {
                match self {
                    $(Self::$format => ($definition.extract)(head),)*
                }
            }

            /// Writes a context in this format.
            pub fn inject(self, context: &Context, edits: &mut Edits<'_, '_>) {
                match self {
                    $(Self::$format => ($definition.inject)(context, edits),)*
                }
            }
        }
    };
}

formats! {
    TraceContext = tracecontext::FORMAT,
    B3Single = b3::SINGLE_HEADER,
    B3Multi = b3::MULTI_HEADER,
    Jaeger = jaeger::FORMAT,
    XRay = xray::FORMAT,
    OtTrace = ottrace::FORMAT,
    Datadog = datadog::FORMAT,
    GrpcTraceBin = grpc_trace_bin::FORMAT,
    Gcp = gcp::FORMAT,
    Instana = instana::FORMAT,
}

/// Everything that the rest of the filter knows about a format.
pub(crate) struct FormatDefinition {
    /// The name in the configuration and in metrics.
    pub name: &'static str,
    /// All headers that hold a part of the context, in lower case.
    pub headers: &'static [&'static str],
    /// Reads the context of a request.
    pub extract: fn(&Head<'_>) -> Extracted,
    /// Writes a context, so that `extract` returns the same one, as far as the format has room for it.
    pub inject: fn(&Context, &mut Edits<'_, '_>),
    /// The other encoding of the same format, which only B3 has. If one is configured to be read, both
    /// are; if only one is written, the headers of the other are removed.
    pub other_encoding: Option<Format>,
}

impl Format {
    /// Returns the name that configuration and metrics use.
    pub const fn name(self) -> &'static str {
        self.definition().name
    }

    /// Returns the headers that hold a context in this format.
    pub const fn headers(self) -> &'static [&'static str] {
        self.definition().headers
    }

    /// Returns the other encoding of the same format, if it has two.
    pub fn other_encoding(self) -> Option<Self> {
        self.definition().other_encoding
    }

    /// Returns every encoding of the same format, in the order in which they are read.
    pub fn encodings(self) -> impl Iterator<Item = Self> {
        let is_encoding =
            move |format: &Self| *format == self || format.other_encoding() == Some(self);
        Self::ALL.into_iter().filter(is_encoding)
    }

    /// Removes all headers of this format.
    pub fn remove(self, edits: &mut Edits<'_, '_>) {
        self.headers().iter().for_each(|name| edits.remove(name));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Files whose configurations read and write all formats.
    const CONFIGURATIONS: [&str; 3] =
        ["harness/examples/worst.rs", "harness/tests/it/cost.rs", "tests/fuzz/targets/filter.rs"];
    /// The file whose tests carry all formats through real Envoys.
    const IN_ENVOY: &str = "tests/test_propagation.py";
    /// The demo's service, which passes on the headers of all formats.
    const SERVICE: &str = "envoy/service.py";

    #[test]
    fn tests_and_the_demo_know_every_format() {
        let read = |path: &str| {
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
        };
        let service = read(SERVICE);
        // Every second part stands between quotes; a prefix of headers ends in a hyphen.
        let known: Vec<_> = service.split('"').skip(1).step_by(2).collect();
        for format in Format::ALL {
            let name = format.name();
            let quoted = format!("\"{name}\"");
            for path in CONFIGURATIONS {
                let text = read(path);
                for key in ["extract", "inject"] {
                    let begin = format!("\"{key}\": [");
                    let mut lists =
                        text.split(&begin).skip(1).filter_map(|it| it.split(']').next());
                    // One encoding of B3 is enough.
                    let has_format = |list: &str| {
                        let mut names = format.encodings().map(|it| format!("\"{}\"", it.name()));
                        names.any(|name| list.contains(&name))
                    };
                    assert!(lists.any(has_format), "`{key}` in {path} lacks {name}");
                }
            }
            let target = format!("tests/fuzz/targets/{}.rs", name.replace('-', "_"));
            for path in [IN_ENVOY, &target] {
                assert!(read(path).contains(&quoted), "{path} lacks {name}");
            }
            for header in format.headers() {
                let is_known = |known: &&str| {
                    known == header || (known.ends_with('-') && header.starts_with(*known))
                };
                assert!(known.iter().any(is_known), "{SERVICE} lacks {header}");
            }
        }
    }
}
