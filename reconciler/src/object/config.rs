//! ConfigMaps, Secrets, and values that must not be shown.

use std::{collections::BTreeMap, fmt};

use super::Meta;

/// A value that may be a secret: it has no `Display` and no serde, and `Debug` prints a
/// placeholder.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Sensitive<T>(T);

impl<T> Sensitive<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the code that must pass it on.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A ConfigMap: `data` and `binaryData` in one map of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// `metadata`.
    pub meta: Meta,
    /// Content of each key.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// A Secret: `data` decoded from base64, overridden by `stringData`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secret {
    /// `metadata`.
    pub meta: Meta,
    /// `type`, `Opaque` by default.
    pub kind: String,
    /// Content of each key.
    pub data: BTreeMap<String, Sensitive<Vec<u8>>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensitive_value_is_exposed_and_never_printed() {
        let password = Sensitive::new("secret".to_owned());
        assert_eq!(password.expose(), "secret");
        assert_eq!(format!("{password:?}"), "(hidden)");
    }
}
