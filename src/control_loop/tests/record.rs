//! A recorded cluster: the state directories, the store and the containers that three hosts with an
//! earlier version of Windlass left. `scripts/upgrade --record` makes a record.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use reconciler::{
    name::{ImageId, Installation},
    network::HostNetwork,
};
use serde::Deserialize;
use serde_json::Value;

use super::etcd::EtcdProcess;
use crate::{source::testing::Work, store::EtcdConfig};

/// The record of the last version that published no format of records.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/records/e632e2e");

/// A recorded cluster, whose store is in an etcd of its own.
pub(super) struct RecordedCluster {
    _etcd: EtcdProcess,
    pub(super) store: EtcdConfig,
    /// Etcd's id of its cluster, which the hosts must know.
    etcd_id: u64,
}

/// One host of a recorded cluster.
pub(super) struct RecordedHost {
    pub(super) number: u8,
    pub(super) network: HostNetwork,
    pub(super) installation: Installation,
    /// The inspections of its containers, as JSON.
    pub(super) containers: Vec<u8>,
    /// The images in the registry, by their references.
    pub(super) images: BTreeMap<String, ImageId>,
    directory: PathBuf,
    etcd_id: u64,
}

/// A key and its value in the recorded store.
#[derive(Deserialize)]
struct RecordedKey {
    key: String,
    value: String,
}

impl RecordedCluster {
    /// Starts an etcd and fills it with the recorded store.
    pub(super) async fn start() -> Self {
        let etcd = EtcdProcess::new();
        let mut client = etcd.client().await;
        // A store with a lower revision than the hosts know would count as restored from a backup.
        let marker: Value = read_json(&Path::new(RECORD).join("n1/data/store.json"));
        let known = marker["revision"].as_i64().unwrap();
        let (etcd_id, mut revision) = client.id_and_revision().await;
        while revision < known {
            client.put("../elsewhere", "").await;
            revision += 1;
        }

        let keys: Vec<RecordedKey> = read_json(&Path::new(RECORD).join("store.json"));
        for RecordedKey { key, value } in keys {
            client.put(&key, &value).await;
        }

        let store = etcd.config();
        Self {
            _etcd: etcd,
            store,
            etcd_id,
        }
    }

    /// One of its hosts.
    pub(super) fn host(&self, number: u8) -> RecordedHost {
        let directory = Path::new(RECORD).join(format!("n{number}"));
        let instance: Value = read_json(&directory.join("data/instance.json"));
        let images: Value = read_json(&directory.join("data/images.json"));
        let images = images["images"].as_object().unwrap().iter();
        let references = images.flat_map(|(id, references)| {
            let references = references.as_array().unwrap().iter();
            references.map(|reference| {
                let reference = reference.as_str().unwrap().to_owned();
                (reference, ImageId::new(id.as_str()))
            })
        });
        let facts: Value = read_json(&Path::new(RECORD).join("store.json"));

        RecordedHost {
            number,
            network: recorded_network(&facts, number),
            installation: Installation::new(instance["id"].as_str().unwrap()),
            containers: fs::read(directory.join("containers.json")).unwrap(),
            images: references.collect(),
            directory,
            etcd_id: self.etcd_id,
        }
    }
}

impl RecordedHost {
    /// Copies the state directory; etcd's own id in it becomes the one of this test's etcd.
    pub(super) fn copy_state(&self, data: &Path) {
        copy_directory(&self.directory.join("data"), data);
        let marker_file = data.join("store.json");
        let mut marker: Value = read_json(&marker_file);
        marker["etcd_cluster"] = self.etcd_id.into();
        fs::write(marker_file, marker.to_string()).unwrap();
    }

    /// A work tree of the repository that the cluster followed.
    pub(super) fn clone_repository(&self) -> Work {
        let work = Work::new();
        let bundle = format!("{RECORD}/repository.bundle");
        work.git(&["fetch", "-q", &bundle, "main"]);
        work.git(&["reset", "-q", "--hard", "FETCH_HEAD"]);
        work
    }
}

/// The network of a host by the facts that the host published.
fn recorded_network(store: &Value, number: u8) -> HostNetwork {
    let value_of = |wanted: &str| -> Value {
        let keys = store.as_array().unwrap();
        let found = keys.iter().find(|key| key["key"] == wanted).unwrap();
        serde_json::from_str(found["value"].as_str().unwrap()).unwrap()
    };
    let identity = value_of("cluster");
    let document = value_of(&format!("nodes/n{number}/facts"));
    let facts = &document["facts"];
    let parse = |value: &Value| value.as_str().unwrap().to_owned();

    HostNetwork {
        pod_range: parse(&identity["pod_range"]).parse().unwrap(),
        pod_subnet: parse(&facts["pod_subnet"]).parse().unwrap(),
        service_range: parse(&identity["service_range"]).parse().unwrap(),
        dns: parse(&identity["dns"]).parse().unwrap(),
        node_address: parse(&facts["address"]).parse().unwrap(),
        mtu: u32::try_from(facts["mtu"].as_u64().unwrap()).unwrap(),
        vxlan: reconciler::network::VxlanSettings::default(),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
