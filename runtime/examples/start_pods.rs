//! How long pods of one container take to start, through the runtime's own API and nothing else:
//! the engine's floor under a rollout, to be printed beside `docker run`.
//!
//! ```text
//! cargo run -p runtime --example start_pods -- IMAGE_ID PODS CONCURRENCY [SOCKET]
//! ```
#![expect(clippy::print_stdout, reason = "a figure is what it is run for")]

use std::{error::Error, time::Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use reconciler::{
    fault::Fault,
    name::{CommitId, ImageId, ImageReference, Installation, ObjectKey, PodUid, TemplateHash},
    object::{ContainerSecurity, Resources},
    plan::{ContainerSpec, PodFiles, PodIdentity, Role, SandboxSpec},
};
use runtime::{Runtime, RuntimeConfig};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| {
        arguments
            .next()
            .ok_or_else(|| format!("missing argument: {what}"))
    };
    let (image, pods, concurrency) = (
        next("IMAGE_ID")?,
        next("PODS")?.parse()?,
        next("CONCURRENCY")?.parse()?,
    );
    let socket = next("SOCKET").unwrap_or_else(|_| "/var/run/docker.sock".to_owned());
    let data = tempfile::Builder::new()
        .prefix("windlass-bench-")
        .tempdir()?;
    let instance = format!("bench-{}", std::process::id());
    let mut config = RuntimeConfig::new(Installation::new(&instance), data.path());
    config.socket = socket.into();
    let runtime = Runtime::open(config).await?;
    runtime.observe().await?;

    let begun = Instant::now();
    let started = stream::iter(0..pods)
        .map(|number| start(&runtime, &image, number))
        .buffer_unordered(concurrency)
        .try_collect::<Vec<()>>()
        .await;
    let took = begun.elapsed();
    let looked = Instant::now();
    let running = runtime
        .observe()
        .await?
        .containers
        .values()
        .filter(|found| found.state.is_alive())
        .count();
    let looking = looked.elapsed();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap_or_default()
        .trim();
    println!(
        "{pods} pods, {concurrency} at a time: {:.2} s ({running} containers running, seen in {:.0} ms, {memory} of memory)",
        took.as_secs_f32(),
        looking.as_secs_f32() * 1000.0
    );
    runtime.uninstall().await?;
    started?;
    Ok(())
}

async fn start(runtime: &Runtime, image: &str, number: u32) -> Result<(), Fault> {
    let identity = PodIdentity {
        uid: PodUid::new(format!("{number:08x}-{}", std::process::id())),
        pod: ObjectKey::new("default", format!("bench-{number}")),
        owner: format!("Pod/default/bench-{number}")
            .parse()
            .map_err(|error: &str| Fault::new(reconciler::fault::FaultKind::Other, error))?,
        commit: CommitId::from([0x12; 20]),
        template: TemplateHash::new("1-9f86d081884c7d65"),
    };
    let files = PodFiles {
        pod: identity.uid.clone(),
        resolv_conf: String::new(),
        hosts: String::new(),
        hostname: String::new(),
        volumes: Vec::new(),
    };
    runtime.prepare_files(&files).await?;
    let sandbox = SandboxSpec {
        identity: identity.clone(),
        attempt: 0,
        hostname: identity.pod.name.clone(),
        host_network: false,
        host_ipc: false,
        sysctls: Default::default(),
    };
    runtime.start_sandbox(&sandbox).await?;
    let container = ContainerSpec {
        identity,
        role: Role::Main,
        name: "app".to_owned(),
        attempt: 0,
        image: ImageId::new(image),
        image_name: ImageReference::new(image),
        command: ["sleep", "1000"].map(str::to_owned).to_vec(),
        args: Vec::new(),
        working_dir: None,
        env: Vec::new(),
        mounts: Vec::new(),
        resources: Resources::default(),
        host_pid: false,
        stdin: false,
        tty: false,
        security: ContainerSecurity::default(),
        stop_signal: None,
        termination_message_path: "/dev/termination-log".to_owned(),
        message_from_logs: false,
    };
    runtime.start_container(&container).await
}
