//! Files that the daemon shares with a container, which may have made anything of them: of any
//! size, or no file any more.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

/// Opens a regular file. No link is followed, and a pipe does not block.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        let message = "it is not a regular file";
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}

/// The beginning of a file, up to a limit in bytes.
pub(super) fn beginning(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path, OpenOptions::new().read(true))?
        .take(limit as u64)
        .read_to_end(&mut content)?;
    Ok(content)
}

/// Whether a file has exactly this content. No more than that is read.
pub(super) fn holds(file: &File, content: &[u8]) -> io::Result<bool> {
    let length = content.len() as u64;
    if file.metadata()?.len() != length {
        return Ok(false);
    }
    let mut found = Vec::with_capacity(content.len() + 1);
    // It may grow meanwhile.
    file.take(length + 1).read_to_end(&mut found)?;
    Ok(found == content)
}

/// Gives a file this content. Containers have bind-mounted the file itself, so it is rewritten in
/// place.
pub(super) fn write_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = open(path, options.mode(0o644))?;
    if holds(&file, content)? {
        return Ok(());
    }
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(content)
}
