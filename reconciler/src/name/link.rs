//! The names of the links of pods.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of the host's side of a pod's link: `wdl` and eleven digits of a hash of the pod's uid,
/// see [`link_name`](crate::pod::link::link_name).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkName(String);

impl LinkName {
    /// What all names of links begin with, and no other device of the host: everything that has
    /// such a name is changed and removed as ours.
    pub const PREFIX: &str = "wdl";

    /// The name with these digits of a hash.
    pub(crate) fn with_digits(digits: &str) -> Self {
        Self(format!("{}{digits}", Self::PREFIX))
    }

    /// The name of a device of the host; `None` if that device is not the link of a pod.
    pub fn parse(device: &str) -> Option<Self> {
        if device.starts_with(Self::PREFIX) {
            Some(Self(device.to_owned()))
        } else {
            None
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkName({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_of_a_pod_is_a_link() {
        let link = LinkName::with_digits("0123456789");
        assert_eq!(LinkName::parse(link.as_str()).as_ref(), Some(&link));
        assert_eq!(link.to_string(), link.as_str());
        assert_eq!(link.as_str(), "wdl0123456789");
        assert_eq!(format!("{link:?}"), "LinkName(wdl0123456789)");
        assert_eq!(LinkName::parse("eth0"), None);
    }
}
