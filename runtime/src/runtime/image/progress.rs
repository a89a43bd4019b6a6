//! How far the pulls under way are, for people who wait for them.

use std::{collections::BTreeMap, fmt};

use bollard::models::CreateImageInfo;
use serde::{Deserialize, Serialize};

/// The most layers whose bytes are counted: the manifest of a stranger decides on their number.
const LAYERS: usize = 256;
const MIB: u64 = 1 << 20;

/// A pull under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePull {
    /// The image, with its registry and its tag or digest.
    pub image: String,
    /// What the engine does for it.
    pub stage: PullStage,
    /// The bytes that the registry has sent, compressed.
    pub received_bytes: u64,
    /// The bytes of all layers that are not on this host yet; absent until the registry has named
    /// the size of each.
    pub total_bytes: Option<u64>,
}

/// What the engine does for a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullStage {
    /// It waits for other pulls, or for the first answer of the registry.
    Waiting,
    /// The registry sends layers.
    Downloading,
    /// All layers are received, and are being unpacked.
    Unpacking,
}

impl fmt::Display for ImagePull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.image)?;
        let received = mib(self.received_bytes);
        match (self.stage, self.total_bytes) {
            (PullStage::Waiting, _) => write!(f, " (waiting)"),
            (PullStage::Downloading, Some(total)) => {
                write!(f, " ({received} of {} MiB)", mib(total))
            }
            (PullStage::Downloading, None) => write!(f, " ({received} MiB)"),
            (PullStage::Unpacking, _) => write!(f, " ({received} MiB, unpacking)"),
        }
    }
}

/// One decimal place, rounded up, so that a pull that has begun is not shown as nothing.
fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(MIB);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// The layers of one pull that are not on this host yet, by their short digests.
#[derive(Debug, Default)]
pub(super) struct Progress(BTreeMap<String, Layer>);

#[derive(Debug, Default)]
struct Layer {
    received: u64,
    total: Option<u64>,
    is_here: bool,
}

impl Progress {
    /// Takes a line of the engine's answer into account.
    pub(super) fn take(&mut self, line: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&line.id, &line.status) else {
            return;
        };
        let is_known = self.0.contains_key(id);
        if !is_known && self.0.len() == LAYERS {
            return;
        }
        match status.as_str() {
            "Pulling fs layer" | "Waiting" => {
                self.0.entry(id.clone()).or_default();
            }
            "Downloading" => {
                let layer = self.0.entry(id.clone()).or_default();
                let detail = line.progress_detail.clone().unwrap_or_default();
                let bytes = |number: Option<i64>| number.and_then(|one| u64::try_from(one).ok());
                layer.received = bytes(detail.current).unwrap_or(layer.received);
                layer.total = bytes(detail.total)
                    .filter(|&total| total > 0)
                    .or(layer.total);
            }
            // A layer that was here already is not among the layers of the pull.
            "Download complete" | "Pull complete" if is_known => {
                let layer = self.0.entry(id.clone()).or_default();
                layer.received = layer.total.unwrap_or(layer.received);
                layer.total = Some(layer.received);
                layer.is_here = true;
            }
            _ => {}
        }
    }

    /// The progress of the pull of this image.
    pub(super) fn of(&self, image: &str) -> ImagePull {
        let layers = self.0.values();
        let stage = if self.0.is_empty() {
            PullStage::Waiting
        } else if layers.clone().all(|layer| layer.is_here) {
            PullStage::Unpacking
        } else {
            PullStage::Downloading
        };
        let received = layers.clone().map(|layer| layer.received);
        let totals: Option<Vec<u64>> = layers.map(|layer| layer.total).collect();
        let sum = |bytes: Vec<u64>| bytes.into_iter().fold(0, u64::saturating_add);
        ImagePull {
            image: image.to_owned(),
            stage,
            received_bytes: sum(received.collect()),
            total_bytes: totals.filter(|totals| !totals.is_empty()).map(sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    fn line(id: &str, status: &str, bytes: Option<(i64, i64)>) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: bytes.map(|(current, total)| ProgressDetail {
                current: Some(current),
                total: Some(total),
            }),
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn the_lines_of_the_engine_become_bytes_and_a_stage() {
        let mut progress = Progress::default();
        let mut after = |line: CreateImageInfo| {
            progress.take(&line);
            progress.of("registry.example.com/web:3").to_string()
        };
        let web = |rest: &str| format!("registry.example.com/web:3 ({rest})");
        for (line, shown) in [
            (line("3", "Pulling from web", None), "waiting"),
            (line("a", "Already exists", None), "waiting"),
            (line("b", "Pulling fs layer", None), "0.0 MiB"),
            (line("c", "Pulling fs layer", None), "0.0 MiB"),
            (line("b", "Downloading", Some((1, 3 << 20))), "0.1 MiB"),
            (
                line("c", "Downloading", Some((1 << 20, 2 << 20))),
                "1.1 of 5.0 MiB",
            ),
            (line("c", "Download complete", None), "2.1 of 5.0 MiB"),
            // A registry that names no size, or a wrong one.
            (
                line("b", "Downloading", Some((4 << 20, -1))),
                "6.0 of 5.0 MiB",
            ),
            (line("b", "Download complete", None), "5.0 MiB, unpacking"),
            (line("b", "Extracting", Some((1, 7))), "5.0 MiB, unpacking"),
            (line("b", "Pull complete", None), "5.0 MiB, unpacking"),
        ] {
            assert_eq!(after(line.clone()), web(shown), "{line:?}");
        }
    }

    #[test]
    fn endless_layers_and_sizes_are_bounded() {
        let mut progress = Progress::default();
        for number in 0..10_000 {
            let bytes = Some((i64::MAX, i64::MAX));
            progress.take(&line(&number.to_string(), "Downloading", bytes));
        }
        assert_eq!(progress.0.len(), LAYERS);
        let pull = progress.of("web");
        assert_eq!(pull.received_bytes, u64::MAX);
        assert_eq!(pull.total_bytes, Some(u64::MAX));
        assert!(pull.to_string().starts_with("web ("));
    }
}
