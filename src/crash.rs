//! Crash points for the tests of crash safety: the daemon kills itself at a configured point.
//!
//! Only debug builds have them. `WINDLASS_CRASH_AT=start-sandbox:2` kills the process the second
//! time it comes past the point `start-sandbox`, as `kill -9` would.

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    };

    struct Armed {
        point: String,
        left: AtomicU32,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        ARMED
            .get_or_init(|| {
                let text = std::env::var("WINDLASS_CRASH_AT").ok()?;
                let (point, count) = text.split_once(':').unwrap_or((&text, "1"));
                Some(Armed {
                    point: point.to_owned(),
                    left: AtomicU32::new(count.parse().ok()?),
                })
            })
            .as_ref()
    }

    pub(crate) fn point(name: &str) {
        if let Some(armed) = armed()
            && armed.point == name
            && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
            && let Some(own) =
                rustix::process::Pid::from_raw(i32::try_from(std::process::id()).unwrap_or(0))
        {
            eprintln!("windlass: crash point {name}");
            // The signal ends the process at once, so an error cannot be handled.
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            std::thread::park();
        }
    }
}

#[cfg(debug_assertions)]
pub(crate) use armed::point;

/// Does nothing in a release build.
#[cfg(not(debug_assertions))]
pub(crate) fn point(_name: &str) {}
