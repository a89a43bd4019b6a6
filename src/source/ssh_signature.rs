//! SSH signatures over commits: the SSHSIG container (OpenSSH's PROTOCOL.sshsig), and its check
//! with ring.
//!
//! The crate ssh-key only parses keys here; it could verify too, but not as fast, and it does not
//! read certificates.

use reconciler::foreign::ForeignText;
use ring::digest::{SHA256, SHA512, digest};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use ssh_encoding::base64::{Base64, Base64Unpadded, Encoding};
use ssh_encoding::{Decode, Encode, Reader};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, Mpint, Signature};
use thiserror::Error;

/// The first line of an armoured signature; it distinguishes SSH from OpenPGP.
pub(crate) const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
/// The namespace in which Git signs commits.
pub(crate) const NAMESPACE: &str = "git";
/// No key type makes a larger signature; 16384-bit RSA takes 2 KiB for the key and 2 KiB for the
/// signature.
const MAX_ARMOUR_BYTES: usize = 16 * 1024;
/// ring verifies no shorter RSA key.
const MIN_RSA_BITS: usize = 2048;
/// RFC 4251 limits a name to 64 characters.
const TYPE_NAME_BYTES: usize = 64;
/// The bit of a security key's flags which shows that a person touched the key.
const USER_PRESENT: u8 = 1;

/// Why a signature does not count for its commit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum SignatureError {
    /// The signature is not a well-formed SSHSIG.
    #[error("its SSH signature is malformed: {0}")]
    Malformed(&'static str),
    /// The signature was made with a certificate instead of a plain key.
    #[error(
        "it is signed with the certificate type {0}; SSH certificates are not supported yet, sign with a plain key"
    )]
    Certificate(ForeignText),
    /// The signature was made for another use than commits, so it must not count for one.
    #[error("its signature was made for \"{0}\", not for \"git\"")]
    Namespace(ForeignText),
    /// A type of key or signature that this host cannot check.
    #[error("its signature is of the type {0}; use ed25519, ecdsa-sha2-nistp256, -nistp384 or rsa")]
    Unsupported(ForeignText),
    /// The RSA key is too short to be trusted.
    #[error("its RSA key has {0} bits; at least 2048 are needed")]
    WeakKey(usize),
    /// The security key was not touched.
    #[error("its security key signed without being touched")]
    NoUserPresence,
    /// The key did not make this signature over this commit.
    #[error(
        "its signature does not fit its content: the commit was changed after signing, or the key is not the one named"
    )]
    Wrong,
}

/// A parsed SSHSIG.
#[derive(Debug)]
pub(crate) struct SshSignature {
    /// The signing key with its encoding in the signature, by which it is looked up.
    pub(crate) key_blob: Vec<u8>,
    hash: HashAlg,
    signature: Signature,
}

impl SshSignature {
    /// Parses an armoured signature made in the namespace `git`.
    pub(crate) fn parse(armour: &[u8]) -> Result<Self, SignatureError> {
        let bytes = dearmour(armour)?;
        let mut reader = bytes
            .strip_prefix(MAGIC)
            .ok_or(SignatureError::Malformed("no SSHSIG magic"))?;
        let malformed = |what| move |_| SignatureError::Malformed(what);
        let reader = &mut reader;
        if u32::decode(reader).map_err(malformed("no version"))? != VERSION {
            return Err(SignatureError::Malformed("a version other than 1"));
        }

        let key_blob = Vec::<u8>::decode(reader).map_err(malformed("no key"))?;
        let namespace = String::decode(reader).map_err(malformed("no namespace"))?;
        let reserved = Vec::<u8>::decode(reader).map_err(malformed("no reserved field"))?;
        let hash = String::decode(reader).map_err(malformed("no hash algorithm"))?;
        let signature = Vec::<u8>::decode(reader).map_err(malformed("no signature"))?;

        if !reader.is_finished() {
            return Err(SignatureError::Malformed("bytes after its end"));
        }
        if !reserved.is_empty() {
            return Err(SignatureError::Malformed(
                "a reserved field that is not empty",
            ));
        }

        let hash = match hash.as_str() {
            "sha256" => HashAlg::Sha256,
            "sha512" => HashAlg::Sha512,
            _ => {
                return Err(SignatureError::Malformed(
                    "a hash other than sha256 and sha512",
                ));
            }
        };

        let kind =
            String::decode(&mut key_blob.as_slice()).map_err(malformed("a key without a type"))?;
        if kind.contains("-cert-") {
            return Err(SignatureError::Certificate(type_name(&kind)));
        }
        // A signature over a file or an e-mail must not count for a commit with the same bytes.
        if namespace != NAMESPACE {
            return Err(SignatureError::Namespace(type_name(&namespace)));
        }

        let signature = Signature::try_from(signature.as_slice())
            .map_err(|_| SignatureError::Malformed("the signature inside does not parse"))?;
        Ok(Self {
            key_blob,
            hash,
            signature,
        })
    }

    /// The fingerprint of the signing key, as people compare it: `SHA256:...`.
    pub(crate) fn fingerprint(&self) -> String {
        format!(
            "SHA256:{}",
            Base64Unpadded::encode_string(digest(&SHA256, &self.key_blob).as_ref())
        )
    }

    /// Checks the signature over `payload`; the key must be the one of [`Self::key_blob`].
    pub(crate) fn verify(&self, key: &VerifyingKey, payload: &[u8]) -> Result<(), SignatureError> {
        let message = self.signed_message(payload)?;
        key.verify(
            &self.signature.algorithm(),
            self.signature.as_bytes(),
            &message,
        )
    }

    /// The bytes that were signed: magic, namespace, reserved, hash name, hash.
    fn signed_message(&self, payload: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let algorithm = if self.hash == HashAlg::Sha256 {
            &SHA256
        } else {
            &SHA512
        };
        let mut message = MAGIC.to_vec();
        let fields = [
            NAMESPACE.as_bytes(),
            b"",
            self.hash.as_str().as_bytes(),
            digest(algorithm, payload).as_ref(),
        ]
        .map(<[u8]>::to_vec);
        for field in fields {
            field
                .encode(&mut message)
                .map_err(|_| SignatureError::Malformed("it does not encode"))?;
        }
        Ok(message)
    }
}

/// The name of a type or a namespace in a signature: foreign text of the signer.
fn type_name(text: &str) -> ForeignText {
    ForeignText::bounded(text, TYPE_NAME_BYTES)
}

/// A public key, ready to verify with.
#[derive(Clone, Debug)]
pub(crate) enum VerifyingKey {
    /// ssh-ed25519.
    Ed25519([u8; 32]),
    /// ecdsa-sha2-nistp256 or -nistp384, as a SEC1 point.
    Ecdsa(Curve, Vec<u8>),
    /// ssh-rsa: modulus and exponent, big endian, without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
    /// sk-ssh-ed25519: the key and its application.
    SecurityKeyEd25519([u8; 32], String),
    /// sk-ecdsa-sha2-nistp256: the point and its application.
    SecurityKeyP256(Vec<u8>, String),
    /// A type that may be listed and whose signatures are never accepted.
    Unsupported(String),
}

/// The curves that ring verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    /// NIST P-256 with SHA-256.
    P256,
    /// NIST P-384 with SHA-384.
    P384,
}

impl VerifyingKey {
    /// Converts a parsed key.
    pub(crate) fn new(key: &KeyData) -> Self {
        match key {
            KeyData::Ed25519(key) => Self::Ed25519(key.0),
            KeyData::SkEd25519(key) => {
                Self::SecurityKeyEd25519(key.public_key().0, key.application().to_owned())
            }
            KeyData::SkEcdsaSha2NistP256(key) => Self::SecurityKeyP256(
                key.ec_point().as_ref().to_vec(),
                key.application().to_owned(),
            ),
            KeyData::Ecdsa(key) => match key.curve() {
                EcdsaCurve::NistP256 => Self::Ecdsa(Curve::P256, key.as_sec1_bytes().to_vec()),
                EcdsaCurve::NistP384 => Self::Ecdsa(Curve::P384, key.as_sec1_bytes().to_vec()),
                EcdsaCurve::NistP521 => Self::Unsupported(key.algorithm().as_str().to_owned()),
            },
            KeyData::Rsa(key) => match (key.n.as_positive_bytes(), key.e.as_positive_bytes()) {
                (Some(n), Some(e)) => Self::Rsa(n.to_vec(), e.to_vec()),
                _ => Self::Unsupported("ssh-rsa with a negative number".to_owned()),
            },
            other => Self::Unsupported(other.algorithm().as_str().to_owned()),
        }
    }

    fn verify(
        &self,
        algorithm: &Algorithm,
        signature: &[u8],
        message: &[u8],
    ) -> Result<(), SignatureError> {
        match (self, algorithm) {
            (Self::Ed25519(key), Algorithm::Ed25519) => {
                check(&signature::ED25519, key, message, signature)
            }
            (
                Self::Ecdsa(Curve::P256, point),
                Algorithm::Ecdsa {
                    curve: EcdsaCurve::NistP256,
                },
            ) => check(
                &signature::ECDSA_P256_SHA256_FIXED,
                point,
                message,
                &fixed_width(signature, 32)?,
            ),
            (
                Self::Ecdsa(Curve::P384, point),
                Algorithm::Ecdsa {
                    curve: EcdsaCurve::NistP384,
                },
            ) => check(
                &signature::ECDSA_P384_SHA384_FIXED,
                point,
                message,
                &fixed_width(signature, 48)?,
            ),
            (Self::Rsa(n, e), Algorithm::Rsa { hash: Some(hash) }) => {
                verify_rsa(n, e, *hash, signature, message)
            }
            (Self::SecurityKeyEd25519(key, application), Algorithm::SkEd25519) => {
                let (signature, message) = security_key_parts(application, signature, message)?;
                check(&signature::ED25519, key, &message, signature)
            }
            (Self::SecurityKeyP256(point, application), Algorithm::SkEcdsaSha2NistP256) => {
                let (signature, message) = security_key_parts(application, signature, message)?;
                let signature = fixed_width(signature, 32)?;
                check(
                    &signature::ECDSA_P256_SHA256_FIXED,
                    point,
                    &message,
                    &signature,
                )
            }
            (Self::Unsupported(kind), _) => Err(SignatureError::Unsupported(type_name(kind))),
            _ => Err(SignatureError::Unsupported(type_name(algorithm.as_str()))),
        }
    }
}

fn check(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    UnparsedPublicKey::new(algorithm, key)
        .verify(message, signature)
        .map_err(|_| SignatureError::Wrong)
}

fn verify_rsa(
    n: &[u8],
    e: &[u8],
    hash: HashAlg,
    signature: &[u8],
    message: &[u8],
) -> Result<(), SignatureError> {
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if bits < MIN_RSA_BITS {
        return Err(SignatureError::WeakKey(bits));
    }

    let parameters = match hash {
        HashAlg::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        HashAlg::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        other => {
            return Err(SignatureError::Unsupported(type_name(&format!(
                "rsa with {}",
                other.as_str()
            ))));
        }
    };

    // OpenSSH accepts signatures without their leading zeros; ring requires the width of the
    // modulus.
    let mut padded = vec![0; n.len().saturating_sub(signature.len())];
    padded.extend_from_slice(signature);
    RsaPublicKeyComponents { n, e }
        .verify(parameters, message, &padded)
        .map_err(|_| SignatureError::Wrong)
}

/// SSH writes r and s as two numbers of any length; ring requires both in a row with `width` bytes
/// each.
fn fixed_width(signature: &[u8], width: usize) -> Result<Vec<u8>, SignatureError> {
    let malformed = SignatureError::Malformed("an ECDSA signature without r and s");
    let mut reader = signature;
    let mut fixed = Vec::with_capacity(2 * width);
    for _ in 0..2 {
        let number = Mpint::decode(&mut reader).map_err(|_| malformed.clone())?;
        let bytes = number
            .as_positive_bytes()
            .ok_or_else(|| malformed.clone())?;
        let padding = width
            .checked_sub(bytes.len())
            .ok_or_else(|| malformed.clone())?;
        fixed.resize(fixed.len() + padding, 0);
        fixed.extend_from_slice(bytes);
    }
    if reader.is_empty() {
        Ok(fixed)
    } else {
        Err(malformed)
    }
}

/// A security key signs over its application, flags and counter too (PROTOCOL.u2f); ssh-key returns
/// the last two as the final five bytes of the signature.
fn security_key_parts<'a>(
    application: &str,
    signature: &'a [u8],
    message: &[u8],
) -> Result<(&'a [u8], Vec<u8>), SignatureError> {
    let length = signature
        .len()
        .checked_sub(5)
        .ok_or(SignatureError::Malformed("a short security key signature"))?;
    let (signature, trailer) = signature.split_at(length);
    if trailer
        .first()
        .is_none_or(|flags| flags & USER_PRESENT == 0)
    {
        return Err(SignatureError::NoUserPresence);
    }

    let mut signed = digest(&SHA256, application.as_bytes()).as_ref().to_vec();
    signed.extend_from_slice(trailer);
    signed.extend_from_slice(digest(&SHA256, message).as_ref());
    Ok((signature, signed))
}

/// The bytes of an armoured signature.
fn dearmour(armour: &[u8]) -> Result<Vec<u8>, SignatureError> {
    if armour.len() > MAX_ARMOUR_BYTES {
        return Err(SignatureError::Malformed("larger than 16 KiB"));
    }
    let text = std::str::from_utf8(armour).map_err(|_| SignatureError::Malformed("not text"))?;
    // As ssh-keygen: END stands at the beginning of a line. BEGIN ends its line here, too: what
    // ssh-keygen itself writes has no other form.
    let body = text
        .trim_ascii_end()
        .strip_prefix(BEGIN)
        .and_then(|text| text.strip_suffix(END))
        .filter(|body| body.starts_with('\n') && body.ends_with('\n'))
        .ok_or(SignatureError::Malformed("no BEGIN and END lines"))?;
    let packed: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    Base64::decode_vec(&packed).map_err(|_| SignatureError::Malformed("not base64"))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
