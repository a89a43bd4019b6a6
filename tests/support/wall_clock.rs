//! A wall clock for single programs, which jumps while they run. Their monotonic clock stays the
//! machine's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;

/// The offset of the clock is in a file. `libfaketime` reads the file whenever the program, or a
/// program that it has started, reads the time.
#[derive(Debug)]
pub(crate) struct WallClock {
    file: PathBuf,
}

impl WallClock {
    /// A clock without an offset, in a directory that the program has at the same path.
    #[track_caller]
    pub(crate) fn new(dir: &Path) -> WallClock {
        let clock = WallClock {
            file: dir.join("wall-clock"),
        };
        clock.set(0);
        clock
    }

    /// Sets the clock `seconds` ahead of the machine's, or behind it where `seconds` is negative.
    #[track_caller]
    pub(crate) fn set(&self, seconds: i64) {
        // The rename is atomic: a program that reads the time meanwhile reads one of the two
        // offsets, and never a part of one.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }

    /// Makes a new directory with a script of this name, which runs the machine's program of this
    /// name with this clock.
    #[track_caller]
    pub(crate) fn wrap(&self, program: &str, dir: &Path) {
        let path = run(Command::new("which").arg(program)).ok();
        let environment = self
            .environment()
            .map(|(name, value)| format!("{name}={value}"))
            .join(" ");
        fs::create_dir(dir).unwrap();
        let file = dir.join(program);
        fs::write(
            &file,
            format!("#!/bin/sh\nexec env {environment} {path} \"$@\"\n"),
        )
        .unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Removes the shared memory that `libfaketime` made in processes that were killed or became
    /// another program: the next process with the same id would not start.
    pub(crate) fn sweep() {
        for entry in fs::read_dir("/dev/shm").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = ["faketime_shm_", "sem.faketime_sem_"]
                .iter()
                .find_map(|start| name.strip_prefix(start));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                // Another test may have removed the file already.
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    /// The environment variables that make a program read this clock.
    #[track_caller]
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        let library = format!(
            "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1",
            std::env::consts::ARCH
        );
        WallClock::sweep();
        // The dynamic linker only warns about a missing library, and the program would read the
        // machine's clock.
        assert!(
            Path::new(&library).exists(),
            "no {library}: install the package libfaketime"
        );
        [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Times of files stay those of the machine's clock.
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }
}
