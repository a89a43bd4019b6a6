//! The sandbox's image: one static program, carried inside this one and imported when an engine does not have it.

use std::sync::LazyLock;

use bollard::{body_full, query_parameters::CreateImageOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt};
use ring::digest;

use crate::docker::{CallError, Engine};

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
pub(crate) const REPOSITORY: &str = "windlass-pause";

/// Named by its content: another program is another image, and none is ever replaced.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let digest = digest::digest(&digest::SHA256, PROGRAM);
    digest.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
});
static NAME: LazyLock<String> = LazyLock::new(|| format!("{REPOSITORY}:{}", *TAG));

/// The image's name with its tag.
pub(crate) fn image_name() -> &'static str {
    &NAME
}

/// Gives the image to the engine. Done twice at the same time it is there all the same.
pub(crate) async fn import(engine: &Engine) -> Result<(), CallError> {
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(REPOSITORY).tag(&TAG).build();
    engine
        .call_within(engine.start_timeout, |docker| async move {
            docker
                .create_image(Some(options), Some(body_full(archive().into())), None)
                .boxed()
                .try_collect::<Vec<_>>()
                .await
        })
        .await
        .map(drop)
}

/// A ustar archive with the one file `pause`.
fn archive() -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"pause");
    put(100, b"0000755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", PROGRAM.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = Vec::with_capacity(PROGRAM.len() + 4 * BLOCK);
    archive.extend_from_slice(&header);
    archive.extend_from_slice(PROGRAM);
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}
