//! The bounds of a container's log.

use std::{collections::BTreeMap, fs, path::Path};

use futures_util::StreamExt;
use runtime::{LogBounds, LogOptions};

use crate::bed::{Bed, docker, within};

const LINES: usize = 3_000;

/// The numbers of the lines in a log's text.
fn numbers(text: &str) -> Vec<usize> {
    let words = text.lines().filter_map(|line| line.split(' ').nth(1));
    words.map(|number| number.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_keeps_to_its_bounds_and_is_followed_beyond_them() {
    let bounds = LogBounds {
        max_bytes: 64 * 1024,
        max_files: 2,
    };
    let bed = Bed::with(|config| config.logs = bounds).await;
    // A pause after each hundred lines: whoever follows must not be slower than the rotation.
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do echo \"line $i {}\"; i=$((i+1)); \
         [ $((i%100)) -ne 0 ] || sleep 0.1; done; exec sleep 1000",
        "x".repeat(60)
    );
    let id = bed.pod("talker", &script).await;

    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let mut log = bed.runtime.logs(&id, options).await.unwrap();
    let mut text = String::new();
    within("the last line", async {
        while !text.contains(&format!("line {} ", LINES - 1)) {
            let part = log.next().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&part).unwrap());
        }
    })
    .await;
    assert_eq!(numbers(&text), (0..LINES).collect::<Vec<_>>());

    let path = docker(&["inspect", "-f", "{{.LogPath}}", id.as_str()]);
    let directory = Path::new(&path).parent().unwrap();
    let files: BTreeMap<String, u64> = fs::read_dir(directory)
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| (entry.file_name().into_string().unwrap(), entry))
        .filter(|(name, _)| name.contains("-json.log"))
        .map(|(name, entry)| (name, entry.metadata().unwrap().len()))
        .collect();
    assert_eq!(files.len(), 2, "{files:?}");
    // The engine begins the next file after the line that fills one.
    assert!(
        files.values().all(|bytes| *bytes < bounds.max_bytes + 1024),
        "{files:?}"
    );

    // What is left is the end, without a gap.
    let log = bed.runtime.logs(&id, LogOptions::default()).await.unwrap();
    let parts: Vec<_> = log.collect().await;
    let bytes: Vec<u8> = parts.into_iter().flat_map(|part| part.unwrap()).collect();
    let left = numbers(std::str::from_utf8(&bytes).unwrap());
    let first = *left.first().unwrap();
    assert!(first > 0, "no file was removed");
    assert_eq!(left, (first..LINES).collect::<Vec<_>>());
}
