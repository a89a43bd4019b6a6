//! Datagrams of arbitrary bytes: the decoder reads no byte twice and none beyond the end.

use proptest::prelude::*;

use super::*;
use crate::fuzz::Fuzz;

const WORDS: [&str; 8] = [
    "\0\0\0\0",
    "\x10\0\0\0",
    "\x04\0\x01\0",
    "\x02\0",
    "\x03\0",
    "\0\0\0\u{7f}",
    "\x08\0\x01\0",
    "wdl1\0",
];

#[test]
fn any_datagram_is_decoded_within_its_bounds() {
    Fuzz::new("src/netlink/corpus", &WORDS).run(|bytes| {
        let mut read = 0;
        for (kind, _, body) in datagram(bytes) {
            read += HEADER + body.len();
            prop_assert!(read <= bytes.len());
            if kind == NLMSG_ERROR {
                let code: Option<[u8; 4]> = body.first_chunk().copied();
                prop_assert_eq!(status(body).is_ok(), code == Some([0; 4]));
            }
            for start in [0, 4, 8, 16] {
                attributes_are_decoded_again(body.get(start..).unwrap_or_default())?;
            }
        }
        Ok(read > 0)
    });
}

/// Attributes that are decoded and encoded again are the same.
fn attributes_are_decoded_again(bytes: &[u8]) -> Result<(), TestCaseError> {
    let decoded: Vec<(u16, &[u8])> = attributes(bytes).collect();
    let size: usize = decoded.iter().map(|(_, value)| value.len() + 4).sum();
    prop_assert!(size <= bytes.len());
    let message = Message::new(0, 0, &[]);
    let message = decoded.iter().fold(message, |message, (kind, value)| {
        message.attribute(*kind, value)
    });
    let again: Vec<(u16, &[u8])> = attributes(&message.bytes[HEADER..]).collect();
    prop_assert_eq!(&again, &decoded);
    for (kind, value) in &decoded {
        let first = attribute(bytes, *kind);
        prop_assert!(first.is_some());
        prop_assert_eq!(number(value).is_some(), value.len() >= 4);
        prop_assert_eq!(address(value).is_some(), value.len() >= 4);
    }
    Ok(())
}
