//! `sha256=<hex>`: HMAC-SHA256 over the body, compared in constant time.

use ring::hmac;

/// The shared secret, as a key.
pub(super) struct WebhookKey(hmac::Key);

impl WebhookKey {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Whether the header is the signature of this body.
    pub(super) fn signed(&self, body: &[u8], header: &str) -> bool {
        let tag = header.trim().strip_prefix("sha256=").and_then(decode);
        tag.is_some_and(|tag| hmac::verify(&self.0, body, &tag).is_ok())
    }
}

/// Decodes 64 hexadecimal digits.
fn decode(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in GitHub's documentation.
    #[test]
    fn githubs_own_example_is_signed() {
        let secret = WebhookKey::new(b"It's a Secret to Everybody");
        let header = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(secret.signed(b"Hello, World!", header));
        assert!(!secret.signed(b"Hello, World?", header));
        assert!(!secret.signed(b"Hello, World!", &header.replace('7', "8")));
        for header in [
            "",
            "sha256=",
            "sha256=zz",
            "sha1=757107ea",
            "sha256=é57107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e1",
        ] {
            assert!(!secret.signed(b"Hello, World!", header), "{header}");
        }
    }
}
