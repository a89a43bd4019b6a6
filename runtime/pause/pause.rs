//! The program of every sandbox container: it holds the pod's namespaces and does nothing else.
//!
//! It needs no signal handler. It is the first process of its PID namespace, for which the kernel
//! ignores TERM, and installing a handler takes `unsafe`; so sandboxes are created with
//! `StopSignal: SIGKILL` and end at once. It never has children to reap, because the containers of
//! a pod share its network and IPC namespaces, not its PID namespace.

fn main() {
    loop {
        std::thread::park();
    }
}
