use super::*;

#[test]
fn a_pod_writes_to_the_paths_that_are_mounted_to_be_written_and_are_no_sockets() {
    let host_path = |path: &str, kind| {
        let path = path.to_owned();
        VolumeSource::HostPath { path, kind }
    };
    let volumes = [
        ("data", host_path("/srv/", HostPathKind::Directory)),
        ("socket", host_path("/run/a.sock", HostPathKind::Socket)),
        ("read", host_path("/etc", HostPathKind::Directory)),
        ("unused", host_path("/opt", HostPathKind::Directory)),
    ];
    let mount = |volume: &str, read_only: bool, sub_path: Option<&str>| VolumeMount {
        volume: volume.to_owned(),
        path: format!("/{volume}"),
        sub_path: sub_path.map(str::to_owned),
        read_only,
        propagation: MountPropagation::None,
    };
    let container = |mounts: Vec<VolumeMount>| Container {
        mounts,
        ..Container::default()
    };
    let mut spec = PodSpec {
        init_containers: vec![container(vec![mount("data", false, Some("a"))])],
        containers: vec![container(vec![
            mount("socket", false, None),
            mount("read", true, None),
            mount("data", false, None),
        ])],
        volumes: volumes
            .map(|(name, source)| (name.to_owned(), source))
            .into(),
        ..PodSpec::default()
    };
    assert_eq!(spec.written_host_paths(), ["/srv/a", "/srv"]);
    assert!(spec.writes_to_host());

    spec.volumes.remove("data");
    assert_eq!(spec.written_host_paths(), Vec::<String>::new());
    assert!(!spec.writes_to_host());
}
