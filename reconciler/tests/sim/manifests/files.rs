//! The files and mounts of a pod, from its manifests.

use std::net::Ipv4Addr;

use reconciler::{
    object::Objects,
    plan::{MountSource, PodFiles, VolumeFiles},
    pod::{
        files::{DnsFacts, config_volumes, has_config_volumes, mounts, pod_files, volumes_digest},
        missing::MissingContent,
    },
};

use super::{only_workload, with_facts, with_pod};

fn files_of(objects: &Objects, dns: &DnsFacts) -> Result<PodFiles, MissingContent> {
    let spec = &only_workload(objects).template.spec;
    with_facts(objects, |pod| pod_files(spec, pod, objects, dns))
}

fn dns() -> DnsFacts {
    DnsFacts {
        cluster: Some(Ipv4Addr::new(10, 96, 0, 10)),
        zone: "cluster.local".to_owned(),
        host_searches: vec!["example.com".to_owned()],
        host_servers: vec!["192.0.2.53".to_owned()],
        host_options: vec!["rotate".to_owned()],
    }
}

const MAIN: &str = "containers: [{name: main, image: 'web:1'}]";

#[test]
fn resolv_conf_follows_the_dns_policy() {
    let resolv = |more: &str, dns: &DnsFacts| {
        let objects = with_pod(&format!("{more}{MAIN}"));
        files_of(&objects, dns).unwrap().resolv_conf
    };
    let cluster = "nameserver 10.96.0.10
search default.svc.cluster.local svc.cluster.local cluster.local example.com
options ndots:5
";
    let host = "nameserver 192.0.2.53\nsearch example.com\noptions rotate\n";
    assert_eq!(resolv("", &dns()), cluster);
    assert_eq!(resolv("dnsPolicy: Default, ", &dns()), host);
    assert_eq!(resolv("hostNetwork: true, ", &dns()), host);
    let with_host_net = "hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet, ";
    assert_eq!(resolv(with_host_net, &dns()), cluster);
    let alone = DnsFacts {
        cluster: None,
        ..dns()
    };
    assert_eq!(resolv("", &alone), host);

    let config =
        "dnsConfig: {nameservers: [192.0.2.54], searches: [a.example.com, _x.example.com.],
        options: [{name: ndots, value: '2'}, {name: edns0}]}, ";
    assert_eq!(
        resolv(config, &dns()),
        "nameserver 10.96.0.10
nameserver 192.0.2.54
search default.svc.cluster.local svc.cluster.local cluster.local example.com a.example.com _x.example.com.
options ndots:2 edns0
"
    );
    assert_eq!(
        resolv(&format!("dnsPolicy: None, {config}"), &dns()),
        "nameserver 192.0.2.54\nsearch a.example.com _x.example.com.\noptions ndots:2 edns0\n"
    );
}

#[test]
fn hosts_has_the_names_of_the_pod_and_its_aliases() {
    let spec = "hostname: db-0, subdomain: db, hostAliases: [{ip: 192.0.2.7, hostnames: [a, b.example.com]}], ";
    let files = files_of(&with_pod(&format!("{spec}{MAIN}")), &dns()).unwrap();
    assert_eq!(files.hostname, "db-0\n");
    let own = files.hosts.lines().skip(3).collect::<Vec<_>>();
    assert_eq!(
        own,
        [
            "10.42.1.7\tdb-0.db.default.svc.cluster.local\tdb-0",
            "192.0.2.7\ta\tb.example.com"
        ]
    );

    let files = files_of(&with_pod(&format!("hostNetwork: true, {MAIN}")), &dns()).unwrap();
    assert_eq!(files.hostname, "n1\n");
}

const VOLUMES: &str = "volumes: [
    {name: all, configMap: {name: app, defaultMode: 0400}},
    {name: cache, emptyDir: {medium: Memory, sizeLimit: 1Mi}},
    {name: data, hostPath: {path: /data, type: DirectoryOrCreate}},
    {name: one, secret: {secretName: app, items: [{key: PASSWORD, path: a/b, mode: 0600}]}},
    {name: optional, configMap: {name: none, optional: true}},
    {name: some, configMap: {name: app, optional: true, items: [{key: none, path: x}, {key: SIZE, path: 'y'}]}}], ";

/// Each volume as one line.
fn lines(volumes: &[VolumeFiles]) -> Vec<String> {
    let line = |volume: &VolumeFiles| match volume {
        VolumeFiles::EmptyDir {
            name,
            memory,
            size_limit,
            group: _,
        } => format!("{name}: memory {memory}, {size_limit:?}"),
        VolumeFiles::HostPath { path, kind } => format!("{path}: {kind:?}"),
        VolumeFiles::Files {
            name,
            memory,
            files,
            group: _,
        } => {
            let files = files.iter().map(|file| {
                let content = String::from_utf8_lossy(file.content.expose()).into_owned();
                format!("{}={content} {:o}", file.path, file.mode)
            });
            let files = files.collect::<Vec<_>>().join(", ");
            format!("{name}: memory {memory}, [{files}]")
        }
    };
    volumes.iter().map(line).collect()
}

#[test]
fn a_volume_has_the_files_of_its_source() {
    let objects = with_pod(&format!("{VOLUMES}{MAIN}"));
    let files = files_of(&objects, &dns()).unwrap();
    assert_eq!(
        lines(&files.volumes),
        [
            "all: memory false, [COLOR=blue 400, SIZE=3 400]",
            "cache: memory true, Some(1048576)",
            "/data: DirectoryOrCreate",
            "one: memory true, [a/b=secret 600]",
            "optional: memory false, []",
            "some: memory false, [y=3 644]",
        ]
    );

    // Only the files of ConfigMaps and Secrets can change while the pod runs.
    let spec = &only_workload(&objects).template.spec;
    assert!(has_config_volumes(spec));
    let changing = config_volumes(spec, "default", &objects).unwrap();
    let names: Vec<_> = lines(&changing)
        .iter()
        .map(|line| line.split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["all", "one", "optional", "some"]);
    assert_eq!(volumes_digest(&changing), volumes_digest(&files.volumes));
    assert_ne!(volumes_digest(&changing), volumes_digest(&changing[1..]));
    let plain = with_pod(&format!("volumes: [{{name: a, emptyDir: {{}}}}], {MAIN}"));
    assert!(!has_config_volumes(&only_workload(&plain).template.spec));
}

#[test]
fn a_volume_names_what_its_commit_does_not_have() {
    let missing = [
        (
            "{name: a, configMap: {name: none}}",
            "volume \"a\": its ConfigMap or Secret is not in the commit",
        ),
        (
            "{name: a, secret: {secretName: app, items: [{key: none, path: x}]}}",
            "volume \"a\": there is no key \"none\"",
        ),
    ];
    for (volume, why) in missing {
        let objects = with_pod(&format!("volumes: [{volume}], {MAIN}"));
        let error = files_of(&objects, &dns()).unwrap_err();
        assert_eq!(error.to_string(), why);
    }
}

#[test]
fn a_container_mounts_its_volumes_and_the_files_of_the_pod() {
    let objects = with_pod(&format!(
        "{VOLUMES}containers: [{{name: main, image: 'web:1', volumeMounts: [
            {{name: all, mountPath: /all}}, {{name: cache, mountPath: /cache, subPath: x}},
            {{name: data, mountPath: /data, readOnly: true}}, {{name: one, mountPath: /etc/hosts, subPath: a}}]}}]"
    ));
    let spec = &only_workload(&objects).template.spec;
    let lines: Vec<String> = mounts(&spec.containers[0], spec)
        .into_iter()
        .map(|mount| {
            let source = match mount.source {
                MountSource::HostPath { path, sub_path } => format!("path {path} {sub_path:?}"),
                MountSource::Volume { volume, sub_path } => format!("volume {volume} {sub_path:?}"),
                MountSource::PodFile(file) => format!("file {file}"),
            };
            format!("{}: {source}, read only {}", mount.target, mount.read_only)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "/all: volume all None, read only true",
            "/cache: volume cache Some(\"x\"), read only false",
            "/data: path /data None, read only true",
            "/etc/hosts: volume one Some(\"a\"), read only true",
            "/etc/resolv.conf: file resolv.conf, read only false",
            "/etc/hostname: file hostname, read only false",
        ]
    );
}
