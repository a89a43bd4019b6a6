//! Packs and indexes of any bytes: the work is bounded, and the header of an object equals what
//! libgit2 would read.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

use git2::Odb;
use proptest::prelude::*;

use super::*;
use crate::fuzz::Fuzz;

const MOST_OBJECTS: u64 = 40;

#[test]
fn any_pack_is_refused_or_its_headers_are_those_that_libgit2_reads() {
    // A file of the corpus is a pack, followed by its index.
    let words = ["PACK\0\0\0\x02", "\0\0\0\x01", "\0\0\0\0", "x\x01\x01\0\0"];
    Fuzz::new("src/source/pack/corpus", &words).run(|bytes| {
        let starts = |window: &[u8]| window == INDEX_START;
        let index = bytes.windows(INDEX_START.len()).rposition(starts);
        let (pack, index) = bytes.split_at(index.unwrap_or(bytes.len()));

        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("pack")).unwrap();
        let (pack_path, index_path) = (path("pack/pack-1.pack"), path("pack/pack-1.idx"));
        std::fs::write(&pack_path, pack).unwrap();
        std::fs::write(&index_path, index).unwrap();
        let read: Vec<ObjectHeader> = match headers(&pack_path, &index_path, MOST_OBJECTS) {
            Ok(headers) => headers.collect(),
            Err(error) => {
                prop_assert!(!matches!(error, PackError::Io { .. }), "{error:?}");
                prop_assert!(error.to_string().len() < 200);
                return Ok(false);
            }
        };

        let ids: BTreeSet<Oid> = read.iter().map(|header| header.id).collect();
        prop_assert!(ids.len() == read.len() && read.len() as u64 <= MOST_OBJECTS);
        let database = Odb::new().unwrap();
        database
            .add_disk_alternate(directory.path().to_str().unwrap())
            .unwrap();
        for header in &read {
            if let Ok((bytes, kind)) = database.read_header(header.id) {
                prop_assert_eq!((bytes as u64, kind), (header.bytes, header.kind));
            }
        }
        Ok(true)
    });
}
