//! The installation of one test: a label for its containers, an image and a data directory.
//! Everything is removed when the bed is dropped.

use std::{
    fs,
    future::Future,
    net::Ipv4Addr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use reconciler::{
    fault::Fault,
    name::{
        CommitId, ContainerId, ImageId, ImageReference, Installation, ObjectKey, PodUid,
        TemplateHash,
    },
    object::{ContainerSecurity, MountPropagation, Resources},
    observed::{ContainerState, ObservedContainer},
    plan::{
        ContainerSpec, Mount, MountSource, PodFiles, PodIdentity, PullMode, Role, SandboxSpec,
        StopSpec, VolumeFiles,
    },
};
use runtime::{Runtime, RuntimeConfig};
use tempfile::TempDir;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
const APPLETS: &[&str] = &[
    "sh", "sleep", "cat", "echo", "touch", "httpd", "wget", "id", "true", "ls", "hostname", "stat",
];

static NEXT: AtomicU32 = AtomicU32::new(0);
/// The number of beds. The last bed to be dropped removes the image of sandboxes, which all beds
/// share.
static BEDS: Mutex<u32> = Mutex::new(0);

pub(crate) struct Bed {
    pub(crate) runtime: Runtime,
    pub(crate) config: RuntimeConfig,
    pub(crate) instance: String,
    pub(crate) image: String,
    pub(crate) image_id: ImageId,
    pub(crate) data: TempDir,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        *BEDS.lock().unwrap() += 1;
        let instance = format!(
            "wlrt-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let data = tempfile::Builder::new().prefix("wlrt-").tempdir().unwrap();
        let image = format!("wlrt-test/busybox:{instance}");
        import_busybox(data.path(), &image);
        let mut config = RuntimeConfig::new(Installation::new(&instance), data.path());
        change(&mut config);
        let runtime = Runtime::open(config.clone()).await.unwrap();
        let image_id = ImageId::new(docker(&["image", "inspect", "-f", "{{.Id}}", &image]));
        Self {
            runtime,
            config,
            instance,
            image,
            image_id,
            data,
        }
    }

    /// A new runtime for the same installation, as of a daemon that was killed and started again.
    pub(crate) async fn reopened(&self) -> Runtime {
        Runtime::open(self.config.clone()).await.unwrap()
    }

    pub(crate) fn identity(&self, pod: &str) -> PodIdentity {
        PodIdentity {
            // Container names contain the first eight characters, which must be unique on the
            // engine.
            uid: PodUid::new(format!(
                "{:08x}-{pod}-{}",
                hash(&format!("{}{pod}", self.instance)),
                self.instance
            )),
            pod: ObjectKey::new("default", pod),
            owner: format!("Pod/default/{pod}").parse().unwrap(),
            commit: CommitId::parse("0123456789abcdef0123456789abcdef01234567").unwrap(),
            template: TemplateHash::new("1-9f86d081884c7d65"),
        }
    }

    pub(crate) fn sandbox(&self, pod: &str) -> SandboxSpec {
        SandboxSpec {
            identity: self.identity(pod),
            attempt: 0,
            hostname: pod.to_owned(),
            host_network: false,
            host_ipc: false,
            sysctls: Default::default(),
        }
    }

    pub(crate) fn container(&self, pod: &str, name: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            identity: self.identity(pod),
            role: Role::Main,
            name: name.to_owned(),
            attempt: 0,
            image: self.image_id.clone(),
            image_name: ImageReference::new(&self.image),
            command: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
            args: vec![],
            working_dir: None,
            env: vec![],
            mounts: vec![],
            resources: Resources::default(),
            host_pid: false,
            stdin: false,
            tty: false,
            security: ContainerSecurity::default(),
            stop_signal: None,
            termination_message_path: "/dev/termination-log".to_owned(),
            message_from_logs: false,
        }
    }

    /// The bed's image with another user.
    pub(crate) fn image_with_user(&self, name: &str, user: &str) -> ImageId {
        let base = docker(&["create", &self.image, "true"]);
        let change = format!("USER {user}");
        let image = format!("{}-{name}", self.image);
        let id = docker(&["commit", "-c", &change, &base, &image]);
        docker(&["rm", &base]);
        ImageId::new(id)
    }

    pub(crate) fn files(&self, pod: &str, volumes: Vec<VolumeFiles>) -> PodFiles {
        PodFiles {
            pod: self.identity(pod).uid,
            resolv_conf: "nameserver 127.0.0.1\n".to_owned(),
            hosts: "127.0.0.1 localhost\n".to_owned(),
            hostname: format!("{pod}\n"),
            volumes,
        }
    }

    /// Starts a pod with one container; returns the container's id.
    pub(crate) async fn pod(&self, pod: &str, script: &str) -> ContainerId {
        self.runtime
            .prepare_files(&self.files(pod, vec![]))
            .await
            .unwrap();
        self.runtime
            .start_sandbox(&self.sandbox(pod))
            .await
            .unwrap();
        self.runtime
            .start_container(&self.container(pod, "app", script))
            .await
            .unwrap();
        self.id_of(pod, "app").await
    }

    pub(crate) async fn id_of(&self, pod: &str, name: &str) -> ContainerId {
        let uid = self.identity(pod).uid;
        let observed = self.runtime.observe().await.unwrap();
        let matching = observed
            .containers
            .iter()
            .filter(|(_, container)| container.identity.uid == uid && container.name == name);
        matching
            .max_by_key(|(_, container)| container.attempt)
            .map(|(id, _)| id.clone())
            .unwrap()
    }

    /// Waits until a container fulfils a condition. The container is observed again only after an
    /// event of the engine, so a missing event makes the test fail.
    pub(crate) async fn until(
        &self,
        id: &ContainerId,
        condition: impl Fn(Option<&ObservedContainer>) -> bool,
    ) -> Option<ObservedContainer> {
        let mut changed = self.runtime.changed();
        within("a container to change", async {
            loop {
                let observed = self.runtime.observe().await.unwrap();
                let container = observed.containers.get(id);
                if condition(container) {
                    return container.cloned();
                }
                changed.changed().await.unwrap();
            }
        })
        .await
    }

    /// The observed state of a container.
    pub(crate) async fn state(&self, id: &ContainerId) -> ContainerState {
        self.runtime.observe().await.unwrap().containers[id]
            .state
            .clone()
    }

    pub(crate) async fn pulled(
        &self,
        image: &str,
        mode: PullMode,
    ) -> Result<reconciler::plan::ImagePin, Fault> {
        self.runtime.pull(image, mode).await
    }

    /// The ids of all containers of this test, running or not.
    pub(crate) fn containers(&self) -> Vec<String> {
        let filter = format!("label=io.windlass.instance={}", self.instance);
        docker(&["ps", "-aq", "--no-trunc", "--filter", &filter])
            .lines()
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn mounts(&self) -> usize {
        let data = self.data.path().to_str().unwrap();
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .filter(|line| line.contains(data))
            .count()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for id in self.containers() {
            let _ = try_docker(&["rm", "-f", "-v", &id]);
        }
        let reference = format!("reference={}*", self.image);
        let images = try_docker(&["images", "-q", "--filter", &reference]).unwrap_or_default();
        for image in images.lines() {
            let _ = try_docker(&["rmi", "-f", image]);
        }
        let mut beds = BEDS
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *beds -= 1;
        if *beds == 0 {
            let tags = try_docker(&["images", "-q", "windlass-pause"]).unwrap_or_default();
            tags.lines()
                .for_each(|image| drop(try_docker(&["rmi", image])));
        }
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below = |line: &&str| line.contains(self.data.path().to_str().unwrap_or("nowhere"));
        for mount in table
            .lines()
            .filter(below)
            .filter_map(|line| line.split(' ').nth(4))
        {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
        // A pod may have left what the recursion of `TempDir` is not for.
        let _ = runtime::remove_tree(self.data.path(), Duration::from_secs(60));
    }
}

pub(crate) fn stop(id: &ContainerId, grace: Duration) -> StopSpec {
    StopSpec {
        container: id.clone(),
        pre_stop: None,
        address: Ipv4Addr::LOCALHOST,
        grace,
    }
}

pub(crate) fn volume_mount(volume: &str, target: &str) -> Mount {
    Mount {
        source: MountSource::Volume {
            volume: volume.to_owned(),
            sub_path: None,
        },
        target: target.to_owned(),
        read_only: false,
        propagation: MountPropagation::None,
    }
}

/// Awaits a future; panics when it is not done before the deadline.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(result) => result,
        Err(_) => panic!("waited {} s for {what}", DEADLINE.as_secs()),
    }
}

/// Runs the docker client, against which the tests check the runtime.
pub(crate) fn docker(arguments: &[&str]) -> String {
    match try_docker(arguments) {
        Ok(output) => output,
        Err(error) => panic!("docker {arguments:?}: {error}"),
    }
}

pub(crate) fn try_docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

fn import_busybox(data: &Path, image: &str) {
    let tree = data.join("busybox");
    let bin = tree.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(tree.join("tmp")).unwrap();
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    fs::copy(
        busybox.expect("the package busybox-static is needed"),
        bin.join("busybox"),
    )
    .unwrap();
    fs::set_permissions(bin.join("busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    APPLETS
        .iter()
        .for_each(|applet| symlink("busybox", bin.join(applet)).unwrap());
    let mut tar = Command::new("tar")
        .arg("-c")
        .arg("-C")
        .arg(&tree)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let from = tar.stdout.take().unwrap();
    let done = Command::new("docker")
        .args(["import", "-", image])
        .stdin(from)
        .output()
        .unwrap();
    assert!(
        tar.wait().unwrap().success() && done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
