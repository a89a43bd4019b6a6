//! The process that cleans up after a part of the test bed. It is no child of a thread of the test,
//! and outlives a test that is killed.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::command::repository_root;

/// Ends every process of a network namespace and a control group when it is dropped, and removes
/// both and a directory. A static is never dropped, and neither is anything of a test that is
/// killed: then the guard's input ends with the test's process, and the guard does the same.
#[derive(Debug)]
pub(crate) struct Guard {
    process: Child,
    input: Option<ChildStdin>,
    /// The directory of all files of the guarded part, which is removed with that part.
    pub(crate) dir: PathBuf,
    /// The name of the network namespace, and of the control group below the root.
    pub(crate) name: String,
}

impl Guard {
    /// Makes the directory and the namespace, and starts the process that guards them.
    pub(crate) fn start() -> Guard {
        static COUNT: AtomicU32 = AtomicU32::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wlt{}-{number}", std::process::id());
        let dir = PathBuf::from("/var/tmp").join(&name);
        std::fs::create_dir(&dir).unwrap_or_else(|error| {
            panic!(
                "cannot make {} (these tests need root): {error}",
                dir.display()
            )
        });
        let log = File::create(dir.with_extension("guard.log")).unwrap();
        let mut process = Command::new("setsid")
            .arg(bed_script())
            .arg("guard")
            .args([dir.as_os_str(), name.as_ref(), name.as_ref()])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        super::run(Command::new("ip").args(["netns", "add", &name])).ok();
        Guard {
            process,
            input,
            dir,
            name,
        }
    }

    /// Ends every process of the guarded part but `keep`, at once.
    pub(crate) fn halt(&self, keep: u32) {
        super::run(
            bed("halt")
                .args([&self.name, &self.name])
                .arg(keep.to_string()),
        )
        .ok();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.input.take());
        let ended = self.process.wait();
        if !ended.as_ref().is_ok_and(|status| status.success()) {
            eprintln!(
                "the guard of {} ended as {ended:?}: see its log {}",
                self.dir.display(),
                self.dir.with_extension("guard.log").display()
            );
        }
    }
}

/// A command of the script that makes and ends the parts of a test bed.
pub(crate) fn bed(command: &str) -> Command {
    let mut script = Command::new(bed_script());
    script.arg(command);
    script
}

/// The path of the script that makes and ends the parts of a test bed.
pub(crate) fn bed_script() -> PathBuf {
    repository_root().join("tests/support/bed.sh")
}

/// Moves the calling thread into the network namespace of this name. The sockets that the thread
/// makes from then on, and the threads that it starts, belong to that namespace.
pub(crate) fn enter_netns(name: &str) {
    let namespace = File::open(Path::new("/run/netns").join(name)).unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// A command that runs in the network namespace of this name and in the mount namespace of the
/// test.
///
/// `ip netns exec` would also remount `/sys`, and so hide the control groups from an engine.
pub(crate) fn in_netns(name: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!(
        "--net={}",
        Path::new("/run/netns").join(name).display()
    ));
    command
}
