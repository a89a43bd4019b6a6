//! A wall clock of a program's own, which jumps while the program runs. The clock that never jumps
//! is the machine's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;

/// By how much the clock is off lies in a file, which `libfaketime` reads whenever the program or
/// one that it has started asks for the time.
#[derive(Debug)]
pub(crate) struct WallClock {
    file: PathBuf,
}

impl WallClock {
    /// A clock that is right so far, kept in a directory that the program sees at the same path.
    #[track_caller]
    pub(crate) fn new(dir: &Path) -> WallClock {
        let clock = WallClock {
            file: dir.join("wall-clock"),
        };
        clock.set(0);
        clock
    }

    /// Makes it jump: it is so many seconds ahead of the machine's afterwards, or behind it.
    #[track_caller]
    pub(crate) fn set(&self, seconds: i64) {
        // Whoever asks meanwhile reads the one or the other, and never half of it.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }

    /// Puts a program of this name into a new directory, which is the machine's, going by this
    /// clock.
    #[track_caller]
    pub(crate) fn wrap(&self, program: &str, dir: &Path) {
        let found = run(Command::new("which").arg(program)).ok();
        let environment = self
            .environment()
            .map(|(name, value)| format!("{name}={value}"))
            .join(" ");
        fs::create_dir(dir).unwrap();
        let file = dir.join(program);
        fs::write(
            &file,
            format!("#!/bin/sh\nexec env {environment} {found} \"$@\"\n"),
        )
        .unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Removes what processes have left behind that were killed or became another program: the next
    /// one with such a number would not start.
    pub(crate) fn sweep() {
        for entry in fs::read_dir("/dev/shm").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = ["faketime_shm_", "sem.faketime_sem_"]
                .iter()
                .find_map(|start| name.strip_prefix(start));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                // Whoever is faster has done it.
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    /// The environment in which programs go by it.
    #[track_caller]
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        let library = format!(
            "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1",
            std::env::consts::ARCH
        );
        WallClock::sweep();
        // The linker would only warn, and the clock would be right for ever.
        assert!(
            Path::new(&library).exists(),
            "no {library}: install the package libfaketime"
        );
        [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // The times of files are the machine's.
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }
}
