//! Removes all objects of Windlass from the host's network, and restores the settings that Windlass
//! changed.

use std::path::Path;

use crate::{
    accept, device,
    error::NetworkError,
    forwarding, link,
    netlink::Socket,
    nft,
    overlay::OVERLAY_DEVICE,
    record::RecordFile,
    route::{self, SERVICE_DEVICE},
    table::TABLE,
};

use super::blocking;

/// The result of [`uninstall`]. A failure does not keep the rest from being removed.
#[derive(Debug, Default)]
pub struct Removed {
    /// What was removed or restored, one text for each object.
    pub done: Vec<String>,
    /// The errors of what could not be removed or restored.
    pub failed: Vec<NetworkError>,
}

impl Removed {
    fn note(&mut self, result: Result<Vec<String>, NetworkError>) {
        match result {
            Ok(done) => self.done.extend(done),
            Err(error) => self.failed.push(error),
        }
    }
}

/// Removes the table, the accept rules, the pod links, the two devices and the routes of Windlass,
/// and restores `ip_forward` to the recorded value. It needs no daemon, and a second run removes
/// nothing.
pub async fn uninstall(record: &Path) -> Removed {
    let mut removed = Removed::default();
    let table = nft::remove().await;
    removed.note(table.map(|existed| {
        if existed {
            vec![format!("nftables table ip {TABLE}")]
        } else {
            Vec::new()
        }
    }));

    let rules = accept::remove().await;
    removed.note(rules.map(|rules| rules.iter().map(ToString::to_string).collect()));
    removed.note(blocking(remove_links).await);

    // Forwarding is restored last, when no object of Windlass needs it any more.
    let record = RecordFile::at(record);
    removed.note(forwarding::restore(&record).map(|value| {
        value
            .map(|value| format!("net.ipv4.ip_forward restored to {value}"))
            .into_iter()
            .collect()
    }));
    removed
}

/// Routes are removed with their links; the remaining ones are removed one by one.
fn remove_links() -> Result<Vec<String>, NetworkError> {
    let socket = Socket::route().map_err(NetworkError::Netlink)?;
    let mut names: Vec<String> = link::pod_links(&socket)?
        .into_iter()
        .map(|(_, link)| link.name)
        .collect();
    for device in [OVERLAY_DEVICE, SERVICE_DEVICE] {
        let device = device::find(&socket, device).map_err(|source| NetworkError::List {
            what: "links",
            source,
        })?;
        names.extend(device.map(|device| device.name));
    }

    let mut done = Vec::new();
    for name in names {
        device::remove(&socket, &name).map_err(|source| NetworkError::Disconnect {
            link: name.clone(),
            source,
        })?;
        done.push(format!("link {name}"));
    }
    done.extend(route::remove_all(&socket)?);
    Ok(done)
}
