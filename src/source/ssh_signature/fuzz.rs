//! Signatures of any bytes: a signature counts only if a key made it over exactly these bytes.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use reconciler::foreign::is_unprintable;
use ssh_key::PublicKey;

use super::*;
use crate::fuzz::Fuzz;

/// The bytes that the signatures of the corpus sign.
const PAYLOAD: &[u8] = b"a commit\n";
const WORDS: [&str; 14] = [
    "SSHSIG",
    "git",
    "file",
    "sha256",
    "sha512",
    "ssh-ed25519",
    "ssh-rsa",
    "rsa-sha2-256",
    "ecdsa-sha2-nistp256",
    "sk-ssh-ed25519@openssh.com",
    "ssh-ed25519-cert-v01@openssh.com",
    "\0\0\0\0",
    "\0\0\0\x01",
    "\0\0\0\x0b",
];

fn corpus(words: &[&'static str]) -> Fuzz {
    Fuzz::new("src/source/ssh_signature/corpus", words)
}

/// The keys that made the signatures of the corpus.
fn keys(corpus: &Fuzz) -> BTreeSet<Vec<u8>> {
    let signatures = corpus
        .seeds
        .iter()
        .map(|(_, armour)| SshSignature::parse(armour));
    signatures
        .flatten()
        .map(|signature| signature.key_blob)
        .collect()
}

#[test]
fn any_armour_is_refused_or_holds_a_signature_of_its_key() {
    let fuzz = corpus(&[BEGIN, END, "\n", "=", "AAAA", "U1NIU0lH"]);
    let keys = keys(&fuzz);
    fuzz.run(|armour| judged(armour, &keys));
}

#[test]
fn any_content_of_an_armour_is_refused_or_holds_a_signature_of_its_key() {
    let mut fuzz = corpus(&WORDS);
    let keys = keys(&fuzz);
    for (_, armour) in &mut fuzz.seeds {
        *armour = dearmour(armour).unwrap_or_default();
    }
    fuzz.run(|content| {
        let armour = format!("{BEGIN}\n{}\n{END}\n", Base64::encode_string(content));
        let taken = judged(armour.as_bytes(), &keys)?;
        if let Ok(signature) = SshSignature::parse(armour.as_bytes()) {
            // A signature has one encoding: no byte of it is skipped.
            prop_assert_eq!(written(&signature), content);
        }
        Ok(taken)
    });
}

fn judged(armour: &[u8], keys: &BTreeSet<Vec<u8>>) -> Result<bool, TestCaseError> {
    let signature = match SshSignature::parse(armour) {
        Ok(signature) => signature,
        Err(error) => return refused(&error),
    };
    // The daemon takes the key from its list of signers and not from the signature.
    let Ok(key) = PublicKey::from_bytes(&signature.key_blob) else {
        return Ok(false);
    };
    // The library overlooks a wrong length inside of a key. The daemon compares the whole key with
    // those of its list, so that such a one is an unknown key.
    if key.to_bytes().ok().as_ref() != Some(&signature.key_blob) {
        return Ok(false);
    }
    let key = VerifyingKey::new(key.key_data());
    prop_assert!(signature.verify(&key, b"a cOmmit\n").is_err());
    match signature.verify(&key, PAYLOAD) {
        Ok(()) => {
            prop_assert!(
                keys.contains(&signature.key_blob),
                "a signature of an unknown key"
            );
            Ok(true)
        }
        Err(error) => refused(&error),
    }
}

fn refused(error: &SignatureError) -> Result<bool, TestCaseError> {
    let message = error.to_string();
    prop_assert!(message.len() < 300, "{} bytes", message.len());
    prop_assert!(!message.contains(is_unprintable), "{message:?}");
    Ok(false)
}

fn written(signature: &SshSignature) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    VERSION.encode(&mut bytes).unwrap();
    let mut inner = Vec::new();
    signature.signature.encode(&mut inner).unwrap();
    let hash = signature.hash.as_str();
    for field in [
        signature.key_blob.as_slice(),
        NAMESPACE.as_bytes(),
        b"",
        hash.as_bytes(),
        inner.as_slice(),
    ] {
        field.encode(&mut bytes).unwrap();
    }
    bytes
}
