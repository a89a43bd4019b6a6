//! `net.ipv4.ip_forward`: shared with the host, enabled by Windlass, restored by `uninstall`.

use std::{fs, path::Path};

use crate::{error::NetworkError, record::RecordFile};

const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Ensures that the host forwards packets. The old value is saved on disk before the change. True
/// if the setting was changed.
pub(crate) fn ensure(record: &RecordFile) -> Result<bool, NetworkError> {
    let value = read()?;
    if value == "1" {
        return Ok(false);
    }
    if record.read()?.is_none() {
        record.write(&value)?;
    }
    write("1")?;
    Ok(true)
}

/// Restores the recorded value; `None` if Windlass never changed it.
pub(crate) fn restore(record: &RecordFile) -> Result<Option<String>, NetworkError> {
    let Some(recorded) = record.read()? else {
        return Ok(None);
    };
    write(&recorded.ip_forward)?;
    record.remove()?;
    Ok(Some(recorded.ip_forward))
}

fn read() -> Result<String, NetworkError> {
    fs::read_to_string(SETTING)
        .map(|value| value.trim().to_owned())
        .map_err(|source| NetworkError::Sysctl {
            path: Path::new(SETTING).to_owned(),
            source,
        })
}

fn write(value: &str) -> Result<(), NetworkError> {
    fs::write(SETTING, value).map_err(|source| NetworkError::Sysctl {
        path: Path::new(SETTING).to_owned(),
        source,
    })
}
