//! gzip, made of what zlib compressed: the host has zlib and writes its format, collectors read gzip's.
//!
//! <https://www.rfc-editor.org/rfc/rfc1950>, <https://www.rfc-editor.org/rfc/rfc1952>
//!
//! Both hold the same deflated bytes:
//!
//! ```text
//! zlib = CMF FLG *OCTET ADLER32      ; %x08 in the low half of CMF, no dictionary (bit 5 of FLG)
//! gzip = head *OCTET CRC32 ISIZE     ; both with the lowest byte first
//! ```
//!
//! So only the checksum is made here: a compressor of the module's own would take 30 KB of it.

/// Appends `plain` in gzip, where `zlib` is the same in zlib's format, and tells whether it did:
/// anything not in that format is left alone.
pub fn put(bytes: &mut Vec<u8>, zlib: &[u8], plain: &[u8]) -> bool {
    let Some(deflated) = deflated(zlib) else {
        return false;
    };
    bytes.reserve_exact(HEAD.len() + deflated.len() + 8);
    bytes.extend_from_slice(&HEAD);
    bytes.extend_from_slice(deflated);
    bytes.extend_from_slice(&crc32fast::hash(plain).to_le_bytes());
    bytes.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    true
}

fn deflated(zlib: &[u8]) -> Option<&[u8]> {
    let ([cmf, flg], rest) = zlib.split_first_chunk()?;
    let is_zlib = cmf & 0x0f == 8 && u16::from_be_bytes([*cmf, *flg]) % 31 == 0 && flg & 0x20 == 0;
    rest.split_last_chunk::<4>().filter(|_| is_zlib).map(|(deflated, _)| deflated)
}

/// gzip header: method deflate, no flags, no mtime, OS unknown (RFC 1952, 2.3).
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use flate2::Compression;
    use flate2::read::GzDecoder;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    use super::*;

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[track_caller]
    fn check_refused(zlib: &[u8]) {
        let mut bytes = b"head".to_vec();
        assert!(!put(&mut bytes, zlib, b"plain"), "{zlib:?}");
        assert_eq!(bytes, b"head");
    }

    #[test]
    fn what_is_not_in_the_format_of_zlib_is_left_alone() {
        check_refused(b"");
        check_refused(b"\x78");
        check_refused(b"\x78\x9c\x03\x00\x00");
        check_refused(b"\x78\x9d\x03\x00\x00\x00\x00\x01");
        check_refused(b"\x79\x9c\x03\x00\x00\x00\x00\x01");
        check_refused(b"\x78\xbb\x03\x00\x00\x00\x00\x01");
        check_refused(b"plain text, and much of it");
    }

    proptest! {
        #[test]
        fn what_was_compressed_is_read_back(plain: Vec<u8>, head: Vec<u8>) {
            let mut bytes = head.clone();
            prop_assert!(put(&mut bytes, &zlib(&plain), &plain));
            let mut found = Vec::new();
            // The decoder holds checksum and length against what it reads.
            GzDecoder::new(&bytes[head.len()..]).read_to_end(&mut found).unwrap();
            prop_assert_eq!(found, plain);
        }

        #[test]
        fn no_bytes_panic(zlib: Vec<u8>, plain: Vec<u8>) {
            put(&mut Vec::new(), &zlib, &plain);
        }
    }
}
