//! The headers of a pack's objects: id, type and inflated size of each, read before any content.
//!
//! A pack of an untrusted remote may hold an object of a gigabyte in a megabyte, also hidden as the
//! base of a small delta. Here only the first bytes of a delta are inflated, which hold the sizes
//! of its base and its result. Every base must be an object of the same pack that the index names,
//! so that every object is checked.
//!
//! Formats: gitformat-pack(5).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use git2::{ObjectType, Oid};
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_PARSE_ZLIB_HEADER,
    TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use thiserror::Error;

/// The first bytes of an index of version 2.
const INDEX_START: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
/// The end of the 256 counters by which an index begins.
const FANOUT_END: usize = 8 + 256 * 4;
/// The size of a SHA-1 object id.
const ID: usize = 20;
/// An id, a checksum, an offset, and for packs over 2 GiB a long offset.
const INDEX_BYTES_PER_OBJECT: u64 = 20 + 4 + 4 + 8;
/// The problem of an index that ends early or has another format.
const INCOMPLETE_INDEX: &str = "its index is not complete";
/// Git itself makes no longer chains of deltas.
const MAX_DELTA_DEPTH: usize = 4095;
/// Two sizes of at most 64 bits, with seven bits in a byte.
const DELTA_START: usize = 20;
/// Only the beginning of a compressed delta is available.
const INFLATE_FLAGS: u32 = TINFL_FLAG_PARSE_ZLIB_HEADER
    | TINFL_FLAG_HAS_MORE_INPUT
    | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
/// The number of bytes read at once; entries are read in the order of their offsets.
const WINDOW: usize = 64 * 1024;
/// The most bytes of an entry that are read: its header, its base, and the compressed start of a
/// delta.
const ENTRY_START: usize = 2048;

/// Why a pack's headers could not be read. No content of such a pack may be read.
#[derive(Debug, Error)]
pub(crate) enum PackError {
    /// The pack or its index cannot be read from disk.
    #[error("read {path}")]
    Io { path: String, source: io::Error },
    /// The file is not a pack as Git makes it.
    #[error("the pack is malformed: {0}")]
    Malformed(&'static str),
    /// The pack holds more objects than a fetch may download.
    #[error("the pack holds {objects} objects, and a fetch may bring {limit}")]
    TooMany {
        /// The number of objects by the pack's header.
        objects: u64,
        /// The largest accepted number of objects.
        limit: u64,
    },
}

/// The facts about an object that are known without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectHeader {
    /// The id by the index.
    pub(crate) id: Oid,
    /// Commit, tree, blob or tag.
    pub(crate) kind: ObjectType,
    /// The size in bytes, inflated and with the delta resolved.
    pub(crate) bytes: u64,
    /// The size in bytes of the delta that stores the object, inflated; zero if the object is
    /// stored whole.
    pub(crate) delta_bytes: u64,
}

/// Reads the headers of all objects of a pack, in the order of their offsets.
pub(crate) fn headers(
    pack: &Path,
    index: &Path,
    max_objects: u64,
) -> Result<impl Iterator<Item = ObjectHeader>, PackError> {
    let mut entries = read_index(index, max_objects)?;
    entries.sort_unstable_by_key(|entry| entry.offset);
    if entries
        .windows(2)
        .any(|pair| pair[0].offset == pair[1].offset)
    {
        return Err(PackError::Malformed("its index names one entry twice"));
    }

    let failed = |source| PackError::Io {
        path: pack.display().to_string(),
        source,
    };
    let mut window = FileWindow::new(File::open(pack).map_err(failed)?);
    check_pack_header(window.at(0).map_err(failed)?, entries.len())?;

    let mut inflater = DecompressorOxide::new();
    let mut stored = Vec::with_capacity(entries.len());
    for entry in &entries {
        stored.push(read_entry(
            window.at(entry.offset).map_err(failed)?,
            &mut inflater,
        )?);
    }

    let kinds = kinds(&entries, &stored)?;
    Ok(entries
        .into_iter()
        .zip(stored)
        .zip(kinds)
        .map(|((entry, stored), kind)| {
            let (bytes, delta_bytes) = match stored.form {
                EntryForm::Whole(_) => (stored.bytes, 0),
                EntryForm::OffsetDelta { result, .. } | EntryForm::IdDelta { result, .. } => {
                    (result, stored.bytes)
                }
            };
            ObjectHeader {
                id: entry.id,
                kind,
                bytes,
                delta_bytes,
            }
        }))
}

/// An object by the index.
#[derive(Clone, Copy, Debug)]
struct IndexEntry {
    id: Oid,
    offset: u64,
}

/// An object by its entry in the pack.
#[derive(Clone, Copy, Debug)]
struct Stored {
    /// The inflated size of the compressed part: the object, or the delta.
    bytes: u64,
    form: EntryForm,
}

#[derive(Clone, Copy, Debug)]
enum EntryForm {
    Whole(ObjectType),
    /// A delta whose base begins this number of bytes before it.
    OffsetDelta {
        back: u64,
        result: u64,
    },
    /// A delta of the object with this id.
    IdDelta {
        base: Oid,
        result: u64,
    },
}

fn read_index(path: &Path, max_objects: u64) -> Result<Vec<IndexEntry>, PackError> {
    let failed = |source| PackError::Io {
        path: path.display().to_string(),
        source,
    };
    // The size is checked first, since an index is read at once.
    let size = std::fs::symlink_metadata(path).map_err(failed)?.len();
    let most =
        FANOUT_END as u64 + 2 * ID as u64 + max_objects.saturating_mul(INDEX_BYTES_PER_OBJECT);
    if size > most {
        let objects = size / INDEX_BYTES_PER_OBJECT;
        return Err(PackError::TooMany {
            objects,
            limit: max_objects,
        });
    }

    let bytes = std::fs::read(path).map_err(failed)?;
    let count = match number(&bytes, FANOUT_END - 4) {
        Some(count) if bytes.starts_with(&INDEX_START) => count,
        _ => return Err(PackError::Malformed(INCOMPLETE_INDEX)),
    };
    if u64::from(count) > max_objects {
        return Err(PackError::TooMany {
            objects: count.into(),
            limit: max_objects,
        });
    }

    let entries = index_entries(&bytes, count as usize)?;

    // git and libgit2 search an index by bisection: they would not find an id that is out of order.
    if entries.windows(2).any(|pair| pair[0].id >= pair[1].id) {
        return Err(PackError::Malformed("its index is not in order"));
    }
    Ok(entries)
}

/// The entries of an index, in its order. After the counters come the ids, the checksums, the
/// offsets, and the offsets over 2 GiB.
fn index_entries(bytes: &[u8], count: usize) -> Result<Vec<IndexEntry>, PackError> {
    let malformed = || PackError::Malformed(INCOMPLETE_INDEX);
    let offsets = FANOUT_END + count * (ID + 4);
    let long_offsets = offsets + count * 4;
    let mut entries = Vec::with_capacity(count);
    for at in 0..count {
        let (id, offset) = (FANOUT_END + at * ID, number(bytes, offsets + at * 4));
        let (Some(id), Some(offset)) = (bytes.get(id..id + ID), offset) else {
            return Err(malformed());
        };
        // The highest bit marks the place of a long offset.
        let offset = if offset & 0x8000_0000 == 0 {
            u64::from(offset)
        } else {
            let long = long_offsets + (offset & 0x7fff_ffff) as usize * 8;
            let (Some(high), Some(low)) = (number(bytes, long), number(bytes, long + 4)) else {
                return Err(malformed());
            };
            u64::from(high) << 32 | u64::from(low)
        };
        // No file is so large, and the system would report such an offset as an invalid argument.
        if offset >> 62 != 0 {
            return Err(malformed());
        }

        let id = Oid::from_bytes(id)
            .map_err(|_| PackError::Malformed("its index holds no object id"))?;
        entries.push(IndexEntry { id, offset });
    }
    Ok(entries)
}

/// The number in four bytes, big endian.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

fn check_pack_header(start: &[u8], objects: usize) -> Result<(), PackError> {
    let version = start.get(..8);
    if version != Some(b"PACK\0\0\0\x02") && version != Some(b"PACK\0\0\0\x03") {
        return Err(PackError::Malformed("it does not begin as a pack"));
    }
    // The index must name every entry of the pack.
    match number(start, 8) {
        Some(count) if count as usize == objects => Ok(()),
        _ => Err(PackError::Malformed(
            "it holds another number of objects than its index",
        )),
    }
}

fn read_entry(bytes: &[u8], inflater: &mut DecompressorOxide) -> Result<Stored, PackError> {
    let short = || PackError::Malformed("an entry ends early");
    let mut rest = bytes;
    let mut byte = next_byte(&mut rest).ok_or_else(short)?;
    let kind = (byte >> 4) & 7;
    let mut size = u64::from(byte & 15);
    let mut shift = 4;
    while byte & 0x80 != 0 {
        byte = next_byte(&mut rest).ok_or_else(short)?;
        if shift > 53 {
            return Err(PackError::Malformed("an entry has an impossible size"));
        }
        size |= u64::from(byte & 0x7f) << shift;
        shift += 7;
    }

    let form = match kind {
        1 => EntryForm::Whole(ObjectType::Commit),
        2 => EntryForm::Whole(ObjectType::Tree),
        3 => EntryForm::Whole(ObjectType::Blob),
        4 => EntryForm::Whole(ObjectType::Tag),
        6 => {
            let back = base_distance(&mut rest)?;
            EntryForm::OffsetDelta {
                back,
                result: result_size(rest, inflater)?,
            }
        }
        7 => {
            let (id, delta) = rest.split_at_checked(ID).ok_or_else(short)?;
            let base =
                Oid::from_bytes(id).map_err(|_| PackError::Malformed("a delta without a base"))?;
            EntryForm::IdDelta {
                base,
                result: result_size(delta, inflater)?,
            }
        }
        _ => {
            return Err(PackError::Malformed(
                "an entry of a type that does not exist",
            ));
        }
    };
    Ok(Stored { bytes: size, form })
}

fn next_byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    Some(*first)
}

/// The number of bytes between a delta and its base.
fn base_distance(rest: &mut &[u8]) -> Result<u64, PackError> {
    let short = || PackError::Malformed("an entry ends early");
    let mut byte = next_byte(rest).ok_or_else(short)?;
    let mut back = u64::from(byte & 0x7f);
    while byte & 0x80 != 0 {
        byte = next_byte(rest).ok_or_else(short)?;
        if back >> 50 != 0 {
            return Err(PackError::Malformed("a delta's base lies before the pack"));
        }
        back = ((back + 1) << 7) | u64::from(byte & 0x7f);
    }
    Ok(back)
}

/// The size of a delta's result. A delta begins with the sizes of its base and of its result;
/// libgit2 applies no delta whose base has another size.
fn result_size(compressed: &[u8], inflater: &mut DecompressorOxide) -> Result<u64, PackError> {
    let malformed = || PackError::Malformed("a delta does not begin with two sizes");
    inflater.init();
    let mut start = [0; DELTA_START];
    // Inflating stops when the buffer is full.
    let (status, _, written) = decompress(inflater, compressed, &mut start, 0, INFLATE_FLAGS);
    if (status as i8) < 0 {
        return Err(malformed());
    }
    let mut start = start.get(..written).unwrap_or_default();
    size_number(&mut start).ok_or_else(malformed)?;
    size_number(&mut start).ok_or_else(malformed)
}

/// A number with seven bits in a byte, the lowest bits first.
fn size_number(rest: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0, 0);
    while shift <= 56 {
        let byte = next_byte(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
    None
}

/// The type of every object: a delta has the type of the whole object at the end of its chain.
fn kinds(entries: &[IndexEntry], stored: &[Stored]) -> Result<Vec<ObjectType>, PackError> {
    let too_deep = || PackError::Malformed("a chain of more deltas than Git makes");
    let bases = Bases::new(entries);
    let mut known: Vec<Option<(ObjectType, usize)>> = vec![None; entries.len()];
    let mut chain = Vec::new();
    for start in 0..entries.len() {
        let mut at = start;
        let (kind, depth) = loop {
            if let Some(found) = known[at] {
                break found;
            }
            let base = match stored[at].form {
                EntryForm::Whole(kind) => {
                    known[at] = Some((kind, 0));
                    break (kind, 0);
                }
                EntryForm::OffsetDelta { back, .. } => {
                    bases.at_offset(entries[at].offset.checked_sub(back))
                }
                EntryForm::IdDelta { base, .. } => bases.with_id(base),
            };
            // A circle of deltas is an endless chain.
            if chain.len() == MAX_DELTA_DEPTH {
                return Err(too_deep());
            }
            chain.push(at);
            at = base.ok_or(PackError::Malformed(
                "a delta of an object that is not in the pack",
            ))?;
        };
        if depth + chain.len() > MAX_DELTA_DEPTH {
            return Err(too_deep());
        }
        let above = (depth + 1..).zip(chain.drain(..).rev());
        for (depth, delta) in above {
            known[delta] = Some((kind, depth));
        }
    }
    Ok(known.into_iter().flatten().map(|(kind, _)| kind).collect())
}

/// Looks up the bases of deltas among the entries.
struct Bases<'a> {
    entries: &'a [IndexEntry],
    by_id: Vec<usize>,
}

impl<'a> Bases<'a> {
    /// The entries are in the order of their offsets.
    fn new(entries: &'a [IndexEntry]) -> Self {
        let mut by_id: Vec<usize> = (0..entries.len()).collect();
        by_id.sort_unstable_by_key(|at| entries[*at].id);
        Self { entries, by_id }
    }

    fn at_offset(&self, offset: Option<u64>) -> Option<usize> {
        let offset = offset?;
        self.entries
            .binary_search_by_key(&offset, |entry| entry.offset)
            .ok()
    }

    fn with_id(&self, id: Oid) -> Option<usize> {
        let place = self
            .by_id
            .binary_search_by_key(&id, |at| self.entries[*at].id)
            .ok()?;
        self.by_id.get(place).copied()
    }
}

/// A file that is read forwards in pieces.
struct FileWindow {
    file: File,
    start: u64,
    bytes: Vec<u8>,
}

impl FileWindow {
    fn new(file: File) -> Self {
        Self {
            file,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// The bytes at an offset: [`ENTRY_START`] bytes, or fewer before the end of the file.
    fn at(&mut self, offset: u64) -> io::Result<&[u8]> {
        let inside = offset
            .checked_sub(self.start)
            .and_then(|from| usize::try_from(from).ok());
        let from = match inside {
            Some(from) if from + ENTRY_START <= self.bytes.len() => from,
            _ => {
                self.fill(offset)?;
                0
            }
        };
        let end = (from + ENTRY_START).min(self.bytes.len());
        Ok(self.bytes.get(from..end).unwrap_or_default())
    }

    fn fill(&mut self, offset: u64) -> io::Result<()> {
        self.start = offset;
        self.bytes.resize(WINDOW, 0);
        let mut filled = 0;
        while filled < WINDOW {
            match self
                .file
                .read_at(&mut self.bytes[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
