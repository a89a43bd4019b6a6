//! The child process itself.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::super::fetch::{
    FetchError, HTTP, HTTPS, RemoteTask, RemoteUrl, check, compact, fetch, layout, port_in,
};
use super::super::mirror::Mirror;
use super::super::sandbox::{NetworkAccess, Sandbox};
use super::{
    AUTHORITIES, ChildAnswer, ChildRequest, ChildTask, MAX_REQUEST_BYTES, NO_CERTIFICATES, home,
};

/// The descriptors of the child: pipes, sockets, and the files of the download. Each pack that it
/// reads takes one more.
const DESCRIPTORS: u64 = 64;
/// The address space beside the memory that may be written to: the program, its libraries, and the
/// stack.
const PROGRAM_BYTES: u64 = 256 * 1024 * 1024;
/// DNS over TCP, for long answers.
const DNS: u16 = 53;

/// What a resolver, TLS and git read on a host, beside the work itself. Landlock follows links to
/// these files only when the rules are made.
const SYSTEM_FILES: &[&str] = &[
    // Libraries of the name services are loaded when the first name is resolved.
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/localtime",
    // Certificate authorities.
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/var/lib/ca-certificates",
];
/// git's configuration of the host.
const GIT_CONFIGURATION: &str = "/etc/gitconfig";
/// The variables from which libgit2 takes a proxy.
const PROXIES: &[&str] = &["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"];

/// The main function of the child: reads a request, does the work in a sandbox, writes the answer.
pub(crate) fn child_main() -> ExitCode {
    // A repository may hold Secrets: only the child and root may read what is fetched.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let answer = match read_request() {
        Ok(request) => match enter(&request) {
            Ok(()) => act(&request),
            Err(detail) => Err(FetchError::Sandbox { detail }),
        },
        Err(error) => Err(FetchError::Child {
            detail: format!("read the request: {error}"),
        }),
    };

    // A library may have written to standard output before; the answer is the last line.
    let written = serde_json::to_vec(&answer)
        .map_err(io::Error::from)
        .and_then(|text| {
            let mut output = io::stdout().lock();
            output.write_all(b"\n")?;
            output.write_all(&text)?;
            output.write_all(b"\n")?;
            output.flush()
        });
    if written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn read_request() -> io::Result<ChildRequest> {
    let mut document = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_REQUEST_BYTES)
        .read_to_end(&mut document)?;
    serde_json::from_slice(&document).map_err(io::Error::from)
}

fn act(request: &ChildRequest) -> Result<ChildAnswer, FetchError> {
    let mirror = Mirror::new(&request.mirror);
    match &request.task {
        ChildTask::Fetch(task) => fetch(&mirror, task, &request.limits).map(ChildAnswer::Fetched),
        ChildTask::Compact { tips } => compact(&mirror, tips).map(|()| ChildAnswer::Compacted),
        ChildTask::Check { commits } => Ok(ChildAnswer::Checked(check(&mirror, commits))),
    }
}

/// Gives up all that the work does not need. Nothing of a stranger is read before this ends.
pub(crate) fn enter(request: &ChildRequest) -> Result<(), String> {
    // The kernel ends this process before any other that it could end for memory. Some containers
    // have no /proc to write to.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let mut sandbox = Sandbox {
        user: request.user,
        reads: Vec::new(),
        writes: request.quarantine(),
        network: network(request),
    };
    sandbox.become_user().map_err(|error| error.to_string())?;
    // The kernel sends this signal when the thread that started the process ends, so that thread
    // must stay: a worker of the runtime, and no blocking thread. Becoming another user would clear
    // it (prctl(2), PR_SET_PDEATHSIG).
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| prepare(&error))?;

    let packs = packs(request);
    sandbox.reads = reads(request, &packs);
    limit_resources(request, &packs).map_err(|error| prepare(&error))?;
    prepare_home(request).map_err(|error| {
        format!(
            "prepare {}: {error}; the user of the fetch ({}) must be able to pass through all \
             directories above it: chmod o+x",
            request.quarantine().display(),
            rustix::process::geteuid().as_raw()
        )
    })?;
    sandbox.enter().map_err(|error| error.to_string())
}

fn prepare(error: &dyn std::fmt::Display) -> String {
    format!("prepare: {error}")
}

fn network(request: &ChildRequest) -> NetworkAccess {
    let ChildTask::Fetch(task) = &request.task else {
        return NetworkAccess::None;
    };
    let port = match task.url.parse::<RemoteUrl>() {
        Ok(url @ RemoteUrl::Network(_)) => url.port(),
        Ok(RemoteUrl::Local(_)) | Err(_) => return NetworkAccess::None,
    };
    let proxies = PROXIES
        .iter()
        .filter_map(|name| proxy_port(&std::env::var(name).ok()?));
    // A server behind http may redirect to https.
    let always = [DNS, HTTPS];
    NetworkAccess::Remote {
        ports: port.into_iter().chain(always).chain(proxies).collect(),
        name_services: request.user.is_some_and(|user| !user.is_root()),
    }
}

/// The port of a proxy: `[http://][user:password@]host[:port][/]`.
fn proxy_port(proxy: &str) -> Option<u16> {
    let (scheme, rest) = proxy.split_once("://").unwrap_or(("http", proxy));
    let default = if scheme == "https" { HTTPS } else { HTTP };
    port_in(rest.split('/').next()?, default)
}

/// The directories of packs that the task reads, beside those that it writes.
fn packs(request: &ChildRequest) -> Vec<PathBuf> {
    let objects = match local_repository(&request.task) {
        Some((_, directory)) => directory.join("objects"),
        None => request.mirror.join("objects"),
    };
    vec![objects.join("pack")]
}

/// The configured directory of a repository on this host, and that of its refs and objects.
fn local_repository(task: &ChildTask) -> Option<(PathBuf, PathBuf)> {
    let ChildTask::Fetch(task) = task else {
        return None;
    };
    match task.url.parse().ok()? {
        RemoteUrl::Local(local) => {
            let path = local.path().to_owned();
            let directory = layout::git_directory(&path).unwrap_or_else(|_| path.clone());
            Some((path, directory))
        }
        RemoteUrl::Network(_) => None,
    }
}

fn reads(request: &ChildRequest, packs: &[PathBuf]) -> Vec<PathBuf> {
    let mut reads = packs.to_vec();
    match (local_repository(&request.task), &request.task) {
        (Some((path, directory)), _) => reads.extend([path, directory]),
        (None, ChildTask::Fetch(_)) => {
            reads.push(request.mirror.join("objects"));
            reads.extend(SYSTEM_FILES.iter().map(PathBuf::from));
        }
        (None, ChildTask::Compact { .. } | ChildTask::Check { .. }) => {
            reads.push(request.mirror.join("objects"));
        }
    }
    reads.push(GIT_CONFIGURATION.into());
    reads
}

/// Limits the resources that a malicious pack can make this process use.
fn limit_resources(request: &ChildRequest, packs: &[PathBuf]) -> io::Result<()> {
    let limits = &request.limits;
    let pack_and_index = limits.received_bytes.saturating_mul(2);
    let (mut files, mut mapped) = (0, pack_and_index);
    for directory in packs {
        let (count, bytes) = size(directory);
        files += count;
        mapped = mapped.saturating_add(bytes);
    }
    // libgit2 maps packs and indexes, up to 8 GiB at once: they are files, which take no memory
    // that others need. What the process may write to is limited by itself (RLIMIT_DATA).
    let own = limits
        .address_space_bytes
        .max(limits.memory_bytes().saturating_add(PROGRAM_BYTES));
    // Only root with its capabilities may raise a limit.
    let descriptors = getrlimit(Resource::Nofile)
        .maximum
        .map_or(DESCRIPTORS + files, |most| most.min(DESCRIPTORS + files));
    for (resource, value) in [
        (Resource::Core, 0),
        (Resource::Cpu, limits.deadline.as_secs().saturating_add(1)),
        (Resource::Fsize, pack_and_index),
        (Resource::As, own.saturating_add(mapped)),
        (Resource::Data, limits.memory_bytes()),
        (Resource::Nofile, descriptors),
    ] {
        setrlimit(
            resource,
            Rlimit {
                current: Some(value),
                maximum: Some(value),
            },
        )?;
    }
    Ok(())
}

/// The number of files in a directory, and their size.
fn size(directory: &Path) -> (u64, u64) {
    let Ok(entries) = fs::read_dir(directory) else {
        return (0, 0);
    };
    let sizes = entries.flatten().filter_map(|entry| entry.metadata().ok());
    sizes.fold((0, 0), |(files, bytes), file| {
        (files + 1, bytes + file.len())
    })
}

/// Makes a home directory with exactly the configuration that a fetch needs.
fn prepare_home(request: &ChildRequest) -> io::Result<()> {
    let home = home(&request.quarantine());
    fs::create_dir_all(home.join(".ssh"))?;
    fs::create_dir_all(home.join(NO_CERTIFICATES))?;

    // Files of a repository on this host often belong to several users. libgit2 runs no hooks and no
    // filters here, against which the ownership check protects.
    //
    // Packs of a local repository are made on this host, with windows of ten objects that may be
    // large.
    let configuration = "[safe]\n\tdirectory = *\n[pack]\n\twindowMemory = 64m\n";
    fs::write(home.join(".gitconfig"), configuration)?;

    if let ChildTask::Fetch(task) = &request.task {
        let RemoteTask {
            authorities,
            known_hosts,
            ..
        } = task.as_ref();
        fs::write(
            home.join(".ssh/known_hosts"),
            known_hosts.as_deref().unwrap_or_default(),
        )?;
        if let Some(authorities) = authorities {
            fs::write(home.join(AUTHORITIES), authorities)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_proxy_is_read_as_libgit2_reads_it() {
        for (proxy, port) in [
            ("http://user:pw@proxy.example.com:3128", Some(3128)),
            ("http://proxy.example.com:3128/", Some(3128)),
            ("proxy.example.com:3128", Some(3128)),
            ("http://proxy.example.com", Some(80)),
            ("https://proxy.example.com", Some(443)),
            ("http://[2001:db8::1]:8080", Some(8080)),
            ("http://[2001:db8::1]", Some(80)),
            ("http://proxy.example.com:x", None),
        ] {
            assert_eq!(proxy_port(proxy), port, "{proxy}");
        }
    }
}
