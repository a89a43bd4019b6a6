//! Hashes, and names derived from them. Hashes replace randomness: the same input gives the same
//! name on every host.

use ring::digest::{SHA256, digest};

use crate::name::PodUid;

/// Letters and digits that form no words; Kubernetes uses the same alphabet for generated names.
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        hex.push(char::from(HEX_DIGITS[usize::from(byte >> 4)]));
        hex.push(char::from(HEX_DIGITS[usize::from(byte & 15)]));
    }
    hex
}

/// SHA-256 as lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// A pod's uid: a UUID (version 8, RFC 9562) derived from a seed and the serial of the pod.
pub fn pod_uid(seed: &str, serial: u64) -> PodUid {
    let hex = sha256_hex(format!("pod uid\n{seed}\n{serial}").as_bytes());
    PodUid::new(format!(
        "{}-{}-8{}-8{}-{}",
        &hex[0..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    ))
}

/// Five characters for a generated pod name, derived from a seed and a serial.
pub fn name_suffix(seed: &str, serial: u64) -> String {
    let hash = digest(&SHA256, format!("pod name\n{seed}\n{serial}").as_bytes());
    hash.as_ref()
        .iter()
        .take(5)
        .map(|byte| char::from(SUFFIX_ALPHABET[usize::from(*byte) % 27]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_two_lower_case_digits_each() {
        assert_eq!(hex(&[0x00, 0x1f, 0xa0, 0xff, 0x5b]), "001fa0ff5b");
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    /// Names of pods are stored, and each host derives them again.
    #[test]
    fn the_same_seed_and_serial_give_the_same_names_in_every_version() {
        let uid = PodUid::new("62264fea-8dcc-8bd5-8b80-57e43018b133");
        assert_eq!(pod_uid("seed", 7), uid);
        assert_eq!(name_suffix("seed", 7), "fsd88");
        assert_eq!(name_suffix("seed", 8), "q55p8");
    }
}
