//! `lifecycle.stopSignal`.

use crate::manifest::at::At;

/// The signals of Linux that Kubernetes accepts, beside those of real time.
const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// Whether a word is a signal: one of the list, or one of real time, `SIGRTMIN+n` or `SIGRTMAX-n`.
fn is_signal(word: &str) -> bool {
    let real_time = |name: &str, sign: char, most: u32| {
        let Some(rest) = word.strip_prefix(name) else {
            return false;
        };
        let number = rest
            .strip_prefix(sign)
            .and_then(|number| number.parse().ok());
        rest.is_empty() || number.is_some_and(|number: u32| (1..=most).contains(&number))
    };
    SIGNALS.contains(&word) || real_time("SIGRTMIN", '+', 15) || real_time("SIGRTMAX", '-', 14)
}

/// `lifecycle.stopSignal`.
pub(super) fn stop_signal(word: Option<String>, names_os: bool, at: &At<'_>) -> Option<String> {
    let word = word?;
    if !names_os {
        at.error("needs spec.os.name: write os: {name: linux} in the pod, as Kubernetes wants it");
    }
    if !is_signal(&word) {
        at.error(format_args!(
            "{word:?} is not a signal: write one such as SIGINT, SIGUSR1 or SIGRTMIN+3"
        ));
    }
    Some(word)
}
