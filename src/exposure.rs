//! Whether an installation keeps its pods, Services and DNS open to the host's network, because it
//! is older than the setting `network.expose`.
//!
//! A new installation writes a record before anything else; so does an older one as soon as the
//! setting is written. An installation without the record and without the setting stays open, so
//! that an upgrade cuts no client off.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use netfilter::{Exposed, Exposure};
use serde::{Deserialize, Serialize};

use crate::{
    state_file::{self, StateFileError},
    store::LocalStore,
};

const SCHEMA: u32 = 1;

/// `exposure.json`: its presence says that what the configuration does not open is closed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ExposureRecord {}

/// What is open by the configuration and the data directory. Changes nothing.
pub(crate) fn find(
    data: &Path,
    setting: Option<&BTreeSet<Exposed>>,
) -> Result<Exposure, StateFileError> {
    if let Some(parts) = setting {
        return Ok(Exposure::Only(parts.clone()));
    }
    let is_recorded = state_file::read::<ExposureRecord>(&path(data), SCHEMA)?.is_some();
    if is_recorded || !LocalStore::is_in(data) {
        return Ok(Exposure::Only(BTreeSet::new()));
    }
    Ok(Exposure::Unset)
}

/// The same, with the record that makes it last. To be called before the installation's own files
/// are made.
pub(crate) fn settle(
    data: &Path,
    setting: Option<&BTreeSet<Exposed>>,
) -> Result<Exposure, StateFileError> {
    let exposure = find(data, setting)?;
    match exposure {
        Exposure::Only(_) if !path(data).exists() => {
            state_file::write(&path(data), SCHEMA, &ExposureRecord {})?;
        }
        Exposure::Only(_) | Exposure::Unset => {}
    }
    Ok(exposure)
}

fn path(data: &Path) -> PathBuf {
    data.join("exposure.json")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use reconciler::name::NodeName;

    use super::*;

    const NOTHING: Exposure = Exposure::Only(BTreeSet::new());

    fn install(data: &Path) {
        LocalStore::open(data, &NodeName::new("n1")).unwrap();
    }

    #[test]
    fn a_new_installation_is_closed_and_stays_so() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(settle(data.path(), None).unwrap(), NOTHING);
        install(data.path());
        assert_eq!(settle(data.path(), None).unwrap(), NOTHING);
    }

    #[test]
    fn an_installation_from_before_is_open_until_the_setting_was_written_once() {
        let data = tempfile::tempdir().unwrap();
        install(data.path());
        assert_eq!(settle(data.path(), None).unwrap(), Exposure::Unset);
        assert_eq!(settle(data.path(), None).unwrap(), Exposure::Unset);

        let setting = BTreeSet::from([Exposed::Dns]);
        assert_eq!(
            settle(data.path(), Some(&setting)).unwrap(),
            Exposure::Only(setting)
        );
        assert_eq!(settle(data.path(), None).unwrap(), NOTHING);
    }

    #[test]
    fn looking_records_nothing() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(find(data.path(), Some(&BTreeSet::new())).unwrap(), NOTHING);
        install(data.path());
        assert_eq!(find(data.path(), None).unwrap(), Exposure::Unset);
    }
}
