//! Whole documents: placeholders, encrypted documents, byte order marks and large files.

use reconciler::{
    desired::{self, CheckSettings},
    manifest::{Limits, ReadAs, SourceFile},
};

use crate::practice::read;

#[test]
fn placeholders_are_named_only_where_they_make_a_value_invalid() {
    let text = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-${ENVIRONMENT:-secret-default}
  labels: {\"${KEY}\": b, fine: a}
  annotations: {note: \"${FINE}\"}
spec:
  replicas: ${REPLICAS}
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
      - name: c
        image: ${REGISTRY}/nginx:${TAG}
        env: [{name: A, value: \"${FINE}\"}]
        resources: {limits: {memory: \"${MEMORY}\"}}
        ports: [{containerPort: \"${PORT}\"}]
---
apiVersion: v1
kind: Secret
metadata: {name: s}
data: {password: \"${PASSWORD}\"}
---
apiVersion: v1
kind: Service
metadata: {name: ${APP}}
";
    insta::assert_snapshot!(read(text, ReadAs::NewHead).1, @r#"
    a.yaml:4:3: metadata.name: `${ENVIRONMENT}` is not substituted here: commit the manifest with the value in its place, as `flux build` or envsubst print it; as it is written: "web-${ENVIRONMENT:-secret-default}" is not valid: it must be at most 253 lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit
    a.yaml:5:12: metadata.labels[${KEY}]: `${KEY}` is not substituted here: commit the manifest with the value in its place, as `flux build` or envsubst print it; as it is written: this key is not valid: it must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, after an optional domain and '/'
    a.yaml:8:3: spec.replicas: `${REPLICAS}` is not substituted here: commit the manifest with the value in its place, as `flux build` or envsubst print it; as it is written: must be a whole number, not a text
    a.yaml:15:9: spec.template.spec.containers[0].image: `${REGISTRY}` is not substituted here: commit the manifest with the value in its place, as `flux build` or envsubst print it; as it is written: "${REGISTRY}/nginx:${TAG}" is no image: "${REGISTRY}" is no host of a registry: write one such as registry.example.com:5000
    a.yaml:17:30: spec.template.spec.containers[0].resources.limits.memory: `${MEMORY}` is not substituted here: commit the manifest with the value in its place, as `flux build` or envsubst print it; as it is written: "${MEMORY}" is not valid: it must be a quantity such as 2, 0.5, 500m, 128Mi or 1G
    a.yaml:18:18: spec.template.spec.containers[0].ports[0].containerPort: `${PORT}` is not substituted here: commit the manifest with the value in its place, as `flux build` or envsubst print it; as it is written: must be a whole number, not a text
    a.yaml:23:8: data.password: `${PASSWORD}` is not substituted here: commit the manifest with the value in its place, as `flux build` or envsubst print it; as it is written: must be base64
    a.yaml:27:19: not valid YAML: did not find expected ',' or '}', while parsing a flow mapping at line 27 column 11; `${APP}` is not substituted here: commit the manifest with the value in its place, as `flux build` or envsubst print it
    "#);
}

#[test]
fn documents_encrypted_by_sops_are_recognised_everywhere() {
    let text = "apiVersion: ENC[AES256_GCM,data:AA,type:str]
kind: ENC[AES256_GCM,data:AA,type:str]
sops: {mac: x}
---
kind: List
apiVersion: v1
items:
- apiVersion: example.com/v1
  kind: Database
  sops: {version: 3.8.1}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
data: {a: 'ENC[AES256_GCM,data:AA,type:str]'}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: a}
sops: {version: 3.8.1}
";
    insta::assert_snapshot!(read(text, ReadAs::NewHead).1, @"
    a.yaml:1:1: this document is encrypted by SOPS, and decrypting on the host is not supported yet; commit it decrypted where only those who may know its values can read the repository, or keep this document out of the configured paths, and what uses it too
    a.yaml:8:3: this document is encrypted by SOPS, and decrypting on the host is not supported yet; commit it decrypted where only those who may know its values can read the repository, or keep this document out of the configured paths, and what uses it too
    a.yaml:15:8: data.a: this value is encrypted by SOPS, and decrypting on the host is not supported yet; commit it decrypted where only those who may know its values can read the repository, or keep this document out of the configured paths, and what uses it too
    a.yaml:17:1: warning: accepted without effect: ServiceAccount mean something only to a Kubernetes API server
    ");
}

#[test]
fn a_byte_order_mark_is_allowed_before_every_document() {
    let document = |name: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: \"\u{feff}v\"}}\n"
        )
    };
    let bom = '\u{feff}';
    for text in [
        format!("{bom}{}---\n{bom}{}", document("a"), document("b")),
        format!("{}{bom}---\n{}", document("a"), document("b")),
        format!(
            "{bom}---\n{}\n{bom}--- # next\n\n# about b\n{bom}{}",
            document("a"),
            document("b")
        ),
        format!(
            "{}...\r\n{bom}---\n{bom}# about b\n{}",
            document("a"),
            document("b")
        ),
    ] {
        let (objects, problems, _) = read(&text, ReadAs::NewHead);
        assert_eq!(problems, "", "{text:?}");
        let values: Vec<&[u8]> = objects
            .config_maps
            .values()
            .map(|map| map.data["k"].as_slice())
            .collect();
        assert_eq!(values, ["\u{feff}v".as_bytes(); 2], "{text:?}");
    }
    let json = |name: &str| {
        format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {{\"name\": \"{name}\"}}}}\n"
        )
    };
    let text = format!("{bom}{}{bom}{}", json("a"), json("b"));
    let file = SourceFile {
        path: "a.json",
        content: text.as_bytes(),
    };
    let settings = CheckSettings::default();
    let (objects, problems) =
        desired::read(&[file], &Limits::default(), &settings, ReadAs::NewHead);
    assert!(
        problems.is_empty() && objects.config_maps.len() == 2,
        "{problems:?}"
    );
}

#[test]
fn a_file_may_have_four_mebibytes_and_its_problems_have_line_numbers() {
    let header = |number: usize| {
        format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{number}}}\ndata:\n")
    };
    // The file has a value for about every twenty bytes, as bundles of custom resource definitions
    // have.
    let mut text = String::new();
    let mut documents = 0;
    while text.len() < (4 << 20) - 40_000 {
        documents += 1;
        text.push_str(&header(documents));
        for line in 0..1_000 {
            text.push_str(&format!("  key{line:04}: value {line:04}\n"));
        }
    }
    let (objects, problems, _) = read(&text, ReadAs::NewHead);
    assert_eq!(
        (problems.as_str(), objects.config_maps.len()),
        ("", documents)
    );

    let line = text.lines().count() + 4;
    text.push_str("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: A}\n");
    assert!(
        read(&text, ReadAs::NewHead)
            .1
            .starts_with(&format!("a.yaml:{line}:12: metadata.name: "))
    );

    text.push_str(&"#".repeat(4 << 20));
    assert!(
        read(&text, ReadAs::NewHead)
            .1
            .contains("may have 4194304: split it")
    );
    let text = format!("a: &a [{}]\nb: [{}]\n", "1,".repeat(999), "*a,".repeat(999));
    assert!(
        read(&text, ReadAs::NewHead).1.contains("too many values"),
        "a small file must not expand by its aliases"
    );
}
