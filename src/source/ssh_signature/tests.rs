#![expect(clippy::unwrap_used, reason = "a test")]

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use ssh_key::PublicKey;
use ssh_key::public::{Ed25519PublicKey, SkEd25519};

use super::super::testing::{KeyPairs, run};
use super::*;

fn sshsig(key: &[u8], namespace: &str, reserved: &[u8], hash: &str, signature: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    VERSION.encode(&mut bytes).unwrap();
    for field in [
        key,
        namespace.as_bytes(),
        reserved,
        hash.as_bytes(),
        signature,
    ] {
        field.encode(&mut bytes).unwrap();
    }
    format!("{BEGIN}\n{}\n{END}\n", Base64::encode_string(&bytes)).into_bytes()
}

fn blob(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        part.encode(&mut bytes).unwrap();
    }
    bytes
}

#[test]
fn what_ssh_keygen_signs_verifies_and_a_changed_byte_does_not() {
    let keys = KeyPairs::new();
    for (name, kind, bits) in [
        ("plain", "ed25519", "256"),
        ("p256", "ecdsa", "256"),
        ("p384", "ecdsa", "384"),
        ("rsa", "rsa", "2048"),
    ] {
        let key = keys.generate(name, kind, bits);
        let payload = keys.path("payload");
        for hash in ["sha256", "sha512"] {
            std::fs::write(&payload, "a commit").unwrap();
            let option = format!("hashalg={hash}");
            let arguments = [
                "-Y",
                "sign",
                "-n",
                "git",
                "-O",
                &option,
                "-f",
                key.to_str().unwrap(),
            ];
            run(
                "ssh-keygen",
                &[&arguments[..], &[payload.to_str().unwrap()]].concat(),
            );
            let armour = std::fs::read(payload.with_extension("sig")).unwrap();
            std::fs::remove_file(payload.with_extension("sig")).unwrap();

            let public = PublicKey::read_openssh_file(&key.with_extension("pub")).unwrap();
            let verifying = VerifyingKey::new(public.key_data());
            let signature = SshSignature::parse(&armour).unwrap();
            assert_eq!(signature.key_blob, public.to_bytes().unwrap());
            assert_eq!(
                signature.verify(&verifying, b"a commit"),
                Ok(()),
                "{kind} {bits} {hash}"
            );
            assert_eq!(
                signature.verify(&verifying, b"a cOmmit"),
                Err(SignatureError::Wrong)
            );
        }
    }
}

#[test]
fn weak_and_unsupported_keys_are_refused_by_name() {
    let keys = KeyPairs::new();
    for (name, kind, bits, expected) in [
        ("weak", "rsa", "1024", SignatureError::WeakKey(1024)),
        (
            "p521",
            "ecdsa",
            "521",
            SignatureError::Unsupported(type_name("ecdsa-sha2-nistp521")),
        ),
    ] {
        let key = keys.generate(name, kind, bits);
        let public = PublicKey::read_openssh_file(&key.with_extension("pub")).unwrap();
        let verifying = VerifyingKey::new(public.key_data());
        let algorithm = match kind {
            "rsa" => Algorithm::Rsa {
                hash: Some(HashAlg::Sha512),
            },
            _ => Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP521,
            },
        };
        assert_eq!(verifying.verify(&algorithm, &[1; 128], b"x"), Err(expected));
    }
}

#[test]
fn a_security_key_must_have_been_touched() {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let public: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
    let key = KeyData::SkEd25519(SkEd25519::new(Ed25519PublicKey(public), "ssh:"));
    let key_blob = PublicKey::from(key.clone()).to_bytes().unwrap();
    let verifying = VerifyingKey::new(&key);
    for (flags, expected) in [
        (1, Ok(())),
        (5, Ok(())),
        (4, Err(SignatureError::NoUserPresence)),
    ] {
        let message = [
            MAGIC,
            &blob(&[
                b"git",
                b"",
                b"sha256",
                digest(&SHA256, b"a commit").as_ref(),
            ]),
        ]
        .concat();
        let trailer = [flags, 0, 0, 0, 9];
        let signed = [
            digest(&SHA256, b"ssh:").as_ref(),
            &trailer,
            digest(&SHA256, &message).as_ref(),
        ]
        .concat();
        let raw = [
            &blob(&[b"sk-ssh-ed25519@openssh.com", pair.sign(&signed).as_ref()]),
            &trailer[..],
        ]
        .concat();
        let signature =
            SshSignature::parse(&sshsig(&key_blob, "git", b"", "sha256", &raw)).unwrap();
        assert_eq!(signature.verify(&verifying, b"a commit"), expected);
    }
}

#[test]
fn malformed_containers_are_refused() {
    let key = blob(&[b"ssh-ed25519", &[7; 32]]);
    let raw = blob(&[b"ssh-ed25519", &[7; 64]]);
    let parse = |armour: &[u8]| SshSignature::parse(armour).err().unwrap().to_string();
    assert!(SshSignature::parse(&sshsig(&key, "git", b"", "sha512", &raw)).is_ok());
    let certificate = blob(&[b"ssh-ed25519-cert-v01@openssh.com", &[7; 32]]);
    let armour_of = |bytes: usize| {
        // Four line breaks, so that the rest is whole groups of base64.
        let body = vec![b'A'; bytes - BEGIN.len() - END.len() - 4];
        [BEGIN.as_bytes(), b"\n", &body, b"\n\n\n", END.as_bytes()].concat()
    };
    let messages = [
        parse(&sshsig(&key, "file", b"", "sha512", &raw)),
        parse(&sshsig(&key, "git", b"x", "sha512", &raw)),
        parse(&sshsig(&key, "git", b"", "sha1", &raw)),
        parse(&sshsig(&certificate, "git", b"", "sha512", &raw)),
        parse(&sshsig(&key, "git", b"", "sha512", &raw[..40])),
        parse(b"-----BEGIN SSH SIGNATURE-----\n!!\n-----END SSH SIGNATURE-----\n"),
        parse(b"-----BEGIN SSH SIGNATURE-----\nU1NI"),
        parse(&armour_of(16_384 + 1)),
        parse(&armour_of(16_384)),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r#"
    its signature was made for "file", not for "git"
    its SSH signature is malformed: a reserved field that is not empty
    its SSH signature is malformed: a hash other than sha256 and sha512
    it is signed with the certificate type ssh-ed25519-cert-v01@openssh.com; SSH certificates are not supported yet, sign with a plain key
    its SSH signature is malformed: the signature inside does not parse
    its SSH signature is malformed: not base64
    its SSH signature is malformed: no BEGIN and END lines
    its SSH signature is malformed: larger than 16 KiB
    its SSH signature is malformed: no SSHSIG magic
    "#);
}

#[test]
fn begin_and_end_stand_on_lines_of_their_own() {
    let key = blob(&[b"ssh-ed25519", &[7; 32]]);
    let raw = blob(&[b"ssh-ed25519", &[7; 64]]);
    let armour = String::from_utf8(sshsig(&key, "git", b"", "sha512", &raw)).unwrap();
    let parse = |armour: &str| SshSignature::parse(armour.as_bytes()).err();
    assert_eq!(parse(&armour), None);
    assert_eq!(parse(armour.trim_end()), None);

    let malformed = SignatureError::Malformed("no BEGIN and END lines");
    for changed in [
        armour.replacen(&format!("{BEGIN}\n"), BEGIN, 1),
        armour.replacen(&format!("{BEGIN}\n"), &format!("{BEGIN} \n"), 1),
        armour.replacen(&format!("\n{END}"), END, 1),
        armour.replacen(&format!("\n{END}"), &format!("\n {END}"), 1),
        format!("\n{armour}"),
        format!("{armour}x"),
        format!("{BEGIN}\n{END}").replace('\n', ""),
    ] {
        assert_eq!(parse(&changed), Some(malformed.clone()), "{changed}");
    }
}

#[test]
fn an_ecdsa_security_key_is_verified() {
    let random = SystemRandom::new();
    let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap();
    let name = b"sk-ecdsa-sha2-nistp256@openssh.com";
    let key_blob = blob(&[name, b"nistp256", pair.public_key().as_ref(), b"ssh:"]);
    let key = PublicKey::from_bytes(&key_blob).unwrap();

    let hash = digest(&SHA256, b"a commit");
    let message = [MAGIC, &blob(&[b"git", b"", b"sha256", hash.as_ref()])].concat();
    let trailer = [USER_PRESENT, 0, 0, 0, 9];
    let signed = [
        digest(&SHA256, b"ssh:").as_ref(),
        &trailer,
        digest(&SHA256, &message).as_ref(),
    ]
    .concat();
    let made = pair.sign(&random, &signed).unwrap();
    let numbers: Vec<Mpint> = made
        .as_ref()
        .chunks(32)
        .map(|number| Mpint::from_positive_bytes(number).unwrap())
        .collect();
    let inner = blob(&[numbers[0].as_bytes(), numbers[1].as_bytes()]);
    let raw = [&blob(&[name, &inner]), &trailer[..]].concat();
    let signature = SshSignature::parse(&sshsig(&key_blob, "git", b"", "sha256", &raw)).unwrap();

    let verifying = VerifyingKey::new(key.key_data());
    assert_eq!(signature.verify(&verifying, b"a commit"), Ok(()));
    assert_eq!(
        signature.verify(&verifying, b"a cOmmit"),
        Err(SignatureError::Wrong)
    );
}

#[test]
fn the_numbers_of_an_ecdsa_signature_are_padded_to_the_width() {
    let numbers = |r: &[u8], s: &[u8]| fixed_width(&blob(&[r, s]), 4);
    assert_eq!(
        numbers(&[1], &[2, 3]),
        Ok(vec![0, 0, 0, 1, 0, 0, 2, 3]),
        "two short numbers"
    );
    assert_eq!(
        numbers(&[0, 0x80, 1, 2, 3], &[4]),
        Ok(vec![0x80, 1, 2, 3, 0, 0, 0, 4]),
        "a number with the byte of its sign"
    );
    let malformed = SignatureError::Malformed("an ECDSA signature without r and s");
    for signature in [
        blob(&[&[1, 2, 3, 4, 5], &[1]]),
        blob(&[&[1]]),
        blob(&[&[1], &[2], &[3]]),
    ] {
        assert_eq!(fixed_width(&signature, 4), Err(malformed.clone()));
    }
}

#[test]
fn the_bits_of_an_rsa_key_are_those_of_its_modulus() {
    for (first, bits) in [(0x7f, 2047), (0x01, 2041)] {
        let mut modulus = vec![0xff; 256];
        modulus[0] = first;
        assert_eq!(
            verify_rsa(&modulus, &[1, 0, 1], HashAlg::Sha512, &[1; 256], b"x"),
            Err(SignatureError::WeakKey(bits))
        );
    }
}

#[test]
fn a_key_of_an_unsupported_type_is_named_whatever_it_claims_to_sign_with() {
    let key = VerifyingKey::Unsupported("ssh-dss".to_owned());
    assert_eq!(
        key.verify(&Algorithm::Ed25519, &[1; 64], b"x"),
        Err(SignatureError::Unsupported(type_name("ssh-dss")))
    );
}
