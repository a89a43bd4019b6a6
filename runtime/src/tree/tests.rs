#![expect(clippy::unwrap_used, reason = "a test")]
use std::{
    fs,
    os::{fd::AsRawFd, unix::fs::symlink},
    path::PathBuf,
    thread,
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;

const PATIENCE: Duration = Duration::from_secs(300);

/// Makes directories in each other, until there are so many or the disk is full.
fn nest(path: &Path, levels: usize) -> Result<(), Errno> {
    let mut at = openat(CWD, path, OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&at, "d", Mode::RWXU)?;
        at = openat(&at, "d", OFlags::PATH, Mode::empty()).unwrap();
    }
    Ok(())
}

/// Removes a tree on a thread with a small stack.
fn remove_on_small_stack(tree: PathBuf) -> io::Result<()> {
    let small = thread::Builder::new().stack_size(64 * 1024);
    let removal = small.spawn(move || remove_tree(&tree, PATIENCE));
    removal.unwrap().join().unwrap()
}

/// A tmpfs that is unmounted at the end, wherever it is then.
struct Tmpfs(OwnedFd);

impl Tmpfs {
    fn new(path: &Path, options: &CStr) -> Self {
        fs::create_dir_all(path).unwrap();
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(options)).unwrap();
        Self(openat(CWD, path, OFlags::PATH, Mode::empty()).unwrap())
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_tree_is_removed_and_what_its_links_name_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, kept) = (directory.path().join("tree"), directory.path().join("kept"));
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::create_dir_all(tree.join(".removed-1/x/y")).unwrap();
    fs::create_dir_all(&kept).unwrap();
    for file in [&kept, &tree.join("a/b"), &tree.join(".removed-1")] {
        fs::write(file.join("file"), "x").unwrap();
    }
    fs::write(tree.join(".removed-2"), "x").unwrap();
    for link in ["a/link", "link", ".removed-1/link", ".removed-3"] {
        symlink(&kept, tree.join(link)).unwrap();
    }
    remove_tree(&tree, PATIENCE).unwrap();
    assert!(!tree.exists() && kept.join("file").exists());

    remove_tree(&tree, PATIENCE).unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    remove_tree(&file, PATIENCE).unwrap();
    symlink(&kept, &file).unwrap();
    remove_tree(&file, PATIENCE).unwrap();
    assert!(kept.join("file").exists() && fs::symlink_metadata(&file).is_err());
}

#[test]
fn a_tree_of_any_depth_takes_neither_stack_nor_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    nest(&tree, 5_000).unwrap();
    remove_on_small_stack(tree.clone()).unwrap();
    assert!(!tree.exists());
}

#[test]
fn a_wide_tree_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    for one in 0..3_000 {
        fs::create_dir_all(tree.join(format!("wide/{one}"))).unwrap();
        fs::write(tree.join(format!("wide/{one}/file")), "").unwrap();
        fs::create_dir_all(tree.join(format!("{one}/below"))).unwrap();
    }
    remove_tree(&tree, PATIENCE).unwrap();
    assert!(!tree.exists());
}

/// No heap can be made on a full disk, and there a removal matters most.
#[test]
fn a_tree_is_removed_from_a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    let _mounted = Tmpfs::new(&disk, c"nr_inodes=6000");
    let tree = disk.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::create_dir(tree.join("other")).unwrap();
    assert_eq!(nest(&tree, 10_000), Err(Errno::NOSPC));
    remove_on_small_stack(tree.clone()).unwrap();
    assert!(!tree.exists());
}

#[test]
fn what_is_mounted_in_a_tree_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    for path in ["mounted", "a/mounted", ".removed-1", ".removed-2/mounted"] {
        let other = Tmpfs::new(&tree.join(path), c"size=1m");
        fs::create_dir_all(other.path().join("directory")).unwrap();
        fs::write(other.path().join("file"), "x").unwrap();
        let error = remove_tree(&tree, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{path}: {error}");
        let kept = other.path();
        assert!(kept.join("file").exists() && kept.join("directory").exists());
    }
    remove_tree(&tree, PATIENCE).unwrap();
    assert!(!tree.exists());
}

#[test]
fn a_removal_that_ran_out_of_time_is_continued() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    nest(&tree, 3_000).unwrap();
    let mut attempts = 0;
    loop {
        match remove_tree(&tree, Duration::from_millis(2)) {
            Ok(()) => break,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}"),
        }
        attempts += 1;
        assert!(attempts < 10_000, "each attempt gets further");
    }
    assert!(attempts > 0, "one attempt is not enough");
    assert!(!tree.exists());
}
