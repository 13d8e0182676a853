//! Envoy's response flags by their short names: `source/common/stream_info/utility.h` and
//! `envoy/stream_info/stream_info.h` (`CoreResponseFlag`, whose order numbers the bits).

/// Returns the short names of the bits that are set, joined by commas. Bits that this list does not
/// know, which a later Envoy may add, are written by number.
pub fn names(flags: u64) -> String {
    let mut joined = String::new();
    let mut left = flags;
    while left != 0 {
        let bit = left.trailing_zeros();
        left &= left - 1;
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
}
