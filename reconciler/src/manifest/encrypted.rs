//! Files encrypted by SOPS: they are not manifests until they are decrypted.

use serde_json::Value;

use super::at::At;

/// The beginning of the text that SOPS writes in place of a value.
const OPENS: &str = "ENC[AES256_GCM,";

/// What to do with a file that SOPS encrypted. The text never suggests removing the mark or moving
/// the value: either would start containers with the cipher text as their secret.
pub(super) const INSTEAD: &str = "decrypting on the host is not supported yet; commit it decrypted where only those who \
                                  may know its values can read the repository, or keep this document out of the \
                                  configured paths, and what uses it too";

/// Whether a text is the cipher text of a value that SOPS encrypted.
pub(super) fn is_cipher_text(text: &str) -> bool {
    text.trim()
        .strip_prefix(OPENS)
        .is_some_and(|rest| rest.ends_with(']'))
}

/// Whether SOPS encrypted a document: SOPS adds a mapping `sops` with the data that decryption
/// needs.
pub(super) fn is_marked(document: &Value) -> bool {
    document.get("sops").is_some_and(Value::is_object)
}

/// Refuses every value that SOPS encrypted, in a document without SOPS's mark.
///
/// Values of a Secret's `data` are not checked here: they are invalid base64 and reported as such.
pub(super) fn refuse_cipher_texts(value: &Value, at: &At<'_>) {
    match value {
        Value::String(text) if is_cipher_text(text) => {
            at.error_in_new_heads(format_args!(
                "this value is encrypted by SOPS, and {INSTEAD}"
            ));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                refuse_cipher_texts(item, &at.index(index));
            }
        }
        Value::Object(entries) => {
            for (key, entry) in entries {
                refuse_cipher_texts(entry, &at.field(key));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cipher_texts_are_recognized() {
        assert!(is_cipher_text(
            "ENC[AES256_GCM,data:AAAA,iv:AAAA,tag:AAAA,type:str]"
        ));
        assert!(is_cipher_text("ENC[AES256_GCM,data:AA\n,type:str]\n"));
        for plain in [
            "",
            "ENC[]",
            "see ENC[AES256_GCM,data:AAAA]",
            "ENC[AES256_GCM,data:AAAA",
        ] {
            assert!(!is_cipher_text(plain), "{plain}");
        }
    }
}
