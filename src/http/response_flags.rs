//! Envoy's response flags by their short names: `source/common/stream_info/utility.h` and
//! `envoy/stream_info/stream_info.h` (`CoreResponseFlag`, whose order numbers the bits).

/// Returns the short names of the bits that are set, joined by commas. A bit without a known name, which
/// a later Envoy may add, is written as its number.
pub(crate) fn names(flags: u64) -> String {
    let mut joined = String::new();
    let mut rest = flags;
    while rest != 0 {
        let bit = rest.trailing_zeros();
        rest &= rest - 1;
        if !joined.is_empty() {
            joined.push(',');
        }
        match SHORT_NAMES.get(bit as usize) {
            Some(name) => joined.push_str(name),
            None => joined.push_str(&bit.to_string()),
        }
    }
    joined
}

/// Returns the bit that has this short name.
pub(crate) fn bit(short_name: &str) -> Option<u64> {
    let index = SHORT_NAMES.iter().position(|known| *known == short_name)?;
    Some(1 << index)
}

/// How a stream was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A time limit passed.
    Timeout,
    /// The upstream, or the connection to it, failed.
    UpstreamReset,
    /// The client disconnected, or broke the protocol.
    DownstreamReset,
}

/// Returns how a stream was cut short, if it was. A timeout takes precedence, because it resets the
/// stream as well. A stream that switched protocols ends when either side closes the connection, which
/// Envoy flags as a reset: only a timeout cuts it short.
pub(crate) fn cut(flags: u64, status: u16) -> Option<Cut> {
    let has = |bits: u64| flags & bits != 0;
    if has(TIMEOUTS) {
        Some(Cut::Timeout)
    } else if status == SWITCHING_PROTOCOLS {
        None
    } else if has(UPSTREAM_RESETS) {
        Some(Cut::UpstreamReset)
    } else if has(DOWNSTREAM_RESETS) {
        Some(Cut::DownstreamReset)
    } else {
        None
    }
}

/// After a response with this status the connection does not carry HTTP.
pub(crate) const SWITCHING_PROTOCOLS: u16 = 101;

/// UT, SI, UMSDR, DT.
const TIMEOUTS: u64 = 1 << 2 | 1 << 16 | 1 << 19 | 1 << 22;
/// LR, UR, UF, UC, UPE.
const UPSTREAM_RESETS: u64 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 23;
/// DC, DPE, DR.
const DOWNSTREAM_RESETS: u64 = 1 << 14 | 1 << 18 | 1 << 28;

const SHORT_NAMES: [&str; 30] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC",
    "URX", "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR",
    "UDO",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_envoys_short_names() {
        for (flags, expected) in [
            (0, ""),
            (1 << 1, "UH"),
            (1 << 5 | 1 << 15, "UF,URX"),
            (1 << 24, "NC"),
            (1 << 40, "40"),
        ] {
            assert_eq!(names(flags), expected, "{flags:x}");
        }
    }

    #[test]
    fn flags_tell_how_a_stream_was_cut_short() {
        for (short_names, expected) in [
            ("UT SI UMSDR DT", Some(Cut::Timeout)),
            ("LR UR UF UC UPE", Some(Cut::UpstreamReset)),
            ("DC DPE DR", Some(Cut::DownstreamReset)),
            ("LH UH UO NR DI FI RL UAEX RLSE URX IH RFCF NFCF NC OM DF DO UDO", None),
        ] {
            for name in short_names.split(' ') {
                assert_eq!(cut(bit(name).unwrap(), 200), expected, "{name}");
            }
        }
        assert_eq!(cut(1 << 2 | 1 << 6, 200), Some(Cut::Timeout));
        assert_eq!(bit("uh"), None);
        for (short_names, expected) in
            [("UT SI UMSDR DT", Some(Cut::Timeout)), ("LR UR UF UC UPE DC DPE DR", None)]
        {
            for name in short_names.split(' ') {
                assert_eq!(cut(bit(name).unwrap(), 101), expected, "{name}");
            }
        }
        assert_eq!(cut(0, 200), None);
    }
}
