//! gzip made from zlib: the host compresses in the format of zlib, and receivers read gzip.
//!
//! <https://www.rfc-editor.org/rfc/rfc1950>, <https://www.rfc-editor.org/rfc/rfc1952>
//!
//! Both formats hold the same deflated bytes:
//!
//! ```text
//! zlib = CMF FLG *OCTET ADLER32      ; %x08 in the low half of CMF, no dictionary (bit 5 of FLG)
//! gzip = head *OCTET CRC32 ISIZE     ; both with the lowest byte first
//! ```
//!
//! Only the checksum is computed here. A compressor in the module would add 30 KB to it.

/// Appends `plain` as gzip; `zlib` is `plain` as zlib compressed it. Returns whether it did: nothing is
/// appended if `zlib` is not in zlib's format.
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

/// Returns the bytes between header and checksum, if this is zlib's format.
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
    fn nothing_is_appended_for_input_that_is_not_zlib() {
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
        fn a_decoder_returns_the_plain_bytes(plain: Vec<u8>, head: Vec<u8>) {
            let mut bytes = head.clone();
            prop_assert!(put(&mut bytes, &zlib(&plain), &plain));
            let mut found = Vec::new();
            // The decoder compares checksum and length with the bytes that it decodes.
            GzDecoder::new(&bytes[head.len()..]).read_to_end(&mut found).unwrap();
            prop_assert_eq!(found, plain);
        }

        #[test]
        fn no_bytes_panic(zlib: Vec<u8>, plain: Vec<u8>) {
            put(&mut Vec::new(), &zlib, &plain);
        }
    }
}
