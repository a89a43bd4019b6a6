//! The sandbox's image: one static program inside of this binary, loaded into an engine that does
//! not have it.

use std::{env::consts::ARCH, sync::LazyLock};

use bollard::{body_full, query_parameters::ImportImageOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt};
use ring::digest;

use crate::docker::{CallError, Engine};

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
/// The repository of the sandbox's image; `uninstall` removes all its tags.
pub(crate) const REPOSITORY: &str = "windlass-pause";
const BLOCK: usize = 512;

/// The tag is computed from the content: another program is another image, and no image is ever
/// replaced.
static NAME: LazyLock<String> =
    LazyLock::new(|| format!("{REPOSITORY}:{}", &sha256(PROGRAM)[..12]));

/// The image's repository with its tag.
pub(crate) fn image_name() -> &'static str {
    &NAME
}

/// Loads the image into the engine. The image has the same id every time, so loading it twice, even
/// concurrently, has no further effect.
pub(crate) async fn load(engine: &Engine) -> Result<(), CallError> {
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    engine
        .call_within(engine.start_timeout, |docker| async move {
            docker
                .import_image(options, body_full(archive().into()), None)
                .boxed()
                .try_collect::<Vec<_>>()
                .await
        })
        .await
        .map(drop)
}

/// The output of `docker save`: a layer with the only file `pause`, a configuration, and a manifest
/// that lists them.
fn archive() -> Vec<u8> {
    let layer = tar(&[("pause", PROGRAM, 0o755)]);
    let architecture = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": { "Entrypoint": ["/pause"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
    })
    .to_string();
    let config_name = format!("{}.json", sha256(config.as_bytes()));
    let manifest = serde_json::json!([{ "Config": config_name, "RepoTags": [image_name()], "Layers": ["layer.tar"] }]);
    tar(&[
        ("layer.tar", &layer, 0o644),
        (&config_name, config.as_bytes(), 0o644),
        ("manifest.json", manifest.to_string().as_bytes(), 0o644),
    ])
}

/// A ustar archive of files with short names.
fn tar(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content, mode) in files {
        archive.extend_from_slice(&header(name, content.len(), *mode));
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end an archive.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

/// The header of a file in a ustar archive (POSIX.1-2001, pax): name, mode, owner, group, size, time
/// and kind, numbers in octal.
fn header(name: &str, size: usize, mode: u32) -> [u8; BLOCK] {
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    // The sum over the header counts its own field as spaces.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn sha256(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
