//! Classifies the error texts of the engine and of registries. The engine's status code is not
//! enough (a registry's refusal may come as 404, 500 or inside a stream), so the text decides.

use reconciler::fault::FaultKind;

const DISK_FULL: &[&str] = &["no space left on device", "disk quota exceeded"];

/// The registry responded that there is no such image for these credentials.
const IMAGE_MISSING: &[&str] = &[
    "manifest unknown",
    "no matching manifest",
    "repository does not exist",
    "repository name not known",
    "name unknown",
    "invalid reference format",
    "invalid repository name",
    "does not match the specified platform",
];

/// No registry responded, or it is too busy to: the pull is tried again.
const REGISTRY_UNREACHABLE: &[&str] = &[
    "no such host",
    "connection refused",
    "connection reset",
    "i/o timeout",
    "timeout exceeded",
    "timed out",
    "tls handshake",
    "x509:",
    "certificate",
    "network is unreachable",
    "no route to host",
    "server misbehaving",
    "temporary failure",
    "unexpected eof",
    ": eof",
    "server gave http response to https client",
    "request canceled",
    "context canceled",
    "deadline exceeded",
    "toomanyrequests",
    "rate limit",
    "received unexpected http status: 5",
    "bad gateway",
    "service unavailable",
    "internal server error",
];

const REGISTRY_DENIED: &[&str] = &[
    "unauthorized",
    "authentication required",
    "no basic auth credentials",
    "denied",
    "forbidden",
    "incorrect username or password",
];

/// The container cannot be run, however often it is tried.
const REJECTED: &[&str] = &[
    "executable file not found",
    "no such file or directory",
    "exec format error",
    "permission denied",
    "is a directory",
    "not a directory",
    "unable to find user",
    "unable to find group",
    "no matching entries in passwd file",
    "invalid mount config",
    "no command specified",
    "cannot start a container with an empty",
    "unknown capability",
    "invalid capabilit",
    "minimum memory limit",
    "range of cpus",
    "is not a shared mount",
    "is not a shared or slave mount",
    "must be absolute",
    "working directory",
    "cannot be mounted",
    "duplicate mount point",
];

/// The engine cannot reach or run its own components, even where its text reports a file of theirs
/// as missing.
const ENGINES_OWN: &[&str] = &[
    "dial unix",
    "unable to retrieve oci runtime error",
    "failed to start shim",
];

/// The same, unless the text is about what the container requests: it may mount a socket or
/// containerd's directory.
const PERHAPS_ENGINES_OWN: &[&str] = &["containerd", ".sock"];
const ABOUT_THE_CONTAINER: &[&str] = &["oci runtime", "invalid mount config"];

/// The engine's text for a command that it could not pass to the container's runtime.
const COMMAND_NOT_HANDED_ON: &[&str] = &[
    "containerd",
    ".sock",
    "ttrpc",
    "transport:",
    "context deadline exceeded",
    "context canceled",
];

/// Whether the text shows that the engine itself is why a command was not started.
pub(crate) fn is_engines_trouble(message: &str) -> bool {
    let text = message.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    says(ENGINES_OWN) || (says(COMMAND_NOT_HANDED_ON) && !text.contains("oci runtime"))
}

/// Classifies an error of creating, starting, stopping or any other call on one container.
pub(super) fn container(status: u16, message: &str) -> FaultKind {
    let text = message.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if says(DISK_FULL) {
        return FaultKind::DiskFull;
    }
    if text.contains("bind source path does not exist") {
        return FaultKind::HostPath;
    }
    if says(ENGINES_OWN) || (says(PERHAPS_ENGINES_OWN) && !says(ABOUT_THE_CONTAINER)) {
        return FaultKind::Other;
    }
    let sandbox_gone = text.contains("non running container") || text.contains("cannot join");
    match status {
        404 | 409 => FaultKind::Gone,
        _ if sandbox_gone
            || text.contains("no such container")
            || text.contains("is not running") =>
        {
            FaultKind::Gone
        }
        400 => FaultKind::Rejected,
        _ if says(REJECTED) => FaultKind::Rejected,
        _ => FaultKind::Other,
    }
}

/// Classifies an error of a pull.
pub(super) fn pull(status: u16, message: &str) -> FaultKind {
    let text = message.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if says(DISK_FULL) {
        FaultKind::DiskFull
    } else if says(IMAGE_MISSING) {
        FaultKind::ImageMissing
    } else if says(REGISTRY_UNREACHABLE) {
        FaultKind::RegistryUnreachable
    } else if says(REGISTRY_DENIED) || matches!(status, 401 | 403) {
        FaultKind::RegistryDenied
    } else if status == 404 || text.contains("not found") || status == 400 {
        FaultKind::ImageMissing
    } else {
        FaultKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_texts_are_told_apart() {
        use FaultKind::{DiskFull, ImageMissing, Other, RegistryDenied, RegistryUnreachable};
        let texts = [
            (
                404,
                "manifest for httpd:9 not found: manifest unknown: manifest unknown",
                ImageMissing,
            ),
            (
                404,
                "pull access denied for nosuch, repository does not exist or may require 'docker login': denied: \
                 requested access to the resource is denied",
                ImageMissing,
            ),
            (
                0,
                "no matching manifest for linux/amd64 in the manifest list entries",
                ImageMissing,
            ),
            (400, "invalid reference format", ImageMissing),
            (
                500,
                "Get \"https://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                RegistryUnreachable,
            ),
            (
                500,
                "Get \"https://r.example.com/v2/\": dial tcp: lookup r.example.com: no such host",
                RegistryUnreachable,
            ),
            (
                500,
                "Get \"https://r.example.com/v2/\": net/http: request canceled while waiting for connection \
                 (Client.Timeout exceeded while awaiting headers)",
                RegistryUnreachable,
            ),
            (
                500,
                "toomanyrequests: You have reached your pull rate limit",
                RegistryUnreachable,
            ),
            (
                500,
                "Get \"https://r.example.com/v2/\": x509: certificate signed by unknown authority",
                RegistryUnreachable,
            ),
            (500, "unauthorized: authentication required", RegistryDenied),
            (
                500,
                "Head \"https://r.example.com/v2/x/manifests/1\": no basic auth credentials",
                RegistryDenied,
            ),
            (
                500,
                "error parsing HTTP 403 response body: denied by policy",
                RegistryDenied,
            ),
            (
                0,
                "write /var/lib/docker/tmp/x: no space left on device",
                DiskFull,
            ),
            (500, "something else", Other),
        ];
        for (status, text, kind) in texts {
            assert_eq!(pull(status, text), kind, "{text}");
        }
    }

    #[test]
    fn a_container_that_cannot_run_is_told_from_an_engine_in_trouble() {
        use FaultKind::{DiskFull, Gone, HostPath, Other, Rejected};
        let texts = [
            (
                400,
                "OCI runtime create failed: container_linux.go:380: starting container process caused: exec: \
                 \"nosuch\": executable file not found in $PATH: unknown",
                Rejected,
            ),
            (
                400,
                "invalid mount config for type \"bind\": bind source path does not exist: /nosuch",
                HostPath,
            ),
            (
                409,
                "cannot join network of a non running container: 0123",
                Gone,
            ),
            (404, "No such container: 0123", Gone),
            (
                500,
                "unable to find user nosuch: no matching entries in passwd file",
                Rejected,
            ),
            (
                500,
                "mkdir /var/lib/docker/x: no space left on device",
                DiskFull,
            ),
            (
                500,
                "containerd: connection error: desc = transport is closing",
                Other,
            ),
            (
                400,
                "connection error: desc = \"transport: Error while dialing dial unix \
                 /run/containerd/containerd.sock: connect: no such file or directory\": unavailable",
                Other,
            ),
            (
                400,
                "failed to start shim: exec: \"containerd-shim\": executable file not found in $PATH: unknown",
                Other,
            ),
            (
                400,
                "OCI runtime create failed: unable to retrieve OCI runtime error (open \
                 /run/containerd/io.containerd.runtime.v2.task/moby/0123/log.json: no such file or directory)",
                Other,
            ),
            (
                400,
                "OCI runtime create failed: container_linux.go:380: starting container process caused: \
                 rootfs_linux.go:76: mounting \"/srv/app.sock\" to rootfs at \"/etc\" caused: not a directory: \
                 unknown",
                Rejected,
            ),
            (
                400,
                "invalid mount config for type \"bind\": bind source path does not exist: /srv/app.sock",
                HostPath,
            ),
        ];
        for (status, text, kind) in texts {
            assert_eq!(container(status, text), kind, "{text}");
        }
    }
}
